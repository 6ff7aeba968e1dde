//! The compact oracle: judges ten thousand devices while they run, in a few words of memory per event.
//!
//! A chat's log is the list of sequences that its members were given. Each event that a device gets must continue
//! that device's own chain (`prev` is what it had), and be in the list with the same predecessor, or at its end. A
//! device whose chain reached the end of the list has therefore got every event of the chat, once, in order. Every
//! acked command must be in the list, with the sequence of the ack. A delivered message must have been sent.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::oracle::Breach;

/// The number of breaches that are kept in full; all are counted.
const TOLD: usize = 50;

/// A durable command that was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    pub chat: u32,
    pub device: u32,
    pub kind: SentKind,
    /// When the schedule wanted it sent.
    pub intended_ns: u64,
    /// Zero until an ack or a delivery tells it.
    pub seq: u64,
    pub acked: bool,
    /// Some device got it; of messages.
    pub delivered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentKind {
    Message,
    /// A message whose deletion was sent.
    Deleted,
    Edit,
    Delete,
    React,
}

impl SentKind {
    pub const fn is_message(self) -> bool {
        matches!(self, Self::Message | Self::Deleted)
    }
}

/// A chat, as far as its members have seen it.
#[derive(Debug)]
pub struct Chat {
    pub id: u64,
    pub members: Vec<u32>,
    /// The sequence of its creation.
    pub base: u64,
    /// The sequence of each event after its creation, ascending.
    pub log: Vec<u64>,
}

impl Chat {
    pub fn head(&self) -> u64 {
        self.log.last().copied().unwrap_or(self.base)
    }

    fn before(&self, at: usize) -> u64 {
        at.checked_sub(1).map_or(self.base, |at| self.log[at])
    }
}

/// Broken promises, and how often.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Breaches {
    pub counts: BTreeMap<String, u64>,
    pub examples: Vec<String>,
}

impl Breaches {
    pub fn add(&mut self, breach: Breach, text: impl FnOnce() -> String) {
        *self.counts.entry(format!("{breach:?}")).or_default() += 1;
        if self.examples.len() < TOLD {
            self.examples.push(format!("{breach:?}: {}", text()));
        }
    }

    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

/// The compact oracle of a run.
#[derive(Debug)]
pub struct Judge {
    pub chats: Vec<Chat>,
    pub sent: Vec<Sent>,
    pub breaches: Breaches,
    /// Marks this run's uuids.
    run: u64,
    /// Sends without a final answer.
    pub open: u64,
    pub acked: u64,
}

/// Bits of a uuid's tag that hold the number of the send.
const NUMBER_BITS: u32 = 32;
/// The variant's two bits come first.
const VARIANT: u64 = 0b10 << 62;
const RUN_BITS: u64 = (1 << 30) - 1;

/// The judgement of a device's next event of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is new to the device.
    New,
    /// The device had it; allowed while a replay runs.
    Known,
    /// A breach, noted.
    Wrong,
}

impl Judge {
    pub fn new(chats: Vec<Chat>, run: u64) -> Self {
        let run = run & RUN_BITS;
        Self { chats, sent: Vec::new(), breaches: Breaches::default(), run, open: 0, acked: 0 }
    }

    /// The tag of the n-th send's uuid.
    pub fn tag(&self, number: u32) -> u64 {
        VARIANT | self.run << NUMBER_BITS | u64::from(number)
    }

    /// The send with this tag, if it is one of this run's.
    pub fn number(&self, tag: u64) -> Option<u32> {
        let number = tag as u32;
        (self.tag(number) == tag && (number as usize) < self.sent.len()).then_some(number)
    }

    /// Notes a send and returns its number; `None` when there are no numbers left.
    pub fn send(&mut self, sent: Sent) -> Option<u32> {
        let number = u32::try_from(self.sent.len()).ok()?;
        self.sent.push(sent);
        self.open += 1;
        Some(number)
    }

    /// An ack came for a send.
    pub fn ack(&mut self, number: u32, chat: u64, seq: u64) {
        let sent = &mut self.sent[number as usize];
        let known = std::mem::replace(&mut sent.seq, seq);
        let expected = self.chats[sent.chat as usize].id;
        if !std::mem::replace(&mut sent.acked, true) {
            self.acked += 1;
            self.open -= 1;
        }
        if known != 0 && known != seq || chat != expected {
            self.breaches.add(Breach::WrongAck, || {
                format!("send {number} of chat {expected}: acked as {seq} of chat {chat}, known as {known}")
            });
        }
    }

    /// A send was refused for good.
    pub fn refuse(&mut self, number: u32, code: &str) {
        self.open -= 1;
        // Another member's deletion may come first in the log.
        if code != "message.deleted" || self.sent[number as usize].kind.is_message() {
            self.breaches.add(Breach::Protocol, || format!("send {number} refused: {code}"));
        }
    }

