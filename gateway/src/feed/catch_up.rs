//! Catch-up: a session that is behind reads the log at its own pace until it is live again.
//!
//! A task exists only while it lasts. What is in the ring comes from there; what is older comes from the
//! projection up to its checkpoint, and from the log itself where the projection lags behind the ring.

pub mod lagging;

use std::{sync::Arc, time::Duration};

use shared::id::Seq;
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

/// Before a source that failed is asked again.
const RETRY: Duration = Duration::from_millis(300);
/// No bound: as far as the projection goes.
const LAST: Seq = Seq(i64::MAX as u64);
/// Events in one read of the projection, and their bytes: what an outbox takes at a time.
const PAGE_EVENTS: usize = 256;
const PAGE_BYTES: usize = 64 * 1024;

/// Feeds the sessions that are behind. Each has a task here, until it is live.
pub struct CatchUps {
    hub: Arc<Hub>,
    db: sql::Db,
    loader: Loader,
    presence: Arc<Presence>,
    tracker: TaskTracker,
    /// How long a closed session may take to read the close.
    linger: Duration,
    lagging: Lagging,
}

impl CatchUps {
    pub fn new(
        hub: Arc<Hub>,
        (db, nats): (sql::Db, Nats),
        loader: Loader,
        presence: Arc<Presence>,
        tracker: TaskTracker,
        linger: Duration,
    ) -> Self {
        let lagging = Lagging::new(hub.clone(), db.clone(), nats);
        Self { hub, db, loader, presence, tracker, linger, lagging }
    }

    /// Starts the catch-up of a session whose lane is [`Lane::CatchUp`](crate::session::Lane); an earlier one ends.
    pub fn spawn(self: &Arc<Self>, session: &Arc<Session>) {
        let (all, session) = (self.clone(), session.clone());
        self.tracker.spawn(async move { all.run(&session).await });
    }

    /// Loads a session's user anew and attaches it again, after the hub forgot all users; `epoch` was the hub's then.
    pub fn reattach(self: &Arc<Self>, session: &Arc<Session>, epoch: u32) {
        let (all, session) = (self.clone(), session.clone());
        self.tracker.spawn(async move {
            while session.closing().is_none() && !session.is_ended() {
                if all.loader.user(session.user()).await.is_ok() {
                    match all.hub.reattach(&session, epoch) {
                        Reattached::CatchUp => return all.run(&session).await,
                        Reattached::Ended => return,
                        // Its device is told when it resumes.
                        Reattached::Cut => session.close(Close::Internal, all.hub.clock.now_ms()),
                        Reattached::Unknown => tokio::time::sleep(RETRY).await,
                    }
                } else {
                    tokio::time::sleep(RETRY).await;
                }
            }
            // The sweep goes through attached sessions only, so this one is ended here.
            tokio::time::sleep(all.linger).await;
            session.end();
        });
    }

    async fn run(&self, session: &Arc<Session>) {
        let turn = session.next_catch_up();
        loop {
            session.drained(LOW_WATER_BYTES).await;
            if session.closing().is_some() || session.is_ended() || !session.is_catch_up(turn) {
                return;
            }
            match self.hub.advance(session) {
                Step::Gone => return,
                Step::Live => return self.presence.live(session),
                Step::More => tokio::task::yield_now().await,
                Step::Held => self.hub.installed().await,
                Step::BelowRing => {
                    if let Err(failure) = self.below_ring(session).await {
                        tracing::warn!(%failure, source = failure.source.as_deref().map(tracing::field::display), "a catch-up waits");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }

    /// One page from the projection, or what the log has beyond it.
    async fn below_ring(&self, session: &Arc<Session>) -> Result<(), Failure> {
        let (after, epoch) = (session.fed(), self.hub.epoch());
        let (checkpoint, replay) =
            self.db.replay(session.user(), after, LAST, PAGE_EVENTS, PAGE_BYTES).await?;
        if replay.upto <= after {
            return self.lagging.read(session).await;
        }
        let (upto, events, checkpoint) = (replay.upto, replay.events, checkpoint.position.seq);
        self.hub.feed_rows(session, &Rows { epoch, after, upto, checkpoint, events });
        Ok(())
    }
}
