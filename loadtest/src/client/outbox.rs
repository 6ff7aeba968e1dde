//! The sends of a device that have no final answer yet.
//!
//! Owns their order and their retries. After a reconnect all of them go out again in their first order; after a
//! temporary error the refused one goes out again when its pause is over. A send always keeps its uuid.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use uuid::Uuid;

/// A send without a final answer.
#[derive(Debug)]
pub struct Pending {
    pub chat: u64,
    pub uuid: Uuid,
    /// The frame's text.
    pub text: String,
    /// When the scenario meant to send it.
    pub intended_ns: u64,
    /// The number of times that it was sent.
    pub attempts: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Waiting,
    /// Refused for now; ready again at that time.
    Later(Instant),
}

/// The unanswered sends, in the order of their first attempt.
#[derive(Debug, Default)]
pub struct Outbox {
    entries: VecDeque<Pending>,
}

/// The least pause before a temporary refusal is tried again.
const LEAST_RETRY: Duration = Duration::from_millis(100);

impl Outbox {
    pub fn push(&mut self, chat: u64, uuid: Uuid, text: String, intended_ns: u64) {
        let state = State::Ready;
        self.entries.push_back(Pending { chat, uuid, text, intended_ns, attempts: 0, state });
    }

    /// Everything without a final answer goes out again.
    pub fn restart(&mut self) {
        for entry in &mut self.entries {
            entry.state = State::Ready;
        }
    }

    /// The next entry to send; it counts as sent.
    pub fn next_ready(&mut self, now: Instant) -> Option<&Pending> {
        let entry = self.entries.iter_mut().find(|entry| match entry.state {
            State::Ready => true,
            State::Later(at) => at <= now,
            State::Waiting => false,
        })?;
        entry.state = State::Waiting;
        entry.attempts += 1;
        Some(entry)
    }

    /// When the next refused entry is due.
    pub fn due(&self) -> Option<Instant> {
        self.entries
            .iter()
            .filter_map(|entry| match entry.state {
                State::Later(at) => Some(at),
                State::Ready | State::Waiting => None,
            })
            .min()
    }

    /// Takes an entry out that got its final answer.
    pub fn settle(&mut self, uuid: Uuid) -> Option<Pending> {
        let at = self.entries.iter().position(|entry| entry.uuid == uuid)?;
        self.entries.remove(at)
    }

    /// Tries an entry again later. `false`: it is not here.
    pub fn postpone(&mut self, uuid: Uuid, after: Duration) -> bool {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.uuid == uuid) else { return false };
        entry.state = State::Later(Instant::now() + after.max(LEAST_RETRY));
        true
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(outbox: &mut Outbox, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| outbox.next_ready(now).map(|entry| entry.chat)).collect()
    }

    #[test]
    fn a_restart_sends_what_is_unanswered_in_its_first_order() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        let uuids: Vec<Uuid> = (1..=4)
            .map(|chat| {
                let uuid = Uuid::now_v7();
                outbox.push(chat, uuid, String::new(), 0);
                uuid
            })
            .collect();
        assert_eq!(sent(&mut outbox, now), [1, 2, 3, 4]);
        assert!(sent(&mut outbox, now).is_empty());
        assert!(outbox.settle(uuids[1]).is_some());
        assert!(outbox.postpone(uuids[2], Duration::ZERO));
        assert!(sent(&mut outbox, now).is_empty());
        assert_eq!(sent(&mut outbox, now + LEAST_RETRY + Duration::from_secs(1)), [3]);
        outbox.restart();
        assert_eq!(sent(&mut outbox, now), [1, 3, 4]);
    }
}
