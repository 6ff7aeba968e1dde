//! The cuts of the log: in which of its histories we are, and which cursors are void.

use shared::{cursor::Cursor, id::Position};
use sql::epoch::Cut;
use tokio::sync::watch;

/// The cuts known to this gateway, oldest first. There are as many as the log had disasters.
#[derive(Debug)]
pub struct Epochs(watch::Sender<Vec<Cut>>);

impl Default for Epochs {
    fn default() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }
}

impl Epochs {
    /// Takes the cuts on record, unless more are known: several tasks ask, and the answers may overtake each other.
    pub fn set(&self, cuts: Vec<Cut>) {
        self.0.send_if_modified(|known| {
            let news = cuts.len() >= known.len() && cuts != *known;
            if news {
                *known = cuts;
            }
            news
        });
    }

    /// For whoever must act on a new cut.
    pub fn subscribe(&self) -> watch::Receiver<Vec<Cut>> {
        self.0.subscribe()
    }

    /// The current epoch.
    pub fn current(&self) -> u32 {
        self.0.borrow().last().map_or(0, |cut| cut.epoch)
    }

    /// The place up to which the present history has what a cursor covers: its own, or that of a lower cut which was
    /// declared after it was sealed.
    pub fn kept_of(&self, cursor: Cursor) -> Position {
        let cut = self.lowest_after(cursor.epoch).filter(|cut| cut.seq < cursor.position.seq);
        cut.unwrap_or(cursor.position)
    }

    /// The lowest of the cuts declared after this epoch: what remains of its history.
    pub fn lowest_after(&self, epoch: u32) -> Option<Position> {
        let cuts = self.0.borrow();
        let later = cuts.iter().filter(|cut| cut.epoch > epoch).map(|cut| cut.position);
        later.min_by_key(|position| position.seq)
    }
}

#[cfg(test)]
mod tests {
    use shared::id::{EventId, Seq};

    use super::*;

    fn at(seq: u64) -> Position {
        Position { seq: Seq(seq), id: EventId(seq) }
    }

    #[test]
    fn a_cursor_is_worth_nothing_above_a_later_cut() {
        let epochs = Epochs::default();
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
