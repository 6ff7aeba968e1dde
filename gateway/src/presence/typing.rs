//! How often "is typing" leaves the gateway.

use std::collections::HashMap;

use parking_lot::Mutex;
use shared::id::{ChatId, UserId};

/// At most one per chat and user in this time.
const EVERY_MS: u64 = 3_000;
/// Who typed where lately: some 3 MB. Beyond it nobody else is announced.
const MAX_ENTRIES: usize = 65_536;

#[derive(Default)]
pub(super) struct TypingGate(Mutex<HashMap<(ChatId, UserId), u64>>);

impl TypingGate {
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
