//! The judge: it is told every send, answer and delivery, and says which promise was broken.
//!
//! Owns nothing of the product and asks it nothing; clients report to it, and what they report is all that it
//! knows. What a single device can see is checked as it happens ([`device_log`]); what takes all of them, at
//! the end ([`check`]). Invariant: a breach is one line that names the device, chat, sequence and uuid.

pub mod book;
pub mod check;
pub mod device_log;
pub mod history;
pub mod log;
#[cfg(test)]
mod tests;
mod timeline;

use std::{
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use uuid::Uuid;

use self::{
    book::{Book, Key},
    device_log::DeviceLog,
    history::{HistoryMessage, HistoryRead},
};

/// Which promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Breach {
    /// An acked message that a device or the history never got.
    Lost,
    /// The same event twice, or the same uuid under two sequences.
    Duplicated,
    /// A lower sequence after a higher one.
    OutOfOrder,
    /// `prev` is not what the device had.
    Gap,
    /// Two devices, or a device and the history, saw different things at one sequence.
    Disagreement,
    /// A refused command that took effect.
    Undead,
    /// Two answers that contradict each other, or one to nothing.
    WrongAck,
    /// A message to someone who was no member.
    Trespass,
    /// A message that nobody sent.
    Phantom,
    /// A send without a final answer at the end.
    Unanswered,
    /// Anything else that the contract forbids.
    Protocol,
}

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub breach: Breach,
    pub text: String,
}

impl Violation {
    pub(crate) fn new(breach: Breach, text: String) -> Self {
        Self { breach, text }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.breach, self.text)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Oracle {
    ticks: AtomicU64,
    devices: Mutex<Vec<Arc<DeviceLog>>>,
    book: Mutex<Book>,
}

/// A body's fingerprint: bodies themselves would be most of the memory.
pub(crate) fn fingerprint(body: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

impl Oracle {
    /// A point in the run's own order.
    pub fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Registers a device.
    pub fn device(&self, user: u64, label: String) -> Arc<DeviceLog> {
        let log = Arc::new(DeviceLog::new(user, label));
        self.devices.lock().push(log.clone());
        log
    }

    /// A chat and its members before the first message; later changes are taken from the delivered events.
    pub fn chat(&self, chat: u64, members: impl IntoIterator<Item = u64>) {
        self.book.lock().chats.insert(chat, members.into_iter().collect());
    }

    /// A message goes out for the first time, or again after a cut made it void.
    pub fn sent(&self, user: u64, chat: u64, uuid: Uuid, body: &str) {
        let tick = self.tick();
        self.book.lock().sent(Key { user, chat, uuid }, body, tick);
    }

    pub fn acked(&self, user: u64, chat: u64, uuid: Uuid, seq: u64, dup: bool) {
        self.book.lock().acked(Key { user, chat, uuid }, seq, dup);
    }

    /// A final refusal.
    pub fn refused(&self, user: u64, chat: u64, uuid: Uuid, code: &str) {
        self.book.lock().refused(Key { user, chat, uuid }, code);
    }

    /// A temporary refusal: counted, not judged.
    pub fn postponed(&self, code: &str) {
        *self.book.lock().postponed.entry(code.to_owned()).or_default() += 1;
    }

    /// How often each temporary error came.
    pub fn postponements(&self) -> HashMap<String, u64> {
        self.book.lock().postponed.clone()
    }

    /// A device was told that the log lost what was after `after` in this chat. Returns its user's acked sends that
    /// are void, and their bodies: a client sends the same again, since its first attempt may still be under way.
    pub fn cut(&self, user: u64, chat: u64, after: u64) -> Vec<(Key, Box<str>)> {
        self.book.lock().cut(user, chat, after)
    }

    /// What one member read as a chat's history.
    pub fn history(&self, reader: u64, chat: u64, messages: Vec<HistoryMessage>, stale: bool) {
        self.book.lock().histories.push(HistoryRead { reader, chat, messages, stale });
    }

    /// Sends without an answer, plus devices that have not come up to the last acked message of a chat: zero
    /// means that nothing more is to be waited for. The exact judgement is [`Oracle::check`]'s.
    pub fn outstanding(&self) -> usize {
        let book = self.book.lock();
        let (open, last) = book.open_and_last();
        let devices = self.devices.lock().clone();
        let behind = |log: &&Arc<DeviceLog>| {
            log.expects_events()
                && last.iter().any(|(chat, seq)| {
                    book.chats.get(chat).is_some_and(|members| members.contains(&log.user))
                        && log.head(*chat) < *seq
                })
        };
        open + devices.iter().filter(behind).count()
    }

    /// Chats that the oracle was told of, with their members.
    pub fn chats(&self) -> Vec<(u64, Vec<u64>)> {
        let book = self.book.lock();
        book.chats.iter().map(|(chat, members)| (*chat, members.iter().copied().collect())).collect()
    }

    /// Durable events that devices have been given so far, repeated ones after a resume included.
    pub fn delivered(&self) -> u64 {
        self.devices.lock().iter().map(|log| log.received()).sum()
    }
}
