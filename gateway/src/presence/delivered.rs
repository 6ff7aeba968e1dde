//! The command `Delivered`: turns a device's position in the log into a mark in each chat that had a new event for it.
//!
//! Invariant: a position that goes back changes nothing.

use std::collections::HashMap;

use parking_lot::Mutex;
use shared::id::Seq;
use streams::marks::Mark;
use uuid::Uuid;

use super::Presence;
use crate::session::Session;

/// Entries of the ring that one `Delivered` may look at: they take some 100 µs.
const MAX_STEPS: usize = 2_048;

/// The position of each session that sends `Delivered`.
#[derive(Default)]
pub(super) struct DeliveredUpTo(Mutex<HashMap<Uuid, Seq>>);

impl DeliveredUpTo {
    /// Moves a session forward, and returns its position before; zero at the first call.
    fn advance(&self, session: Uuid, to: Seq) -> Seq {
        let mut all = self.0.lock();
        let at = all.entry(session).or_default();
        let before = *at;
        *at = to.max(before);
        before
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn forget(&self, session: Uuid) {
        self.0.lock().remove(&session);
    }
}

impl Presence {
    /// Marks everything up to `upto` as arrived on the session's device.
    pub fn delivered(&self, session: &Session, upto: Seq) {
        let after = self.delivered.advance(session.id, upto);
        let user = session.user();
        let heads = self.hub.heads_between(user, after, upto, MAX_STEPS);
        for (chat, seq) in heads {
            self.mark(Mark { user, chat, read: None, delivered: Some(seq) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_only_moves_forward() {
        let (positions, session) = (DeliveredUpTo::default(), Uuid::now_v7());
        assert_eq!(positions.advance(session, Seq(5)), Seq(0));
        assert_eq!(positions.advance(session, Seq(9)), Seq(5));
        assert_eq!(positions.advance(session, Seq(7)), Seq(9), "a late frame does not move it back");
        assert_eq!(positions.advance(session, Seq(9)), Seq(9));
    }

    #[test]
    fn sessions_move_independently_and_are_forgotten() {
        let (positions, one, other) = (DeliveredUpTo::default(), Uuid::now_v7(), Uuid::now_v7());
        positions.advance(one, Seq(5));
        assert_eq!(positions.advance(other, Seq(3)), Seq(0));
        positions.forget(one);
        assert_eq!(positions.advance(one, Seq(5)), Seq(0));
        assert_eq!(positions.0.lock().len(), 2);
    }
}
