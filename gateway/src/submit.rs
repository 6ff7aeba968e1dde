//! From a command to its answer, for sessions and for HTTP.
//!
//! A command is checked (`prepare`, `check`, `capacity`), its event is appended to the log (`append`, `create`), and
//! its answer is the verdict of the log's fold. Never decides by itself that a command succeeded. Invariants:
//! - a command that the checks refuse is not appended;
//! - success is reported only after the PubAck, and after this gateway's tail has passed the event and found it
//!   valid;
//! - every command is answered within [`COMMAND_DEADLINE`].

pub mod append;
pub mod capacity;
pub mod check;
pub mod create;
mod freshness;
pub mod prepare;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use shared::{
    code::Code,
    event::{Event, Fact},
    id::Seq,
    window::Window,
};
use streams::{Partition, append::Appender, barrier::Barrier, read::Bounds};
use tokio::{sync::oneshot, time::Instant};
use uuid::Uuid;

use self::{append::Placed, capacity::ChatSettings, freshness::Freshness};
use crate::{
    command::{Actor, Command, Failure, Stored},
    feed::{loader::Loader, reads::Reads},
    hub::{
        Hub,
        verdict::{Key, Waiter},
    },
    session::Session,
};

/// A command that has no outcome after this long is answered with a temporary error. Its publish is given up before.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// Runs commands. Shared by all sessions and requests.
pub struct Commands {
    hub: Arc<Hub>,
    db: sql::Db,
    loader: Loader,
    appender: Appender,
    barrier: Barrier,
    reads: Arc<Reads>,
    limits: ChatSettings,
    freshness: Freshness,
    /// Whether the log is nearly full.
    full: AtomicBool,
}

/// The parts of [`Commands`].
pub struct Parts {
    pub hub: Arc<Hub>,
    pub db: sql::Db,
    pub loader: Loader,
    pub appender: Appender,
    pub barrier: Barrier,
    pub reads: Arc<Reads>,
    pub limits: ChatSettings,
    pub duplicate_window: Duration,
}

impl Commands {
    pub fn new(parts: Parts) -> Self {
        let Parts { hub, db, loader, appender, barrier, reads, limits, duplicate_window } = parts;
        let window = Window { ms: duplicate_window.as_millis() as u64 };
        Self {
            freshness: Freshness::new(hub.clone(), window),
            hub,
            db,
            loader,
            appender,
            barrier,
            reads,
            limits,
            full: AtomicBool::new(false),
        }
    }

