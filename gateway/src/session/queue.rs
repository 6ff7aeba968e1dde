//! The commands of a session that wait for earlier ones to the same chat.
//!
//! Invariants: at most one command per chat is under way, so the log has them in the order in which they came;
//! different chats do not wait for each other; a session without commands holds no queue. Bounded by the commands in
//! flight ([`Session::begin_command`]).

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, hash_map::Entry};
use shared::id::ChatId;
use tokio::time::Instant;

use super::Session;
use crate::command::Command;

/// Each chat with a command under way, and the commands behind it.
#[derive(Debug, Default)]
pub(super) struct CommandQueues(HashMap<ChatId, VecDeque<Queued>, FixedState>);

/// A command and the time by which its client must be answered.
#[derive(Debug)]
pub struct Queued {
    pub command: Command,
    pub deadline: Instant,
}

impl Session {
    /// Takes a command in. It comes back if no other to its chat is under way: then it is to be run now, and
    /// [`Session::next_command`] asked afterwards.
    #[must_use]
    pub fn enqueue(&self, queued: Queued) -> Option<Queued> {
        match self.queues.lock().get_or_insert_default().0.entry(queued.command.chat) {
            Entry::Occupied(mut queue) => {
                queue.get_mut().push_back(queued);
                None
            }
            Entry::Vacant(queue) => {
                queue.insert(VecDeque::new());
                Some(queued)
            }
        }
    }

    /// The next command to a chat whose last one has ended. `None`: the chat's queue is gone.
    pub fn next_command(&self, chat: ChatId) -> Option<Queued> {
        let mut queues = self.queues.lock();
        let all = queues.as_mut()?;
        let next = all.0.get_mut(&chat)?.pop_front();
        if next.is_none() {
            all.0.remove(&chat);
            if all.0.is_empty() {
                *queues = None;
            }
        }
        next
    }
}
