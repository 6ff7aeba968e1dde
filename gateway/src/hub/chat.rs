//! A chat as the hub holds it: the state by which events are judged, the last valid event, and the local members.

use shared::{fold::ChatState, id::Seq};
use smallvec::SmallVec;

use super::UserSlot;

#[derive(Debug, Default)]
pub struct Chat {
    /// `None` before the chat's first event.
    pub state: Option<ChatState>,
    /// The chat's last valid event.
    pub head: Seq,
    /// The members whom the hub knows: they have sessions here, or had some lately. Four fit without an allocation.
    pub locals: SmallVec<[UserSlot; 4]>,
    /// When a command or a load last needed the chat. A chat without local members is forgotten a while after that.
    pub used_ms: u64,
    /// `false` while the state is being loaded. The chat's events are withheld until then.
    pub loaded: bool,
}

impl Chat {
    /// Adds a local member.
    pub fn link(&mut self, slot: UserSlot) {
        if !self.locals.contains(&slot) {
            self.locals.push(slot);
        }
    }

    /// Takes a local member out.
    pub fn unlink(&mut self, slot: UserSlot) {
        if let Some(at) = self.locals.iter().position(|local| *local == slot) {
            self.locals.swap_remove(at);
        }
    }
}
