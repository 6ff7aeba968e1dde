//! A well-behaved installation: it keeps its cursor, resumes at any gateway, retries unanswered sends with the
//! same uuid, fetches events that it finds missing, and reports all that it sees to the oracle.
//!
//! One task owns the socket; it waits only for the socket, an order, or the time of a retry.

mod life;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use uuid::Uuid;

use self::life::{Ends, Life};
pub use self::life::{Identity, Order, Phase};
use crate::{
    clock::now_ns,
    latency::Latencies,
    oracle::{Oracle, device_log::DeviceLog},
};

/// The handle of a running device.
#[derive(Debug)]
pub struct Device {
    pub user: u64,
    pub log: Arc<DeviceLog>,
    orders: mpsc::Sender<Order>,
    phase: watch::Receiver<Phase>,
    unanswered: Arc<AtomicU64>,
    oracle: Arc<Oracle>,
    task: JoinHandle<()>,
}

/// Orders that may wait while a device is away.
const ORDERS: usize = 4_096;

impl Device {
    /// Starts the device's task.
    pub fn start(identity: Identity, oracle: Arc<Oracle>, latencies: Arc<Latencies>) -> Self {
        let (orders, inbox) = mpsc::channel(ORDERS);
        let (phase_tx, phase) = watch::channel(Phase::Offline);
        let log = oracle.device(identity.user, format!("u{}/{}", identity.user, identity.device));
        let unanswered = Arc::new(AtomicU64::new(0));
        let user = identity.user;
        let told = oracle.clone();
        let ends = Ends { orders: inbox, phase: phase_tx, unanswered: unanswered.clone() };
        let life = Life::new(identity, oracle, latencies, log.clone(), ends);
        #[expect(clippy::disallowed_methods, reason = "the handle is the owner: `stop` waits for it")]
        let task = tokio::spawn(life.run());
        Self { user, log, orders, phase, unanswered, oracle: told, task }
    }

    /// Hands an order over; `false` when the device has stopped or is too far behind. From here on the oracle
    /// expects an answer to a send.
    pub fn order(&self, order: Order) -> bool {
        let Ok(place) = self.orders.try_reserve() else { return false };
        if let Order::Send { chat, uuid, body, .. } = &order {
            self.oracle.sent(self.user, *chat, *uuid, body);
        }
        place.send(order);
        true
    }

    /// Sends a message now and returns its uuid.
    pub fn send(&self, chat: u64, body: impl Into<String>) -> Uuid {
        let uuid = Uuid::now_v7();
        self.order(Order::Send { chat, uuid, body: body.into(), intended_ns: now_ns() });
        uuid
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// How many sends have no final answer.
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Acquire)
    }

    /// Waits until the device is live; `false` if it isn't in time.
    pub async fn live(&self, limit: Duration) -> bool {
        let mut phase = self.phase.clone();
        let live = phase.wait_for(|phase| *phase == Phase::Live);
        tokio::time::timeout(limit, live).await.is_ok_and(|live| live.is_ok())
    }

    /// Closes for good and waits for the task.
    pub async fn stop(self) {
        let _: bool = self.order(Order::Stop);
        // A task that panicked has failed the run already.
        drop(self.task.await);
    }
}
