//! The gateway's side of presence, typing and receipts.
//!
//! It reports its sessions to the presence service (`report`), holds the sets of users that sessions watch (`watch`),
//! sends a session that became live the present state (`initial`, `missed_receipts`), and turns signals into frames for
//! sessions (`push`). It never decides who is online: the presence service does. Invariants: everything here is best
//! effort and bounded; an idle session that watches nobody costs nothing; no lock is held across an await.

mod batch_queue;
mod delivered;
mod initial;
mod marks;
mod missed_receipts;
mod push;
mod receipts;
mod report;
mod typing;
mod watch;

use std::{sync::Arc, time::Duration};

use shared::id::{ChatId, UserId};
use streams::{Nats, marks::Mark, signal::Signal};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::{
    batch_queue::BatchQueue,
    delivered::DeliveredUpTo,
    initial::{Audience, Request},
    marks::UnsentMarks,
    push::Recent,
    receipts::ReceiptWindows,
    report::Reporter,
    typing::TypingGate,
    watch::Watches,
};
use crate::{
    hub::Hub,
    infra::{clock::Clock, metrics::Metrics, redis::Redis},
    session::{Session, close::Close},
};

pub use self::watch::TooMany;

/// The most user ids in one `WatchPresence`.
pub const MAX_WATCHED: usize = 500;

/// Intervals of reports and windows.
#[derive(Debug, Clone, clap::Args)]
pub struct PresenceSettings {
    /// How often presence is told which sessions came and went.
    #[arg(long, env = "MT_PRESENCE_REPORT_MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..))]
    pub presence_report_ms: u64,
    /// How often presence is told of all sessions.
    #[arg(long, env = "MT_PRESENCE_SNAPSHOT_MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(100..))]
    pub presence_snapshot_ms: u64,
    /// A member gets at most one `Receipts` frame per chat in this time.
    #[arg(long, env = "MT_RECEIPTS_WINDOW_MS", default_value_t = 50)]
    pub receipts_window_ms: u64,
    /// How many of its liveliest chats a session that becomes live gets the receipts of.
    #[arg(long, env = "MT_RECAP_CHATS", default_value_t = 20)]
    pub recap_chats: usize,
}

/// What this gateway knows and sends of presence, typing and receipts.
pub struct Presence {
    hub: Arc<Hub>,
    db: sql::Db,
    nats: Nats,
    redis: Redis,
    clock: Clock,
    settings: PresenceSettings,
    metrics: Arc<Metrics>,
    reporter: Reporter,
    watches: Watches,
    initial: BatchQueue<Request>,
    missed_receipts: BatchQueue<Arc<Session>>,
    recent: Recent,
    receipts: ReceiptWindows,
    typing: TypingGate,
    marks: UnsentMarks,
    delivered: DeliveredUpTo,
}

impl Presence {
    pub fn new(hub: Arc<Hub>, db: sql::Db, nats: Nats, redis: Redis, settings: PresenceSettings) -> Self {
        let receipts = ReceiptWindows::new(settings.receipts_window_ms);
        Self {
            clock: hub.clock,
            metrics: hub.metrics.clone(),
            hub,
            db,
            nats,
            redis,
            settings,
            receipts,
            reporter: Reporter::default(),
            watches: Watches::default(),
            initial: BatchQueue::default(),
            missed_receipts: BatchQueue::default(),
            recent: Recent::default(),
            typing: TypingGate::default(),
            marks: UnsentMarks::default(),
            delivered: DeliveredUpTo::default(),
        }
    }

    /// Reports that a session has begun.
    pub fn connected(&self, session: &Arc<Session>) {
        if !was_refused(session) {
            self.reporter.came(session);
        }
    }

    /// Reports that a session has ended, and forgets what it watched.
    pub fn disconnected(&self, session: &Arc<Session>) {
        self.watches.forget(session.id);
        self.delivered.forget(session.id);
        if !was_refused(session) {
            self.reporter.went(session);
        }
    }

    /// Sends a session that has become live the state of the users it watches, and the marks in its liveliest chats.
    pub fn live(&self, session: &Arc<Session>) {
        self.initial.push((session.clone(), Audience::All));
        if self.settings.recap_chats > 0 {
            self.missed_receipts.push(session.clone());
        }
    }

    /// How much is held of sessions: nothing of one that has ended.
    pub fn entries(&self) -> usize {
        self.watches.len() + self.delivered.len() + self.reporter.away()
    }

    /// Notes whether the user looks at the client, as the client says.
    pub fn set_away(&self, session: &Arc<Session>, away: bool) {
        self.reporter.set_away(session, away);
    }

    /// Replaces the set of users that a session watches, and sends their state. Those of `users` who share no chat
    /// with the session's user are left out.
    ///
    /// # Errors
    /// [`TooMany`] if the sets of this gateway are full.
    pub fn watch(&self, session: &Arc<Session>, users: Vec<UserId>) -> Result<(), TooMany> {
        let known = self.hub.sharing_a_chat(session.user(), users);
        self.watches.replace(session, known)?;
        self.initial.push((session.clone(), Audience::Watched));
        Ok(())
    }

    /// Whether the session may still see a user whom it watches. The watch ends with the last chat that they share.
    fn still_sees(&self, session: &Session, user: UserId) -> bool {
        let Some(last) = self.watches.meeting(session.id, user) else { return false };
        // After the log was cut the hub forgets its users for a moment. That ends no watch.
        let Some(chat) = self.hub.meeting_place(session.user(), user, last) else { return false };
        if chat != Some(last) {
            self.watches.meet_again(session.id, user, chat);
        }
        chat.is_some()
    }

    /// Tells the other members of the chat that the user types, unless they were told a moment ago.
    pub fn typing(&self, chat: ChatId, user: UserId) {
        if self.typing.admits(chat, user, self.clock.now_ms()) {
            self.signal(&Signal::Typing(streams::signal::Typing { chat, user }));
        }
    }

    /// Publishes a mark, now or as soon as NATS takes it.
    pub fn mark(&self, mark: Mark) {
        if self.nats.publish_mark(&mark).is_err() {
            self.marks.keep(mark);
        }
    }

    fn signal(&self, signal: &Signal) -> bool {
        match self.nats.signal(signal) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, kind = ?signal.kind(), "a signal was dropped");
                false
            }
        }
    }
}

/// Whether the session was refused. Its upgrade succeeded only so that a close code could tell the client why, and it is
/// never reported.
fn was_refused(session: &Session) -> bool {
    let refusals = [Close::UnsupportedVersion.code(), Close::TooManySessions.code()];
    session.closing().is_some_and(|code| refusals.contains(&code))
}

/// Runs all tasks of presence until the gateway ends.
pub async fn run(presence: Arc<Presence>, cancel: CancellationToken) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = report_regularly(&presence) => {}
        () = presence.receive() => {}
        () = initial::serve(&presence) => {}
        () = missed_receipts::serve(&presence) => {}
    }
    // Sessions that left in the drain are reported now, so that presence does not have to miss them for seconds.
    presence.reporter.report(&presence);
}

async fn report_regularly(presence: &Presence) {
    let mut ticks = interval(Duration::from_millis(presence.settings.presence_report_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        presence.reporter.report(presence);
        if presence.reporter.snapshot_is_due(presence) {
            report::snapshot(presence).await;
        }
        for mark in presence.marks.take() {
            presence.mark(mark);
        }
        presence.recent.forget_old(presence.clock.now_ms());
    }
}
