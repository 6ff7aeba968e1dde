//! From the log to the hub: one task reads the partition for ever and applies its entries.
//!
//! Beside it are the ways to what the hub does not hold: `beginning` finds where a new gateway starts to read,
//! `loader` loads users and chats, `catch_up` feeds sessions that are behind, `epochs` keeps the cuts on record,
//! `reads` makes reads of the projection fresh. Never answers a client itself.
//!
//! A cut is the place below which the log lost its newest entries, after a crash of the NATS server. What was above
//! it is void, and a new history, called an epoch, begins there. Invariants:
//! - only this task moves the hub's position;
//! - entries are applied in the log's order, each once;
//! - a cut is recorded in Postgres before the hub enters the epoch that begins there.

pub mod beginning;
pub mod catch_up;
pub mod epochs;
mod judge;
pub mod loader;
mod marks;
pub mod reads;
#[cfg(test)]
mod schedules;
#[cfg(test)]
pub(crate) mod stage;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use shared::id::{Position, Seq};
use streams::{Known, Nats, Partition, Tail, TailItem, TailSettings, Unavailable, tail::Recall};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{catch_up::CatchUps, epochs::Epochs, loader::Loader};
use crate::{hub::Hub, infra::clock::unix_ms, session::Session};

/// The identities of entries by which the tail tells whether the log still holds what it had read: from the ring, or
/// from the projection if they are older.
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

/// How long to wait before a failed attempt to declare a cut, or to load a chat, is repeated.
const RETRY: Duration = Duration::from_millis(500);

/// The reader of the log; see the head of this file.
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
    /// The log holds an event of a newer build, which this one cannot judge.
    pub async fn run(self) -> anyhow::Result<()> {
        let known = Arc::new(Memory { hub: self.hub.clone(), db: self.db.clone() });
        let mut tail =
            Tail::open(&self.nats, Partition::FIRST, self.hub.tip(), known, TailSettings::default());
        let mut cuts = self.epochs.subscribe();
        self.load_marks();
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
                    self.hub.prove();
                    self.follow_up();
                }
                // A consumer on a server that is cut off from the others sends heartbeats, too: they prove something only
                // while nothing else is known to be in the log.
                TailItem::Quiet if self.hub.expected() <= tail.position().seq => self.hub.prove(),
                TailItem::Quiet | TailItem::Attached { .. } => {}
                TailItem::LostTail { cut } => {
                    self.declare(cut.unwrap_or_default()).await;
                    self.follow_cuts(&mut tail);
                }
                TailItem::Expired { first } => {
                    // The gateway could not reach the log for so long that retention removed entries that it had not
                    // read. They are lost to its sessions; a device that resumes is told `cursor.expired`.
                    let position = Position { seq: Seq(first.get() - 1), ..Position::default() };
                    self.reattach(self.hub.skip_to(position));
                    self.load_marks();
                    tail.restart_from(position);
                }
            }
            tail.expect(self.hub.expected());
            let attaches = tail.stats().attaches.load(Ordering::Relaxed) as i64;
            self.hub.metrics.tail_recreations.set((attaches - 1).max(0));
            self.hub.metrics.tail_position.set(tail.position().seq.get() as i64);
        }
    }

    /// Enters the newest epoch on record, if the hub is in an earlier one: what lies above the cut is taken back.
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
        // Needed even if this gateway has read nothing above the cut: its sessions may hold events from another
        // gateway.
        self.reattach(self.hub.cut(cut, current));
        // The tail may have read ahead, and those entries are of the former history.
        let at = if tail.position().seq > cut.seq { cut } else { tail.position() };
        tail.restart_from(at);
    }

    /// Starts the catch-ups and the loads that applying entries has asked for. Under the hub's lock neither is
    /// possible.
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

    /// Loads the marks of what the hub does not read itself. Until they are here every command is looked up.
    fn load_marks(&self) {
        let (hub, db, nats) = (self.hub.clone(), self.db.clone(), self.nats.clone());
        let cancel = self.cancel.clone();
        self.tracker.spawn(async move {
            while let Err(failure) = marks::load(&hub, &db, &nats).await {
                tracing::warn!(%failure, "marks are missing; every command is looked up");
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        });
    }

    /// Declares the cut in Postgres, or learns of the one that another reader declared first. Tries until the
    /// database answers.
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

    /// Attaches sessions again after the hub forgot its users.
    fn reattach(&self, sessions: Vec<Arc<Session>>) {
        let epoch = self.hub.epoch();
        for session in sessions {
            self.catch_ups.reattach(&session, epoch);
        }
    }
}

#[cfg(test)]
mod tests;