    /// A device got an event of a chat that it had up to `head`. `replaying`: between `Welcome` and `Live`.
    pub fn event(&mut self, device: u32, at: u32, head: u64, seq: u64, prev: u64, replaying: bool) -> Step {
        let chat = &mut self.chats[at as usize];
        let id = chat.id;
        if seq <= head {
            if replaying {
                return Step::Known;
            }
            let breach = if seq == head { Breach::Duplicated } else { Breach::OutOfOrder };
            self.breaches.add(breach, || format!("device {device}, chat {id}: {seq} after {head}"));
            return Step::Wrong;
        }
        if prev != head {
            self.breaches.add(Breach::Gap, || {
                format!("device {device}, chat {id}: {seq} continues {prev}, the device has {head}")
            });
            return Step::Wrong;
        }
        if seq > chat.head() && prev == chat.head() {
            chat.log.push(seq);
            return Step::New;
        }
        match chat.log.binary_search(&seq) {
            Ok(found) if chat.before(found) == prev => Step::New,
            _ => {
                self.breaches.add(Breach::Disagreement, || {
                    format!("device {device}, chat {id}: {seq} after {prev} is not what others got")
                });
                Step::Wrong
            }
        }
    }

    /// A message with this tag came at `seq` of a chat. Returns its number.
    pub fn message(&mut self, at: u32, seq: u64, tag: u64) -> Option<u32> {
        let number = self.number(tag);
        let sent = number.and_then(|number| self.sent.get_mut(number as usize));
        let Some(sent) = sent.filter(|sent| sent.chat == at && sent.kind.is_message()) else {
            let id = self.chats[at as usize].id;
            self.breaches.add(Breach::Phantom, || format!("chat {id}: {seq} was not sent ({tag:x})"));
            return None;
        };
        let known = std::mem::replace(&mut sent.seq, seq);
        sent.delivered = true;
        if known != 0 && known != seq {
            let id = self.chats[at as usize].id;
            self.breaches.add(Breach::Duplicated, || format!("chat {id}: one message at {known} and {seq}"));
        }
        number
    }

    /// The end of the run: everything acked has come to its members, each under a sequence of its own.
    pub fn close(&mut self) {
        let mut taken = HashSet::new();
        for (number, sent) in self.sent.iter().enumerate().filter(|(_, sent)| sent.acked) {
            let chat = &self.chats[sent.chat as usize];
            let (id, seq) = (chat.id, sent.seq);
            if chat.log.binary_search(&seq).is_err() || sent.kind.is_message() && !sent.delivered {
                self.breaches
                    .add(Breach::Lost, || format!("chat {id}: send {number}, acked as {seq}, never came"));
            }
            if !taken.insert((sent.chat, seq)) {
                self.breaches.add(Breach::WrongAck, || format!("chat {id}: {seq} was acked to two sends"));
            }
        }
        if self.open > 0 {
            let open = self.open;
            self.breaches.add(Breach::Unanswered, || format!("{open} sends have no final answer"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge() -> Judge {
        Judge::new(vec![Chat { id: 9, members: vec![0, 1], base: 5, log: Vec::new() }], 77)
    }

    fn message() -> Sent {
        Sent {
            chat: 0,
            device: 0,
            kind: SentKind::Message,
            intended_ns: 0,
            seq: 0,
            acked: false,
            delivered: false,
        }
    }

    fn counts(judge: &Judge) -> Vec<(&str, u64)> {
        judge.breaches.counts.iter().map(|(breach, count)| (breach.as_str(), *count)).collect()
    }

    #[test]
    fn a_faultless_run_is_clean() {
        let mut judge = judge();
        let number = judge.send(message()).unwrap();
        let tag = judge.tag(number);
        assert_eq!(judge.event(1, 0, 5, 8, 5, false), Step::New);
        assert_eq!(judge.message(0, 8, tag), Some(number));
        judge.ack(number, 9, 8);
        assert_eq!(judge.event(0, 0, 5, 8, 5, false), Step::New);
        assert_eq!(judge.event(0, 0, 8, 8, 5, true), Step::Known);
        judge.close();
        assert!(counts(&judge).is_empty(), "{:?}", judge.breaches);
        assert_eq!((judge.acked, judge.open), (1, 0));
    }

    #[test]
    fn each_fault_is_named() {
        let mut judge = judge();
        assert_eq!(judge.event(0, 0, 5, 9, 8, false), Step::Wrong);
        assert_eq!(counts(&judge), [("Gap", 1)]);
        assert_eq!(judge.event(0, 0, 5, 9, 5, false), Step::New);
        assert_eq!(judge.event(0, 0, 9, 9, 5, false), Step::Wrong);
        assert_eq!(judge.event(0, 0, 9, 7, 5, false), Step::Wrong);
        assert_eq!(judge.event(1, 0, 5, 7, 5, false), Step::Wrong);
        assert_eq!(counts(&judge), [("Disagreement", 1), ("Duplicated", 1), ("Gap", 1), ("OutOfOrder", 1)]);
        assert_eq!(judge.message(0, 9, 0x8000_0000_0000_0001), None);
        assert_eq!(judge.breaches.counts["Phantom"], 1);
    }

    #[test]
    fn an_acked_send_that_nobody_got_is_lost_and_one_without_an_answer_is_told() {
        let mut judge = judge();
        let number = judge.send(message()).unwrap();
        judge.send(message());
        judge.ack(number, 9, 8);
        judge.close();
        assert_eq!(counts(&judge), [("Lost", 1), ("Unanswered", 1)]);
    }

    #[test]
    fn a_second_sequence_for_one_message_is_noticed() {
        let mut judge = judge();
        let number = judge.send(message()).unwrap();
        let tag = judge.tag(number);
        judge.ack(number, 9, 8);
        assert_eq!(judge.message(0, 11, tag), Some(number));
        judge.ack(number, 10, 11);
        assert_eq!(counts(&judge), [("Duplicated", 1), ("WrongAck", 1)]);
    }
}
