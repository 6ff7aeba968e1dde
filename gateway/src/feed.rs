//! The gateway's reader of the log: the tail feeds the hub, for ever.
//!
//! One task owns the position. A log that lost its tail is cut here as everywhere: the cut is declared in
//! Postgres first, and nothing above it is served before that.

pub mod beginning;
pub mod catch_up;
pub mod epochs;
pub mod loader;
pub mod reads;
#[cfg(test)]
mod schedules;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use shared::id::{Position, Seq};
use streams::{Known, Nats, Partition, Tail, TailItem, TailSettings, Unavailable, tail::Recall};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{catch_up::CatchUps, epochs::Epochs, loader::Loader};
use crate::{hub::Hub, infra::clock::unix_ms, session::Session};

/// The gateway's memory of the log: its ring, and the projection behind it.
struct Memory {
    hub: Arc<Hub>,
    db: sql::Db,
}

impl Known for Memory {
    fn at_or_below(&self, seq: Seq) -> Recall<'_> {
        let here = self.hub.known_at_or_below(seq);
        Box::pin(async move {
            if here.is_some() {
                return Ok(here);
            }
            self.db.known_at_or_below(sql::PARTITION, seq).await.map_err(Unavailable::new)
        })
    }
}

/// Before a cut that could not be declared is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What the reader of the log needs.
pub struct Feed {
    pub hub: Arc<Hub>,
    pub db: sql::Db,
    pub nats: Nats,
    pub epochs: Arc<Epochs>,
    pub loader: Loader,
    pub catch_ups: Arc<CatchUps>,
    pub tracker: TaskTracker,
    pub cancel: CancellationToken,
}

impl Feed {
    /// Reads the log until the gateway ends.
    ///
    /// # Errors
    /// The log holds what this build cannot judge.
    pub async fn run(self) -> anyhow::Result<()> {
        let known = Arc::new(Memory { hub: self.hub.clone(), db: self.db.clone() });
        let mut tail =
            Tail::open(&self.nats, Partition::FIRST, self.hub.tip(), known, TailSettings::default());
        let mut cuts = self.epochs.subscribe();
        loop {
            let item = tokio::select! {
                () = self.cancel.cancelled() => return Ok(()),
                Ok(()) = cuts.changed() => {
                    self.follow_cuts(&mut tail);
                    continue;
                }
                item = tail.next() => item,
            };
            match item {
                TailItem::Batch(entries) => {
                    self.hub.apply(&entries)?;
                    self.follow_up();
                }
                TailItem::Quiet | TailItem::Attached { .. } => {}
                TailItem::LostTail { cut } => {
                    self.declare(cut.unwrap_or_default()).await;
                    self.follow_cuts(&mut tail);
                }
                TailItem::Expired { first } => {
                    // Retention overtook a gateway that was away: its devices' cursors are expired, too.
                    let position = Position { seq: Seq(first.get() - 1), ..Position::default() };
                    self.reattach(self.hub.skip_to(position));
                    tail.restart_from(position);
                }
            }
            tail.expect(self.hub.expected());
            let attaches = tail.stats().attaches.load(Ordering::Relaxed) as i64;
            self.hub.metrics.tail_recreations.set((attaches - 1).max(0));
            self.hub.metrics.tail_position.set(tail.position().seq.get() as i64);
        }
    }

    /// Enters the epoch on record: takes back what lies above its cut.
    fn follow_cuts(&self, tail: &mut Tail) {
        let current = self.epochs.current();
        let Some(cut) = self.epochs.lowest_after(self.hub.epoch()) else { return };
        self.hub.metrics.epoch_bumps.inc();
        self.hub.metrics.epoch.set(current.into());
        tracing::error!(
            epoch = current,
            cut = cut.seq.get(),
            "the log lost its tail; what is above the cut is void"
        );
        // Also if this gateway has not come so far: its devices may have been elsewhere before.
        self.reattach(self.hub.cut(cut, current));
        // What the tail has read ahead is of the former history.
        let at = if tail.position().seq > cut.seq { cut } else { tail.position() };
        tail.restart_from(at);
    }

    /// What applying left for those who hold no lock: catch-ups to start and chats to load.
    fn follow_up(&self) {
        let left = self.hub.take_follow_ups();
        for session in left.behind {
            self.catch_ups.spawn(&session);
        }
        for chat in left.wanted {
            let (loader, cancel) = (self.loader.clone(), self.cancel.clone());
            self.tracker.spawn(async move {
                while let Err(failure) = loader.chat(chat).await {
                    tracing::warn!(%failure, chat = chat.get(), "a chat's state is missing; its events wait");
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
            });
        }
    }

    /// Declares the cut in Postgres, or learns of the one that another reader declared.
    async fn declare(&self, cut: Position) {
        loop {
            let epoch = self.hub.epoch();
            match self.epochs.declare(epoch, cut, unix_ms()).await {
                Ok(()) if self.epochs.current() > epoch => return,
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(%error, "a cut can't be declared yet; nothing is served beyond it");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn reattach(&self, sessions: Vec<Arc<Session>>) {
        let epoch = self.hub.epoch();
        for session in sessions {
            self.catch_ups.reattach(&session, epoch);
        }
    }
}
