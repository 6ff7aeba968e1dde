//! `Delivered`: from a device's cursor to a mark in each chat that had something new for it.

use std::collections::HashMap;

use parking_lot::Mutex;
use shared::id::Seq;
use streams::marks::Mark;
use uuid::Uuid;

use super::Presence;
use crate::session::Session;

/// Ring entries looked at for one `Delivered`: some 100 µs.
const MAX_STEPS: usize = 2_048;

/// How far each session that sends `Delivered` has come.
#[derive(Default)]
pub(super) struct DeliveredUpTo(Mutex<HashMap<Uuid, Seq>>);

impl DeliveredUpTo {
    /// Moves a session forward; where it was before, zero for the first time.
    fn advance(&self, session: Uuid, to: Seq) -> Seq {
        let mut all = self.0.lock();
        let at = all.entry(session).or_default();
        let before = *at;
        *at = to.max(before);
        before
    }

    pub(super) fn forget(&self, session: Uuid) {
        self.0.lock().remove(&session);
    }
}

impl Presence {
    /// Everything up to `upto` has arrived on the session's device.
    pub fn delivered(&self, session: &Session, upto: Seq) {
        let after = self.delivered.advance(session.id, upto);
        let user = session.user();
        let heads = self.hub.heads_between(user, after, upto, MAX_STEPS);
        for (chat, seq) in heads {
            self.mark(Mark { user, chat, read: None, delivered: Some(seq) });
        }
    }
}
