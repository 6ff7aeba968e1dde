//! The commands of a session that wait for earlier ones to the same chat, and its fetches that wait for earlier ones.
//!
//! Invariants:
//! - at most one command per chat is under way, so the log has them in the order in which the client sent them;
//! - commands to different chats do not wait for each other;
//! - at most one fetch is under way, so at most one page waits for a client that does not read;
//! - a session without commands holds no queue.
//!
//! The queues are bounded by the number of commands in flight ([`Session::begin_command`]).

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, hash_map::Entry};
use shared::{frame::Fetch, id::ChatId};
use tokio::time::Instant;

use super::Session;
use crate::command::Command;

#[derive(Debug, Default)]
pub(super) struct CommandQueues {
    /// Each chat with a command under way, and the commands behind it.
    chats: HashMap<ChatId, VecDeque<Queued>, FixedState>,
    /// The fetches behind the one that is under way; `None`: none is.
    fetches: Option<VecDeque<Fetch>>,
}

impl CommandQueues {
    fn is_idle(&self) -> bool {
        self.chats.is_empty() && self.fetches.is_none()
    }
}

/// A command and the time by which its client must be answered.
#[derive(Debug)]
pub struct Queued {
    pub command: Command,
    pub deadline: Instant,
}

impl Session {
    /// Queues a command behind those to its chat. If there are none, the command is returned: the caller runs it now,
    /// and then asks [`Session::next_command`] until there are no more.
    #[must_use]
    pub fn enqueue(&self, queued: Queued) -> Option<Queued> {
        match self.queues.lock().get_or_insert_default().chats.entry(queued.command.chat) {
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

    /// The next command to a chat, after the one under way has ended. `None`: there is none, and the chat is idle.
    pub fn next_command(&self, chat: ChatId) -> Option<Queued> {
        let mut queues = self.queues.lock();
        let all = queues.as_mut()?;
        let next = all.chats.get_mut(&chat)?.pop_front();
        if next.is_none() {
            all.chats.remove(&chat);
            if all.is_idle() {
                *queues = None;
            }
        }
        next
    }

    /// Queues a fetch behind the one under way. If there is none, the fetch is returned: the caller answers it now, and
    /// then asks [`Session::next_fetch`] until there are no more.
    #[must_use]
    pub fn enqueue_fetch(&self, fetch: Fetch) -> Option<Fetch> {
        let mut queues = self.queues.lock();
        match &mut queues.get_or_insert_default().fetches {
            Some(waiting) => {
                waiting.push_back(fetch);
                None
            }
            none => {
                *none = Some(VecDeque::new());
                Some(fetch)
            }
        }
    }

    /// The next fetch, after the one under way has ended. `None`: there is none, and none is under way any more.
    pub fn next_fetch(&self) -> Option<Fetch> {
        let mut queues = self.queues.lock();
        let all = queues.as_mut()?;
        let next = all.fetches.as_mut()?.pop_front();
        if next.is_none() {
            all.fetches = None;
            if all.is_idle() {
                *queues = None;
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use shared::id::Seq;
    use uuid::Uuid;

    use super::*;
    use crate::{
        command::Change,
        session::stage::{chat, session, settings},
    };

    fn command(chat_id: u64, seq: u64) -> Queued {
        let change = Change::Delete { seq: Seq(seq) };
        let command = Command { chat: chat(chat_id), uuid: Uuid::nil(), change };
        Queued { command, deadline: Instant::now() }
    }

    fn number(queued: &Queued) -> u64 {
        match &queued.command.change {
            Change::Delete { seq } => seq.get(),
            other => panic!("not of this test: {other:?}"),
        }
    }

    #[test]
    fn commands_to_one_chat_come_out_one_by_one_in_the_order_in_which_they_came() {
        let session = session(1, &settings());
        let first = session.enqueue(command(7, 1)).expect("nothing is under way, so it runs now");
        assert_eq!(number(&first), 1);
        for seq in 2..=4 {
            assert!(session.enqueue(command(7, seq)).is_none(), "it waits");
        }
        for seq in 2..=4 {
            assert_eq!(session.next_command(chat(7)).as_ref().map(number), Some(seq));
        }
        assert!(session.next_command(chat(7)).is_none());
    }

    #[test]
    fn a_command_waits_only_for_those_to_its_own_chat() {
        let session = session(1, &settings());
        for id in 1..=3 {
            assert!(session.enqueue(command(id, 1)).is_some(), "chat {id} has nothing under way");
            assert!(session.enqueue(command(id, 2)).is_none());
        }
        assert_eq!(session.next_command(chat(2)).as_ref().map(number), Some(2));
        assert!(session.next_command(chat(2)).is_none());
        assert!(session.enqueue(command(2, 3)).is_some(), "chat 2 is idle again");
        assert!(session.enqueue(command(1, 3)).is_none(), "chat 1 is not");
    }

    #[test]
    fn a_session_without_commands_holds_no_queue() {
        let session = session(1, &settings());
        assert!(session.queues.lock().is_none());
        drop((session.enqueue(command(1, 1)), session.enqueue(command(2, 1))));
        assert!(session.next_command(chat(1)).is_none());
        assert!(session.queues.lock().is_some(), "chat 2 has a command under way");
        assert!(session.next_command(chat(2)).is_none());
        assert!(session.queues.lock().is_none());
    }

    #[test]
    fn fetches_come_out_one_by_one_and_wait_for_no_command() {
        let session = session(1, &settings());
        let fetch = |id| Fetch {
            uuid: Uuid::from_u128(id),
            chat_id: chat(1),
            after: None,
            limit: None,
            before: None,
        };
        assert!(session.enqueue(command(1, 1)).is_some());
        assert_eq!(session.enqueue_fetch(fetch(1)).map(|fetch| fetch.uuid), Some(Uuid::from_u128(1)));
        assert!(session.enqueue_fetch(fetch(2)).is_none(), "it waits");
        assert!(session.next_command(chat(1)).is_none());
        assert_eq!(session.next_fetch().map(|fetch| fetch.uuid), Some(Uuid::from_u128(2)));
        assert!(session.queues.lock().is_some(), "a fetch is under way");
        assert!(session.next_fetch().is_none());
        assert!(session.queues.lock().is_none());
    }

    #[test]
    fn a_command_that_comes_after_the_last_one_ended_is_run_by_whoever_brings_it() {
        let session = session(1, &settings());
        drop(session.enqueue(command(1, 1)));
        assert!(session.next_command(chat(1)).is_none(), "the runner of the chat ends with this answer");
        assert!(session.enqueue(command(1, 2)).is_some(), "so another one must begin");
    }
}