    /// Says whether the log is nearly full: then only changes that pass (`Change::passes_full_log`) are appended.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Release);
    }

    /// Runs a command to its verdict.
    ///
    /// # Errors
    /// The refusal, or a temporary failure whose outcome is unknown.
    pub async fn execute(&self, actor: &Actor, command: Command) -> Result<Stored, Failure> {
        within_deadline(async |deadline| match self.place(actor, &command, deadline).await? {
            Placed::Judged(stored) => Ok(stored),
            Placed::Stored(seq) => {
                self.verdict(seq, Key { chat: command.chat, actor: actor.user, uuid: command.uuid }).await
            }
        })
        .await
    }

    /// The log's verdict on the event at `seq`, which holds the command with this key.
    async fn verdict(&self, seq: Seq, key: Key) -> Result<Stored, Failure> {
        let (answer, outcome) = oneshot::channel();
        self.hub.await_verdict(seq, key, Waiter::Caller { answer });
        outcome.await.unwrap_or_else(|_| Err(Failure::log_unavailable()))
    }

    /// Runs a session's command until the log has answered it. Then the session's next command to this chat may be
    /// published. The answer to the client goes into the session's outbox, now or when the verdict is known.
    pub async fn run_for(&self, session: &Arc<Session>, command: Command, deadline: Instant) {
        let actor = session.actor();
        let placed = tokio::time::timeout_at(deadline, self.place(&actor, &command, deadline)).await;
        let now_ms = self.hub.clock.now_ms();
        let rest = deadline.saturating_duration_since(Instant::now());
        let deadline_ms = now_ms + rest.as_millis() as u64;
        let Command { chat, uuid, .. } = command;
        let waiter = Waiter::Session { session: session.clone(), uuid, deadline_ms };
        match placed {
            Ok(Ok(Placed::Stored(seq))) => {
                self.hub.await_verdict(seq, Key { chat, actor: actor.user, uuid }, waiter);
            }
            Ok(Ok(Placed::Judged(stored))) => self.hub.answer(waiter, Ok(stored)),
            Ok(Err(failure)) => {
                if let Some(error) = &failure.source {
                    tracing::warn!(%error, chat = chat.get(), "a command could not be checked");
                }
                self.hub.answer(waiter, Err(failure));
            }
            Err(_) => self.hub.answer(waiter, Err(Failure::log_unavailable())),
        }
    }

    /// Checks a command and appends its event.
    async fn place(&self, actor: &Actor, command: &Command, deadline: Instant) -> Result<Placed, Failure> {
        if !self.hub.is_open() {
            return Err(Failure::temporary(Code::ServerUnavailable, 1_000, "the gateway is starting"));
        }
        if self.full.load(Ordering::Acquire) && !command.change.passes_full_log() {
            return Err(Failure::temporary(Code::LogFull, 30_000, "the log is full"));
        }
        match self.prepare(actor, command).await {
            Ok(event) => self.append(event, command, deadline).await,
            Err(refusal) => Box::pin(self.refuse(actor, command, refusal)).await,
        }
    }

    /// Whether appends wait for the log's answer.
    pub fn appends_in_flight(&self) -> bool {
        self.appender.stats().in_flight.load(Ordering::Relaxed) > 0
    }

    /// Whether the log has a verdict on every append that has waited for long enough to have one.
    pub fn is_answered(&self) -> bool {
        !self.appender.stats().is_overdue()
    }

    /// Appends an event of no chat if the log owes a verdict, so that its answer shows when it takes writes again.
    pub async fn prove_append(&self) {
        if self.appender.stats().is_overdue() {
            let deadline = Instant::now() + PROOF_PATIENCE;
            // An answer of any kind is counted where it arrives.
            drop(self.appender.append_noop(Partition::FIRST, deadline).await);
        }
    }

    /// A uuid for a command that the gateway itself makes. It names the log's time, never the gateway's: one that was made
    /// by a wrong clock would mark the user.
    pub fn new_uuid(&self) -> Uuid {
        self.freshness.new_uuid()
    }

    /// Takes in what the log's leader said when it was asked at `asked_ms` of the hub's clock: where the log ends, how
    /// full it is, and what its time is.
    pub fn note_log(&self, bounds: &Bounds, asked_ms: u64) {
        self.hub.expect(bounds.last);
        self.set_full(bounds.is_nearly_full());
        self.hub.metrics.log_fill.set(bounds.fill().unwrap_or_default());
        self.freshness.read(bounds, asked_ms);
    }

    /// Whether the log is above its guard, and takes only what frees people and takes content back.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Append attempts after the first, since the start.
    pub fn append_retries(&self) -> i64 {
        self.appender.stats().retries.load(Ordering::Relaxed) as i64
    }

    /// Waits until this gateway's tail has passed every event that was acked before now.
    ///
    /// # Errors
    /// `log.unavailable`, temporary.
    pub async fn catch_barrier(&self) -> Result<(), Failure> {
        let last = self.barrier.last_seq().await.map_err(|_| Failure::log_unavailable())?;
        tokio::time::timeout(BARRIER_PATIENCE, self.hub.passed(last))
            .await
            .map_err(|_| Failure::log_unavailable())
    }
}

/// Runs a command within the deadline. One without an outcome by then is answered with a temporary error.
async fn within_deadline(
    run: impl AsyncFnOnce(Instant) -> Result<Stored, Failure>,
) -> Result<Stored, Failure> {
    let deadline = Instant::now() + COMMAND_DEADLINE;
    tokio::time::timeout_at(deadline, run(deadline)).await.unwrap_or_else(|_| Err(Failure::log_unavailable()))
}

fn new_event(actor: &Actor, uuid: Uuid, fact: Fact) -> Event {
    Event { actor: actor.user, device: actor.device.clone(), uuid, fact, unique_as_of: None }
}

/// How long an append that is only to be answered may take.
const PROOF_PATIENCE: Duration = Duration::from_secs(2);
/// How long this gateway's tail may take to pass a barrier.
const BARRIER_PATIENCE: Duration = Duration::from_secs(2);
