//! The gateway's parts, put together once and shared by all tasks.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use shared::id::Seq;
use streams::{Nats, nap::Work};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::{Passwords, Revocations, Tickets, Tokens},
    catch_up::lagging::Lagging,
    clock::Clock,
    command::Commands,
    config::Settings,
    epochs::Epochs,
    hub::Hub,
    limits::Limits,
    loader::Loader,
    metrics::Metrics,
    origin::Origins,
    presence::Presence,
    reads::Reads,
    redis::Redis,
};

/// A client that was served this lately may go on: a request's next step, a chat's next message.
const SERVED_LATELY_MS: u64 = 100;

/// See the module.
pub struct App {
    pub settings: Settings,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub db: sql::Db,
    pub nats: Nats,
    pub redis: Redis,
    pub hub: Arc<Hub>,
    pub loader: Loader,
    pub commands: Commands,
    pub reads: Arc<Reads>,
    pub epochs: Epochs,
    pub presence: Arc<Presence>,
    pub lagging: Lagging,
    pub tokens: Tokens,
    pub tickets: Tickets,
    pub passwords: Passwords,
    pub revocations: Arc<Revocations>,
    pub limits: Limits,
    pub origins: Origins,
    /// Sessions, lanes and catch-ups: what a drain waits for.
    pub tracker: TaskTracker,
    /// Ends the long-lived tasks.
    pub cancel: CancellationToken,
    pub draining: AtomicBool,
    /// The oldest sequence that the log still keeps.
    pub oldest: AtomicU64,
}

impl App {
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whom the gateway works for at the moment. While it starts, for everybody who waits for it.
    pub fn work(&self) -> Work {
        let answers = self.commands.appends_in_flight() || self.hub.expected() > self.hub.position();
        if answers || !self.hub.is_open() {
            Work::Answers
        } else if self.clock.now_ms().saturating_sub(self.hub.served_ms()) < SERVED_LATELY_MS {
            Work::Clients
        } else {
            Work::Nobody
        }
    }

    /// Whether the hub holds the recent past, so that sessions and commands may come.
    pub fn is_caught_up(&self) -> bool {
        self.hub.is_open()
    }

    /// From now on the gateway is unready and takes no new sessions.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The lowest cursor that misses nothing: just before the oldest event that is kept.
    pub fn oldest(&self) -> Seq {
        Seq(self.oldest.load(Ordering::Acquire).saturating_sub(1))
    }

    pub fn set_oldest(&self, first: Seq) {
        self.oldest.store(first.get(), Ordering::Release);
    }
}
