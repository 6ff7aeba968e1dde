//! Catch-up: a session that is behind is fed older events, at the pace at which its client reads, until it is live.
//!
//! There are three sources. Events in the ring come from there. Older ones come from the projection, as far as its
//! checkpoint. Events that are older than the ring and newer than the checkpoint come from the log itself
//! (`lagging`). A task exists only while a session catches up. Never sends a session an event twice, and never goes
//! past one that the session should have. Invariant: `Session::fed` says up to where the session has been queued
//! every event, and each source continues there.

pub mod lagging;

use std::{sync::Arc, time::Duration};

use shared::id::{Seq, UserId};
use sql::{Checkpoint, replay::Replay};
use streams::Nats;
use tokio_util::task::TaskTracker;

use self::lagging::Lagging;
use super::loader::Loader;
use crate::{
    command::Failure,
    hub::{
        Hub,
        attach::{Reattached, Step},
        projected::Rows,
    },
    presence::Presence,
    session::{Session, close::Close, outbox::LOW_WATER_BYTES},
};

/// How long to wait before a source that failed is asked again.
const RETRY: Duration = Duration::from_millis(300);
/// The upper bound of a replay: none, so it goes as far as the projection does.
const LAST: Seq = Seq(i64::MAX as u64);
/// The most events, and the most bytes, of one read of the projection. An outbox has room for them.
const PAGE_EVENTS: usize = 256;
const PAGE_BYTES: usize = 64 * 1024;

/// Feeds the sessions that are behind, each by a task of its own.
pub struct CatchUps {
    hub: Arc<Hub>,
    db: sql::Db,
    loader: Loader,
    presence: Arc<Presence>,
    tracker: TaskTracker,
    lagging: Lagging,
}

impl CatchUps {
    pub fn new(
        hub: Arc<Hub>,
        (db, nats): (sql::Db, Nats),
        loader: Loader,
        presence: Arc<Presence>,
        tracker: TaskTracker,
    ) -> Self {
        let lagging = Lagging::new(hub.clone(), db.clone(), nats);
        Self { hub, db, loader, presence, tracker, lagging }
    }

    /// Starts the catch-up of a session whose lane is [`Lane::CatchUp`](crate::session::Lane). If an earlier one
    /// still runs for this session, it ends.
    pub fn spawn(self: &Arc<Self>, session: &Arc<Session>) {
        let (all, session) = (self.clone(), session.clone());
        self.tracker.spawn(async move { all.run(&session).await });
    }

    /// Loads a session's user anew and attaches the session again, after the hub forgot all users. `epoch` is the hub's
    /// epoch after that.
    pub fn reattach(self: &Arc<Self>, session: &Arc<Session>, epoch: u32) {
        let (all, session) = (self.clone(), session.clone());
        self.tracker.spawn(async move {
            if attach_again(&all.hub, &*all, &session, epoch).await {
                all.run(&session).await;
            }
        });
    }

    async fn run(&self, session: &Arc<Session>) {
        if feed(&self.hub, self, session).await {
            self.presence.live(session);
        }
    }
}

/// The sources of a catch-up beside the hub: the loader, the projection and the log.
pub(super) trait Past: Send + Sync {
    /// Loads a user's memberships and chats into the hub.
    fn load(&self, user: UserId) -> impl Future<Output = Result<(), Failure>> + Send;

    /// A page of the user's events after `after` from the projection, and the projection's checkpoint.
    fn replay(
        &self,
        user: UserId,
        after: Seq,
    ) -> impl Future<Output = Result<(Checkpoint, Replay), Failure>> + Send;

    /// Feeds the session what the log holds between the projection's checkpoint and the ring.
    fn read_log(&self, session: &Arc<Session>) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl Past for CatchUps {
    async fn load(&self, user: UserId) -> Result<(), Failure> {
        self.loader.user(user).await
    }

    async fn replay(&self, user: UserId, after: Seq) -> Result<(Checkpoint, Replay), Failure> {
        Ok(self.db.replay(user, after, LAST, PAGE_EVENTS, PAGE_BYTES).await?)
    }

    async fn read_log(&self, session: &Arc<Session>) -> Result<(), Failure> {
        self.lagging.read(session).await
    }
}

/// Attaches a session again after the hub forgot all users. `epoch` is the hub's epoch after that. `false`: the session
/// closes or has ended.
pub(super) async fn attach_again(hub: &Hub, past: &impl Past, session: &Arc<Session>, epoch: u32) -> bool {
    while session.closing().is_none() && !session.is_ended() {
        if past.load(session.user()).await.is_ok() {
            match hub.reattach(session, epoch) {
                Reattached::Unknown => tokio::time::sleep(RETRY).await,
                // Yet another cut was declared meanwhile. The device comes back with its cursor, and is told then which
                // of its chats lost events.
                Reattached::Cut => session.close(Close::Internal, hub.clock.now_ms()),
                Reattached::CatchUp => return true,
                Reattached::Ended => return false,
            }
        } else {
            tokio::time::sleep(RETRY).await;
        }
    }
    false
}

/// Feeds the session until it is live. `false`: it has ended, or another catch-up feeds it.
pub(super) async fn feed(hub: &Hub, past: &impl Past, session: &Arc<Session>) -> bool {
    let turn = session.next_catch_up();
    loop {
        session.drained_in(turn, LOW_WATER_BYTES).await;
        if session.closing().is_some() || session.is_ended() || !session.is_catch_up(turn) {
            return false;
        }
        match hub.advance(session) {
            Step::Gone => return false,
            Step::Live => return true,
            Step::More => tokio::task::yield_now().await,
            Step::Held => hub.installed().await,
            Step::Ahead => {
                // A cut may put the session back meanwhile, so the tail may never come so far.
                drop(tokio::time::timeout(RETRY, hub.passed(session.fed())).await);
            }
            Step::BelowRing => {
                if let Err(failure) = below_ring(hub, past, session).await {
                    tracing::warn!(%failure, source = failure.source.as_deref().map(tracing::field::display), "a catch-up waits");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// Feeds one page from the projection. If the projection has nothing beyond the session's position, the log itself is
/// read up to the ring.
async fn below_ring(hub: &Hub, past: &impl Past, session: &Arc<Session>) -> Result<(), Failure> {
    let (after, epoch) = (session.fed(), hub.epoch());
    let (checkpoint, replay) = past.replay(session.user(), after).await?;
    if checkpoint.epoch > epoch {
        // The log has lost its tail. These rows may be of the new history, which this gateway has yet to enter.
        return Err(Failure::projection_behind());
    }
    if replay.upto <= after {
        return past.read_log(session).await;
    }
    let (upto, events, checkpoint) = (replay.upto, replay.events, checkpoint.position.seq);
    hub.feed_rows(session, &Rows { epoch, after, upto, checkpoint, events });
    Ok(())
}

#[cfg(test)]
mod tests;
