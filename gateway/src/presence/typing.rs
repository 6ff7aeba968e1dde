//! Limits how often the gateway signals that a user types.

use std::collections::HashMap;

use parking_lot::Mutex;
use shared::id::{ChatId, UserId};

/// A user is announced in a chat at most once in this time.
const EVERY_MS: u64 = 3_000;
/// Users and chats that are remembered: some 3 MB. While there are as many, no other user is announced.
const MAX_ENTRIES: usize = 65_536;

/// When each user was last announced in each chat, in milliseconds of the clock.
#[derive(Default)]
pub(super) struct TypingGate(Mutex<HashMap<(ChatId, UserId), u64>>);

impl TypingGate {
    /// Whether the user may be announced in the chat now.
    pub(super) fn admits(&self, chat: ChatId, user: UserId, now_ms: u64) -> bool {
        let mut last = self.0.lock();
        let recent = |at_ms: u64| at_ms + EVERY_MS > now_ms;
        if last.get(&(chat, user)).copied().is_some_and(recent) {
            return false;
        }
        if last.len() >= MAX_ENTRIES {
            last.retain(|_, at_ms| recent(*at_ms));
        }
        let room = last.len() < MAX_ENTRIES;
        if room {
            last.insert((chat, user), now_ms);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_three_seconds_per_chat_and_user() {
        let gate = TypingGate::default();
        let (chat, user) = (|id| ChatId::new(id).unwrap(), |id| UserId::new(id).unwrap());
        assert!(gate.admits(chat(1), user(1), 0));
        assert!(!gate.admits(chat(1), user(1), 2_999));
        assert!(gate.admits(chat(2), user(1), 2_999));
        assert!(gate.admits(chat(1), user(2), 2_999));
        assert!(gate.admits(chat(1), user(1), 3_000));
    }

    #[test]
    fn memory_is_bounded() {
        let gate = TypingGate::default();
        let user = UserId::new(1).unwrap();
        for id in 1..=MAX_ENTRIES as u64 {
            assert!(gate.admits(ChatId::new(id).unwrap(), user, 0));
        }
        let another = ChatId::new(MAX_ENTRIES as u64 + 1).unwrap();
        assert!(!gate.admits(another, user, 10));
        assert!(gate.admits(another, user, 3_001), "old ones make room");
    }
}
