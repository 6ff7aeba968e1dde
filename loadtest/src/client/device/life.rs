//! The task of a device. It owns the socket, the cursor and the outbox, and nothing else touches them.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::Rng;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::{
    client::{
        outbox::Outbox,
        socket::{Connect, Received, Refused, Socket},
    },
    clock::now_ns,
    frame::Incoming,
    latency::Latencies,
    oracle::{Oracle, book::Key, device_log::DeviceLog},
};

/// The user and device, and the gateways that it connects to.
#[derive(Debug, Clone)]
pub struct Identity {
    pub user: u64,
    pub token: String,
    pub device: String,
    pub gateways: Arc<[String]>,
    /// The gateway that it tries first.
    pub first: usize,
    pub source: Option<IpAddr>,
}

/// An order of a scenario to a device.
#[derive(Debug)]
pub enum Order {
    Send {
        chat: u64,
        uuid: Uuid,
        body: String,
        intended_ns: u64,
    },
    /// Drop the connection without a word, come back after the pause at that gateway (or the next one).
    Reconnect {
        pause: Duration,
        gateway: Option<usize>,
    },
    /// Close for good.
    Stop,
}

/// Where a device is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Offline,
    /// Between `Welcome` and `Live`.
    Replaying,
    Live,
    /// Closed for good.
    Stopped,
}

/// The task's ends of the channels to its handle.
pub(super) struct Ends {
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) unanswered: Arc<AtomicU64>,
}

/// The pauses between attempts to connect.
const BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);
/// A silent server is given up after twice its heartbeat interval; before `Welcome`, after this.
const SILENCE: Duration = Duration::from_secs(20);
/// The events that one `Fetch` asks for.
const FETCH_LIMIT: u64 = 200;

/// The task's state.
pub(super) struct Life {
    identity: Identity,
    oracle: Arc<Oracle>,
    latencies: Arc<Latencies>,
    log: Arc<DeviceLog>,
    ends: Ends,
    outbox: Outbox,
    cursor: Option<String>,
    gateway: usize,
    heartbeat: Duration,
    replies: Vec<String>,
    /// The chat and head of the last `Fetch`, so that one gap is asked for once.
    last_fetch: Option<(u64, u64)>,
}

/// Why a connection ended.
enum End {
    /// Come back after the pause.
    Again(Duration),
    Stop,
}

impl Life {
    pub(super) fn new(
        identity: Identity,
        oracle: Arc<Oracle>,
        latencies: Arc<Latencies>,
        log: Arc<DeviceLog>,
        ends: Ends,
    ) -> Self {
        Self {
            gateway: identity.first,
            identity,
            oracle,
            latencies,
            log,
            ends,
            outbox: Outbox::default(),
            cursor: None,
            heartbeat: SILENCE,
            replies: Vec::new(),
            last_fetch: None,
        }
    }

