//! The judge: clients report every send, answer and delivery to it, and it says which promise was broken.
//!
//! Owns nothing of the product and asks it nothing; the reports of the clients are its only knowledge. Promises that
//! a single device can check are checked at once ([`device_log`]); promises about all devices are checked at the end
//! ([`check`]). Invariant: a breach is one line that names the device, chat, sequence and uuid.
//!
//! Files from the top: this one; [`check`] and [`log`]; `timeline`; [`device_log`] and [`book`]; [`history`];
//! `breach`.

pub mod book;
mod breach;
pub mod check;
pub mod device_log;
pub mod history;
pub mod log;
#[cfg(test)]
mod tests;
mod timeline;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use uuid::Uuid;

pub use self::breach::{Breach, Violation};
use self::{
    book::{Book, Key},
    check::Verdict,
    device_log::DeviceLog,
    history::{HistoryMessage, HistoryRead},
    log::Entry,
};

/// The judge of a run, shared by all its clients.
#[derive(Debug, Default)]
pub struct Oracle {
    ticks: AtomicU64,
    devices: Mutex<Vec<Arc<DeviceLog>>>,
    book: Mutex<Book>,
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

    /// The number of refusals by each temporary error.
    pub fn postponements(&self) -> HashMap<String, u64> {
        self.book.lock().postponed.clone()
    }

    /// A device was told that the log lost what was after `after` in this chat. Returns its user's acked sends that
    /// are void, and their bodies: a client sends the same again, since its first attempt may still be under way.
    pub fn cut(&self, user: u64, chat: u64, after: u64) -> Vec<(Key, Box<str>)> {
        self.book.lock().cut(user, chat, after)
    }

    /// Takes a chat's history as one member read it.
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

    /// Judges all that has been reported so far.
    pub fn check(&self) -> Verdict {
        let devices = self.devices.lock().clone();
        check::judge(&devices, &self.book.lock())
    }

    /// Compares the log's entries with all that has been reported so far.
    pub fn check_log(&self, entries: &[Entry]) -> Vec<Violation> {
        let devices = self.devices.lock().clone();
        log::compare(entries, &devices, &self.book.lock())
    }
}
