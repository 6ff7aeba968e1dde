//! The epochs of the log, as far as this gateway knows.
//!
//! Each time the log loses its newest entries a new epoch begins at the cut, and cursors above the cut are void. The
//! cuts are on record in Postgres; this is the gateway's copy, which is learned anew every few seconds and after
//! every signal of a cut. Invariant: the copy only grows.

use std::sync::atomic::{AtomicU64, Ordering};

use shared::{
    cursor::Cursor,
    id::{Position, Seq},
};
use sql::epoch::Cut;
use tokio::sync::watch;

/// The known cuts, oldest first, and where the log begins. The list is short: one cut for each time that the log lost
/// entries.
pub struct Epochs {
    db: sql::Db,
    cuts: watch::Sender<Vec<Cut>>,
    /// The oldest sequence that the log still keeps.
    first: AtomicU64,
}

impl Epochs {
    pub fn new(db: sql::Db) -> Self {
        Self { db, cuts: watch::Sender::new(Vec::new()), first: AtomicU64::new(0) }
    }

    /// Reads the cuts on record.
    ///
    /// # Errors
    /// The database is away.
    pub async fn learn(&self) -> Result<(), sql::Error> {
        self.set(self.db.cuts(sql::PARTITION).await?);
        Ok(())
    }

    /// Ends the epoch `epoch` by a cut on record, unless another reader of the log has ended it already. Then reads
    /// the cuts on record.
    ///
    /// # Errors
    /// The database is away.
    pub async fn declare(&self, epoch: u32, cut: Position, now_ms: u64) -> Result<(), sql::Error> {
        self.db.declare_cut(sql::PARTITION, epoch, cut, now_ms).await?;
        self.learn().await
    }

    /// The lowest sequence of a cursor that can still be resumed: just before the oldest event that is kept.
    pub fn oldest(&self) -> Seq {
        Seq(self.first.load(Ordering::Acquire).saturating_sub(1))
    }

    /// The log now begins at `first`.
    pub fn set_first(&self, first: Seq) {
        self.first.store(first.get(), Ordering::Release);
    }

    /// Takes these cuts, unless more are known. Several tasks ask the database, and an older answer may come later.
    pub fn set(&self, cuts: Vec<Cut>) {
        self.cuts.send_if_modified(|known| {
            let news = cuts.len() >= known.len() && cuts != *known;
            if news {
                *known = cuts;
            }
            news
        });
    }

    /// Changes whenever a new cut is known.
    pub fn subscribe(&self) -> watch::Receiver<Vec<Cut>> {
        self.cuts.subscribe()
    }

    /// The current epoch.
    pub fn current(&self) -> u32 {
        self.cuts.borrow().last().map_or(0, |cut| cut.epoch)
    }

    /// Up to where the present history agrees with a cursor's: the cursor's position, or the lowest later cut if that
    /// is below it.
    pub fn kept_of(&self, cursor: Cursor) -> Position {
        let cut = self.lowest_after(cursor.epoch).filter(|cut| cut.seq < cursor.position.seq);
        cut.unwrap_or(cursor.position)
    }

    /// The lowest of the cuts that were declared after this epoch: up to there its history is still that of the log.
    pub fn lowest_after(&self, epoch: u32) -> Option<Position> {
        let cuts = self.cuts.borrow();
        let later = cuts.iter().filter(|cut| cut.epoch > epoch).map(|cut| cut.position);
        later.min_by_key(|position| position.seq)
    }
}

#[cfg(test)]
mod tests {
    use shared::id::EventId;

    use super::*;
    use crate::feed::stage::World;

    fn at(seq: u64) -> Position {
        Position { seq: Seq(seq), id: EventId(seq) }
    }

    /// A database that is never asked.
    fn nowhere() -> sql::Db {
        let settings = sql::SqlSettings {
            postgres_url: "postgres://nobody@127.0.0.1:1/none".into(),
            postgres_pool: 1,
            postgres_timeout_ms: 1,
        };
        sql::Db::new(&settings, "test").unwrap()
    }

    #[test]
    fn a_cursor_is_worth_nothing_above_a_later_cut() {
        let epochs = Epochs::new(nowhere());
        epochs.set(vec![
            Cut { epoch: 1, position: at(100), found_ms: 0 },
            Cut { epoch: 2, position: at(50), found_ms: 0 },
        ]);
        let cursor = |epoch, seq| Cursor { epoch, position: at(seq) };
        assert_eq!(epochs.kept_of(cursor(0, 40)), at(40));
        assert_eq!(epochs.kept_of(cursor(0, 80)), at(50), "the lowest cut counts");
        assert_eq!(epochs.kept_of(cursor(1, 80)), at(50));
        assert_eq!(epochs.kept_of(cursor(2, 80)), at(80));
        assert_eq!(epochs.lowest_after(0), Some(at(50)));
        assert_eq!(epochs.lowest_after(2), None);
        assert_eq!(epochs.current(), 2);
        epochs.set(vec![]);
        assert_eq!(epochs.current(), 2, "an answer that was overtaken");
    }

    #[tokio::test]
    async fn a_cut_is_declared_once_whoever_finds_it_first() {
        let world = World::new("declared", 1 << 20).await;
        let other = Epochs::new(world.db.clone());
        assert_eq!(world.epochs.current(), 0);
        world.epochs.declare(0, at(100), 1).await.unwrap();
        other.declare(0, at(90), 2).await.unwrap();
        for epochs in [&world.epochs, &other] {
            epochs.learn().await.unwrap();
            assert_eq!(
                (epochs.current(), epochs.lowest_after(0)),
                (1, Some(at(100))),
                "the first one counts"
            );
        }
        other.declare(1, at(50), 3).await.unwrap();
        assert_eq!(world.epochs.current(), 1, "not learned yet");
        world.epochs.learn().await.unwrap();
        assert_eq!((world.epochs.current(), world.epochs.lowest_after(0)), (2, Some(at(50))));
    }

    #[tokio::test]
    async fn whoever_waits_for_cuts_is_told_of_new_ones_alone() {
        let world = World::new("told", 1 << 20).await;
        let mut cuts = world.epochs.subscribe();
        world.epochs.learn().await.unwrap();
        assert!(!cuts.has_changed().unwrap());
        world.epochs.declare(0, at(100), 1).await.unwrap();
        assert!(cuts.has_changed().unwrap());
        cuts.mark_unchanged();
        world.epochs.learn().await.unwrap();
        assert!(!cuts.has_changed().unwrap());
    }

    #[test]
    fn the_oldest_cursor_is_just_before_the_oldest_event_that_is_kept() {
        let epochs = Epochs::new(nowhere());
        assert_eq!(epochs.oldest(), Seq::ZERO);
        for (first, oldest) in [(0, 0), (1, 0), (2, 1), (100, 99)] {
            epochs.set_first(Seq(first));
            assert_eq!(epochs.oldest(), Seq(oldest));
        }
    }
}
