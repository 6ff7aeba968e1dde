//! The histories of the log: each time it loses its tail a new epoch begins, and cursors above the cut are void.
//!
//! Learns the cuts from the database. Invariant: the cuts known here only grow.

use std::sync::atomic::{AtomicU64, Ordering};

use shared::{
    cursor::Cursor,
    id::{Position, Seq},
};
use sql::epoch::Cut;
use tokio::sync::watch;

/// The cuts known to this gateway, oldest first, and where the log begins by now. There are as many cuts as the log had
/// disasters.
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

    /// Takes the cuts on record.
    ///
    /// # Errors
    /// The database is away.
    pub async fn learn(&self) -> Result<(), sql::Error> {
        self.set(self.db.cuts(sql::PARTITION).await?);
        Ok(())
    }

    /// Records the cut of the history `epoch`, unless another reader has, and takes the cuts on record.
    ///
    /// # Errors
    /// The database is away.
    pub async fn declare(&self, epoch: u32, cut: Position, now_ms: u64) -> Result<(), sql::Error> {
        self.db.declare_cut(sql::PARTITION, epoch, cut, now_ms).await?;
        self.learn().await
    }

    /// The lowest cursor that misses nothing: just before the oldest event that is kept.
    pub fn oldest(&self) -> Seq {
        Seq(self.first.load(Ordering::Acquire).saturating_sub(1))
    }

    /// The log now begins at `first`.
    pub fn set_first(&self, first: Seq) {
        self.first.store(first.get(), Ordering::Release);
    }

    /// Takes the cuts on record, unless more are known: several tasks ask, and the answers may overtake each other.
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

    /// Up to where the present history has what a cursor covers: the cursor's position, or the lowest later cut if that
    /// is below it.
    pub fn kept_of(&self, cursor: Cursor) -> Position {
        let cut = self.lowest_after(cursor.epoch).filter(|cut| cut.seq < cursor.position.seq);
        cut.unwrap_or(cursor.position)
    }

    /// The lowest of the cuts declared after this epoch: what remains of its history.
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
}
