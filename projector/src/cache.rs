//! The chats that the projector keeps in memory between batches, bounded by the members that they hold.
//!
//! Two generations: a chat that is used moves to the young one. When that is full, the old one is dropped and the young
//! one takes its place. So chats that were used lately stay, and forgetting costs nothing per chat.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use shared::{
    fold::ChatState,
    id::{ChatId, Seq},
};
use sql::projection::StoredChat;

/// A chat as of the last event folded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chat {
    pub state: Option<ChatState>,
    pub head: Seq,
    pub message_seq: Seq,
    pub n: u32,
    /// Some command was refused: a later copy of it must be looked for.
    pub has_refused: bool,
}

impl From<StoredChat> for Chat {
    fn from(stored: StoredChat) -> Self {
        let StoredChat { chat: _, state, head, message_seq, n, has_refused } = stored;
        Self { state, head, message_seq, n, has_refused }
    }
}

type Generation = HashMap<ChatId, Chat, RandomState>;

/// The chats in memory, in two generations.
#[derive(Debug)]
pub struct Cache {
    young: Generation,
    old: Generation,
    /// The weight of the young generation. A chat is weighed when it enters.
    weight: usize,
    capacity: usize,
}

/// The weight of a chat besides its members, in members: a map entry and the chat itself.
const OVERHEAD: usize = 16;

impl Cache {
    /// Each generation holds chats with `capacity / 2` members.
    pub fn new(capacity: usize) -> Self {
        Self { young: Generation::default(), old: Generation::default(), weight: 0, capacity }
    }

    /// The chat, if it is here.
    pub fn get_mut(&mut self, id: ChatId) -> Option<&mut Chat> {
        if let Some(chat) = self.old.remove(&id) {
            self.insert(id, chat);
        }
        self.young.get_mut(&id)
    }

    /// Whether the chat is here.
    pub fn contains(&self, id: ChatId) -> bool {
        self.young.contains_key(&id) || self.old.contains_key(&id)
    }

    /// Takes a chat in.
    pub fn insert(&mut self, id: ChatId, chat: Chat) {
        self.weight += OVERHEAD + chat.state.as_ref().map_or(0, |state| state.members.len());
        self.young.insert(id, chat);
    }

    /// Forgets chats that were not used lately, if there are too many. To be called between batches only: a batch relies
    /// on its chats.
    pub fn trim(&mut self) {
        if self.weight > self.capacity / 2 {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
    }

    /// Forgets everything, as after a fold that was not written: memory is ahead of the database.
    pub fn clear(&mut self) {
        *self = Self::new(self.capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let id = |id| ChatId::new(id).unwrap();
        let mut cache = Cache::new(20 * OVERHEAD);
        for number in 1..1_000 {
            cache.insert(id(number), Chat::default());
            assert!(cache.get_mut(id(1)).is_some(), "used all the time, still here at {number}");
            cache.trim();
        }
        assert!(!cache.contains(id(2)));
        assert!(cache.young.len() + cache.old.len() <= 22, "{} {}", cache.young.len(), cache.old.len());
        cache.clear();
        assert!(!cache.contains(id(1)));
    }
}
