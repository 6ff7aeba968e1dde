//! The cuts of the log: which cursors are void.

use parking_lot::RwLock;
use shared::{cursor::Cursor, id::Position};

/// The cuts known to this gateway, ascending by epoch. There are as many as the log had disasters.
#[derive(Debug, Default)]
pub struct Epochs(RwLock<Vec<(u32, Position)>>);

impl Epochs {
    pub fn new(cuts: Vec<(u32, Position)>) -> Self {
        Self(RwLock::new(cuts))
    }

    pub fn set(&self, cuts: Vec<(u32, Position)>) {
        *self.0.write() = cuts;
    }

    /// The cut that voids the cursor: the lowest one below it among those declared after it was sealed.
    pub fn cut_below(&self, cursor: Cursor) -> Option<Position> {
        let cuts = self.0.read();
        let later = cuts.iter().filter(|(epoch, _)| *epoch > cursor.epoch).map(|(_, cut)| *cut);
        later.filter(|cut| cut.seq < cursor.position.seq).min_by_key(|cut| cut.seq)
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
    fn a_cursor_is_void_above_a_later_cut() {
        let epochs = Epochs::new(vec![(1, at(100)), (2, at(50))]);
        let cursor = |epoch, seq| Cursor { epoch, position: at(seq) };
        assert_eq!(epochs.cut_below(cursor(0, 50)), None);
        assert_eq!(epochs.cut_below(cursor(0, 120)), Some(at(50)));
        assert_eq!(epochs.cut_below(cursor(1, 80)), Some(at(50)));
        assert_eq!(epochs.cut_below(cursor(2, 80)), None);
    }
}