    pub(super) async fn run(mut self) {
        let mut backoff = BACKOFF;
        loop {
            match self.connect().open().await {
                Ok(mut socket) => {
                    backoff = BACKOFF;
                    let end = self.session(&mut socket).await;
                    self.set_phase(Phase::Offline);
                    match end {
                        End::Again(pause) => tokio::time::sleep(pause).await,
                        End::Stop => {
                            socket.close().await;
                            break;
                        }
                    }
                }
                Err(refused) => {
                    if !self.may_return(&refused) {
                        break;
                    }
                    self.gateway += 1;
                    if self.rest(backoff).await {
                        break;
                    }
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
            }
        }
        self.log.finish();
        self.set_phase(Phase::Stopped);
    }

    /// Waits out a pause with jitter; `true` if the device was stopped meanwhile.
    async fn rest(&mut self, pause: Duration) -> bool {
        let pause = pause.mul_f64(rand::rng().random_range(0.5..1.0));
        let until = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return false,
                order = self.ends.orders.recv() => match order {
                    Some(Order::Send { chat, uuid, body, intended_ns }) => {
                        self.accept(chat, uuid, &body, intended_ns);
                    }
                    Some(Order::Reconnect { .. }) => {}
                    Some(Order::Stop) | None => return true,
                }
            }
        }
    }

    fn connect(&self) -> Connect {
        let gateway = &self.identity.gateways[self.gateway % self.identity.gateways.len()];
        let mut connect = Connect::new(gateway, &self.identity.token).with("device", &self.identity.device);
        if let Some(cursor) = &self.cursor {
            connect = connect.with("cursor", cursor);
        }
        connect.source = self.identity.source;
        connect
    }

    /// Whether a refusal allows another attempt.
    fn may_return(&self, refused: &Refused) -> bool {
        let final_refusal = matches!(refused.status(), 400..=428 | 430..=499);
        if final_refusal {
            self.log.protest(format!("connect: {refused:?}"));
        }
        !final_refusal
    }

    fn set_phase(&self, phase: Phase) {
        self.ends.phase.send_replace(phase);
    }

    async fn session(&mut self, socket: &mut Socket) -> End {
        self.log.connecting(self.cursor.is_some());
        self.heartbeat = SILENCE;
        self.outbox.restart();
        let mut welcomed = false;
        let mut heard = Instant::now();
        loop {
            if welcomed && self.write(socket).await.is_err() {
                return End::Again(BACKOFF);
            }
            let silent = heard + self.heartbeat;
            let due = self.outbox.due().map_or(silent, |due| due.min(silent));
            tokio::select! {
                biased;
                received = socket.next() => {
                    heard = Instant::now();
                    match received {
                        Received::Text(text) => welcomed |= self.read(&text),
                        Received::Binary(_) => self.log.protest("a binary frame".to_owned()),
                        Received::Closed(code) => return self.ended(code),
                    }
                }
                order = self.ends.orders.recv() => match order {
                    Some(Order::Send { chat, uuid, body, intended_ns }) => {
                        self.accept(chat, uuid, &body, intended_ns);
                    }
                    Some(Order::Reconnect { pause, gateway }) => {
                        self.gateway = gateway.unwrap_or(self.gateway + 1);
                        return End::Again(pause);
                    }
                    Some(Order::Stop) | None => return End::Stop,
                },
                () = tokio::time::sleep_until(due.into()) => {
                    if Instant::now() >= silent {
                        self.gateway += 1;
                        return End::Again(BACKOFF);
                    }
                }
            }
        }
    }

    fn ended(&mut self, code: Option<u16>) -> End {
        self.gateway += 1;
        match code {
            Some(code @ 4500..=4599) => {
                self.log.protest(format!("closed for good with {code}"));
                End::Stop
            }
            _ => End::Again(BACKOFF),
        }
    }

    /// Takes a send over: from here on it is retried until it has a final answer.
    fn accept(&mut self, chat: u64, uuid: Uuid, body: &str, intended_ns: u64) {
        let text = json!({"type": "SendMessage", "uuid": uuid, "chatId": chat, "body": body}).to_string();
        self.outbox.push(chat, uuid, text, intended_ns);
        self.count_unanswered();
    }

    /// Sends this device's messages that the log has lost again, unchanged.
    fn send_again(&mut self, chat: u64, after: u64) {
        for (Key { user, chat, uuid }, body) in self.oracle.cut(self.identity.user, chat, after) {
            self.oracle.sent(user, chat, uuid, &body);
            self.accept(chat, uuid, &body, now_ns());
        }
    }

    fn count_unanswered(&self) {
        self.ends.unanswered.store(self.outbox.len() as u64, Ordering::Release);
    }

    async fn write(&mut self, socket: &mut Socket) -> anyhow::Result<()> {
        let mut wrote = false;
        for reply in self.replies.drain(..) {
            socket.feed(reply).await?;
            wrote = true;
        }
        let now = Instant::now();
        while let Some(pending) = self.outbox.next_ready(now) {
            socket.feed(pending.text.clone()).await?;
            wrote = true;
        }
        if wrote {
            socket.flush().await?;
        }
        Ok(())
    }

    /// Reads one frame; `true` for `Welcome`.
    fn read(&mut self, text: &str) -> bool {
        match Incoming::parse(text) {
            Ok(incoming) => self.take(incoming),
            Err(error) => {
                self.log.protest(format!("{error} in {text}"));
                false
            }
        }
    }

    fn take(&mut self, incoming: Incoming<'_>) -> bool {
        match incoming {
            Incoming::Welcome { user, resumed, heartbeat_ms } => {
                if user != self.identity.user {
                    self.log.protest(format!("Welcome for user {user}"));
                }
                self.heartbeat = Duration::from_millis(heartbeat_ms.max(1_000) * 2);
                self.log.welcome(resumed);
                self.set_phase(Phase::Replaying);
                return true;
            }
            Incoming::Durable(event) => {
                let live = *self.ends.phase.borrow() == Phase::Live;
                if live && event.from != self.identity.user {
                    self.latencies.delivered(&event.body);
                }
                if let Some(head) = self.log.durable(&event, live) {
                    self.fetch(event.chat, head);
                }
            }
            Incoming::Live { cursor, replayed } => {
                self.log.live(self.oracle.tick(), replayed);
                self.keep(&cursor);
                self.set_phase(Phase::Live);
            }
            Incoming::Cursor { cursor } => {
                self.log.cursor();
                self.keep(&cursor);
            }
            Incoming::Ack { uuid, chat, seq, dup } => self.acked(uuid, chat, seq, dup),
            Incoming::Refused { uuid, code, temporary, retry_after_ms } => {
                self.refused(uuid, &code, temporary, Duration::from_millis(retry_after_ms));
            }
            Incoming::Reset { chat, after, cursor } => {
                self.send_again(chat, after);
                self.log.reset(chat, after);
                self.keep(&cursor);
            }
            Incoming::Page { chat, events, .. } => self.log.page(chat, &events),
            Incoming::Ping { t } => self.replies.push(format!("{{\"type\":\"Pong\",\"t\":{t}}}")),
            Incoming::Lagging { .. } => {
                self.log.lagging();
                self.set_phase(Phase::Replaying);
            }
            Incoming::Drain { .. } | Incoming::Other(_) => {}
        }
        false
    }

    fn keep(&mut self, cursor: &str) {
        let kept = self.cursor.get_or_insert_default();
        kept.clear();
        kept.push_str(cursor);
    }

    fn fetch(&mut self, chat: u64, head: u64) {
        if self.last_fetch.replace((chat, head)) != Some((chat, head)) {
            let fetch = json!({"type": "Fetch", "uuid": Uuid::now_v7(), "chatId": chat, "after": head, "limit": FETCH_LIMIT});
            self.replies.push(fetch.to_string());
        }
    }

    fn acked(&mut self, uuid: Uuid, chat: u64, seq: u64, dup: bool) {
        self.oracle.acked(self.identity.user, chat, uuid, seq, dup);
        if let Some(pending) = self.outbox.settle(uuid) {
            // A message that this device itself held back by leaving says nothing about the server.
            if pending.attempts == 1 {
                self.latencies.acked(pending.intended_ns);
            }
            self.count_unanswered();
        }
    }

    fn refused(&mut self, uuid: Option<Uuid>, code: &str, temporary: bool, after: Duration) {
        let Some(uuid) = uuid else {
            self.log.protest(format!("an error without a uuid: {code}"));
            return;
        };
        if temporary {
            self.outbox.postpone(uuid, after);
            self.oracle.postponed(code);
        } else if let Some(pending) = self.outbox.settle(uuid) {
            self.oracle.refused(self.identity.user, pending.chat, uuid, code);
            self.count_unanswered();
        }
    }
}
