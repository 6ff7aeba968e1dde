//! The sends of a run and their answers.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use super::{
    breach::{Breach, Violation},
    history::HistoryRead,
};

/// The idempotency key of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub user: u64,
    pub chat: u64,
    pub uuid: Uuid,
}

#[derive(Debug)]
pub(super) struct Sent {
    /// Whole, since it may have to be sent again; what is delivered is many times more, and kept as fingerprints.
    pub(super) body: Box<str>,
    pub(super) tick: u64,
    pub(super) answer: Answer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    None,
    Acked(u64),
    Refused(String),
    /// Acked once, then lost with the tail of the log.
    Void,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) sends: HashMap<Key, Sent>,
    pub(super) chats: HashMap<u64, BTreeSet<u64>>,
    pub(super) histories: Vec<HistoryRead>,
    pub(super) postponed: HashMap<String, u64>,
    pub(super) violations: Vec<Violation>,
    pub(super) duplicates: u64,
}

impl Book {
    pub(super) fn sent(&mut self, key: Key, body: &str, tick: u64) {
        let sent = || Sent { body: body.into(), tick, answer: Answer::None };
        let entry = self.sends.entry(key).or_insert_with(sent);
        if entry.answer == Answer::Void {
            *entry = sent();
        }
    }

    pub(super) fn acked(&mut self, key: Key, seq: u64, dup: bool) {
        let Key { user, chat, uuid } = key;
        self.duplicates += u64::from(dup);
        let complaint = match self.sends.get_mut(&key) {
            None => Some(format!("u{user} chat {chat} {uuid}: acked as {seq} but never sent")),
            Some(sent) => match sent.answer.clone() {
                Answer::None | Answer::Void => {
                    sent.answer = Answer::Acked(seq);
                    None
                }
                Answer::Acked(first) if first == seq => None,
                answer @ (Answer::Acked(_) | Answer::Refused(_)) => {
                    Some(format!("u{user} chat {chat} {uuid}: acked as {seq} after {answer:?}"))
                }
            },
        };
        self.violations.extend(complaint.map(|text| Violation::new(Breach::WrongAck, text)));
    }

    pub(super) fn refused(&mut self, key: Key, code: &str) {
        let Key { user, chat, uuid } = key;
        let complaint = match self.sends.get_mut(&key) {
            None => Some(format!("u{user} chat {chat} {uuid}: refused ({code}) but never sent")),
            Some(sent) => match &sent.answer {
                Answer::Acked(seq) => {
                    Some(format!("u{user} chat {chat} {uuid}: refused ({code}) after an ack as {seq}"))
                }
                Answer::None | Answer::Refused(_) | Answer::Void => {
                    sent.answer = Answer::Refused(code.to_owned());
                    None
                }
            },
        };
        self.violations.extend(complaint.map(|text| Violation::new(Breach::WrongAck, text)));
    }

    pub(super) fn cut(&mut self, user: u64, chat: u64, after: u64) -> Vec<(Key, Box<str>)> {
        let lost = |key: &Key, sent: &Sent| {
            (key.user, key.chat) == (user, chat) && matches!(sent.answer, Answer::Acked(seq) if seq > after)
        };
        let mut void = Vec::new();
        for (key, sent) in &mut self.sends {
            if lost(key, sent) {
                sent.answer = Answer::Void;
                void.push((*key, sent.body.clone()));
            }
        }
        void.sort();
        void
    }

    /// The number of unanswered sends, and the last acked sequence of each chat.
    pub(super) fn open_and_last(&self) -> (usize, HashMap<u64, u64>) {
        let (mut open, mut last) = (0, HashMap::new());
        for (key, sent) in &self.sends {
            match sent.answer {
                Answer::None => open += 1,
                Answer::Acked(seq) => {
                    let entry = last.entry(key.chat).or_insert(seq);
                    *entry = seq.max(*entry);
                }
                Answer::Refused(_) | Answer::Void => {}
            }
        }
        (open, last)
    }
}
