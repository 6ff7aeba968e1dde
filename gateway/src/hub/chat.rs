//! A chat as a gateway holds it: the state that decides validity, the head, and the local members.

use shared::{fold::ChatState, id::Seq};
use smallvec::SmallVec;

use super::UserSlot;

#[derive(Debug, Default)]
pub struct Chat {
    /// `None` before the chat's first event.
    pub state: Option<ChatState>,
    /// The chat's last valid event.
    pub head: Seq,
    /// The members that have or lately had sessions here; two fit without an allocation.
    pub locals: SmallVec<[UserSlot; 4]>,
    /// When somebody last needed the chat; one without local members is forgotten after a while.
    pub used_ms: u64,
    /// `false` while its state is on the way: its events are withheld.
    pub loaded: bool,
}

impl Chat {
    pub fn link(&mut self, slot: UserSlot) {
        if !self.locals.contains(&slot) {
            self.locals.push(slot);
        }
    }

    pub fn unlink(&mut self, slot: UserSlot) {
        if let Some(at) = self.locals.iter().position(|local| *local == slot) {
            self.locals.swap_remove(at);
        }
    }
}
