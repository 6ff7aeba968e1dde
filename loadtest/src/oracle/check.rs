//! The judgement at the end of a run.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::Arc,
};

use uuid::Uuid;

use super::{
    book::{Answer, Book, Key},
    breach::{Breach, Violation},
    device_log::{DeviceLog, fingerprint},
    history::{HistoryMessage, HistoryRead},
    timeline::{Members, Timeline, entitled},
};
use crate::frame::Kind;

/// The result of the judgement.
#[derive(Debug)]
pub struct Verdict {
    pub violations: Vec<Violation>,
    pub sent: usize,
    pub acked: usize,
    pub refused: usize,
    /// Acks that said `dup`: retries that had been stored the first time.
    pub duplicate_acks: u64,
    /// Durable events that came to devices, repeated ones after a resume included.
    pub received: u64,
    pub devices: usize,
    pub sessions: u64,
    pub resumes: u64,
    pub lagged: u64,
}

/// Lines that are printed of a long list.
const SHOWN: usize = 20;

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// The number of violations of one kind.
    pub fn count(&self, breach: Breach) -> usize {
        self.violations.iter().filter(|violation| violation.breach == breach).count()
    }

    /// The kinds that were found, with their numbers.
    pub fn counts(&self) -> BTreeMap<Breach, usize> {
        let mut counts = BTreeMap::new();
        for violation in &self.violations {
            *counts.entry(violation.breach).or_default() += 1;
        }
        counts
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} sent, {} acked ({} as duplicates), {} refused; {} events to {} devices in {} sessions ({} resumed, {} lagged)",
            self.sent,
            self.acked,
            self.duplicate_acks,
            self.refused,
            self.received,
            self.devices,
            self.sessions,
            self.resumes,
            self.lagged
        )?;
        if self.is_clean() {
            return write!(f, "zero lost, zero duplicated, zero out of order");
        }
        writeln!(f, "{:?}", self.counts())?;
        for violation in self.violations.iter().take(SHOWN) {
            writeln!(f, "  {violation}")?;
        }
        write!(f, "  ({} in all)", self.violations.len())
    }
}

/// Judges what devices saw against what was sent and answered.
pub(super) fn judge(devices: &[Arc<DeviceLog>], book: &Book) -> Verdict {
    let mut violations: Vec<Violation> = devices.iter().flat_map(|log| log.violations()).collect();
    violations.extend(book.violations.iter().cloned());
    let timeline = Timeline::of(devices, &mut violations);
    let members: HashMap<u64, Members> = timeline
        .chats
        .keys()
        .chain(book.chats.keys())
        .map(|chat| (*chat, timeline.members(*chat, book.chats.get(chat))))
        .collect();
    let court = Court { devices, book, timeline: &timeline, members: &members };
    court.sends(&mut violations);
    court.events(&mut violations);
    court.entitlement(&mut violations);
    for read in &book.histories {
        court.history(read, &mut violations);
    }
    court.verdict(violations)
}

struct Court<'a> {
    devices: &'a [Arc<DeviceLog>],
    book: &'a Book,
    timeline: &'a Timeline,
    members: &'a HashMap<u64, Members>,
}

impl Court<'_> {
    /// Every acked send reached every device that it is owed to, under the acked sequence.
    fn sends(&self, violations: &mut Vec<Violation>) {
        let mut found = |breach, key: &Key, text: String| {
            let Key { user, chat, uuid } = key;
            violations.push(Violation::new(breach, format!("u{user} chat {chat} {uuid}: {text}")));
        };
        for (key, sent) in &self.book.sends {
            match &sent.answer {
                Answer::None => found(Breach::Unanswered, key, "no final answer".to_owned()),
                Answer::Acked(seq) => {
                    for log in self.devices.iter().filter(|log| self.owes(log, key.chat, *seq, sent.tick)) {
                        if !log.has(key.chat, *seq) {
                            found(Breach::Lost, key, format!("acked as {seq}, {} never got it", log.label));
                        }
                    }
                    let event = self.timeline.chats.get(&key.chat).and_then(|events| events.get(seq));
                    match event {
                        Some(event) if (event.uuid, event.from) != (key.uuid, key.user) => {
                            let text = format!("acked as {seq}, which is {} of u{}", event.uuid, event.from);
                            found(Breach::Disagreement, key, text);
                        }
                        Some(event) if event.body != fingerprint(&sent.body) && !event.is_blank() => {
                            found(Breach::Disagreement, key, format!("another body at {seq}"));
                        }
                        Some(_) | None => {}
                    }
                }
                Answer::Refused(_) | Answer::Void => {}
            }
        }
    }

    fn owes(&self, log: &DeviceLog, chat: u64, seq: u64, sent_tick: u64) -> bool {
        log.owed_since().is_some_and(|since| since < sent_tick)
            && self.members.get(&chat).is_some_and(|members| entitled(members, log.user, seq))
    }

    /// Every delivered message was sent by someone, once, and not refused; no `prev` skips an event.
    fn events(&self, violations: &mut Vec<Violation>) {
        for (chat, events) in &self.timeline.chats {
            let mut found = |breach, text: String| {
                violations.push(Violation::new(breach, format!("chat {chat}: {text}")));
            };
            let mut places: HashMap<(u64, Uuid), u64> = HashMap::new();
            let mut before = 0;
            for event in events.values() {
                let seq = event.seq;
                if event.prev < before {
                    found(Breach::Gap, format!("{seq} has prev {}, but {before} is between", event.prev));
                }
                before = seq;
                if event.kind != Kind::Message {
                    continue;
                }
                if let Some(first) = places.insert((event.from, event.uuid), seq) {
                    found(
                        Breach::Duplicated,
                        format!("{} of u{} at {first} and {seq}", event.uuid, event.from),
                    );
                }
                let key = Key { user: event.from, chat: *chat, uuid: event.uuid };
                match self.book.sends.get(&key).map(|sent| &sent.answer) {
                    None if self.book.chats.contains_key(chat) => {
                        found(Breach::Phantom, format!("nobody sent {} at {seq}", event.uuid));
                    }
                    Some(Answer::Refused(code)) => {
                        found(Breach::Undead, format!("{} at {seq} was refused ({code})", event.uuid));
                    }
                    Some(Answer::Void) => {
                        found(Breach::Undead, format!("{} at {seq} was void", event.uuid));
                    }
                    None | Some(Answer::None | Answer::Acked(_)) => {}
                }
            }
        }
    }

    /// Nobody got an event of a time when they were no member.
    fn entitlement(&self, violations: &mut Vec<Violation>) {
        for log in self.devices {
            log.each(|chat, event| {
                let Some(members) = self.members.get(&chat) else { return };
                if self.book.chats.contains_key(&chat) && !entitled(members, log.user, event.seq) {
                    let text = format!("{}: chat {chat}: got {} as no member", log.label, event.seq);
                    violations.push(Violation::new(Breach::Trespass, text));
                }
            });
        }
    }

    /// A history has every acked message once, nothing refused, and agrees with the devices.
    fn history(&self, read: &HistoryRead, violations: &mut Vec<Violation>) {
        let HistoryRead { reader, chat, messages, stale } = read;
        let mut found = |breach, text: String| {
            violations.push(Violation::new(breach, format!("history of chat {chat} for u{reader}: {text}")));
        };
        if *stale {
            found(Breach::Protocol, "stale".to_owned());
        }
        let (mut last, mut uuids) = (0, HashSet::new());
        let mut by_seq = HashMap::new();
        for message in messages {
            let (seq, uuid) = (message.seq, message.uuid);
            if seq <= last {
                found(Breach::OutOfOrder, format!("{seq} after {last}"));
            }
            if message.prev >= seq || message.chat_id != *chat {
                found(Breach::Protocol, format!("{message:?}"));
            }
            last = seq;
            if !uuids.insert((message.from, uuid)) {
                found(Breach::Duplicated, format!("{uuid} of u{} twice", message.from));
            }
            by_seq.insert(seq, message);
            let key = Key { user: message.from, chat: *chat, uuid };
            let sent = self.book.sends.get(&key);
            match sent.map(|sent| &sent.answer) {
                Some(Answer::Refused(code)) => {
                    found(Breach::Undead, format!("{uuid} at {seq} was refused ({code})"));
                }
                Some(Answer::Void) => found(Breach::Undead, format!("{uuid} at {seq} was void")),
                Some(Answer::Acked(acked)) if *acked != seq => {
                    found(Breach::Disagreement, format!("{uuid} at {seq} was acked as {acked}"));
                }
                None | Some(Answer::None | Answer::Acked(_)) => {}
            }
            let altered = message.deleted || message.edited_ts.is_some();
            if sent.is_some_and(|sent| !altered && *sent.body != *message.body) {
                found(Breach::Disagreement, format!("another body at {seq}"));
            }
        }
        for (key, sent) in self.book.sends.iter().filter(|(key, _)| key.chat == *chat) {
            if let Answer::Acked(seq) = sent.answer
                && !by_seq.contains_key(&seq)
            {
                found(Breach::Lost, format!("{} of u{} was acked as {seq}", key.uuid, key.user));
            }
        }
        self.compare(*chat, &by_seq, &mut found);
    }

    /// The history and what the devices saw are the same messages.
    fn compare(
        &self,
        chat: u64,
        history: &HashMap<u64, &HistoryMessage>,
        found: &mut impl FnMut(Breach, String),
    ) {
        let Some(events) = self.timeline.chats.get(&chat) else { return };
        for event in events.values().filter(|event| event.kind == Kind::Message) {
            match history.get(&event.seq) {
                None => found(Breach::Lost, format!("{} was delivered as {}", event.uuid, event.seq)),
                Some(message)
                    if (message.uuid, message.from, message.prev) != (event.uuid, event.from, event.prev) =>
                {
                    let (seq, uuid, from, prev) = (event.seq, event.uuid, event.from, event.prev);
                    let text = format!("{seq} was delivered as {uuid} of u{from} after {prev}: {message:?}");
                    found(Breach::Disagreement, text);
                }
                Some(_) => {}
            }
        }
        // An event that a device was owed since its first event must have come to some device.
        let Some(first) = events.keys().next() else { return };
        for (seq, message) in history.iter().filter(|(seq, _)| *seq > first) {
            if !events.contains_key(seq) {
                found(Breach::Lost, format!("{} at {seq} was delivered to nobody", message.uuid));
            }
        }
    }

    fn verdict(&self, violations: Vec<Violation>) -> Verdict {
        let answers = || self.book.sends.values().map(|sent| &sent.answer);
        let (sessions, resumes) = self
            .devices
            .iter()
            .map(|log| log.sessions())
            .fold((0, 0), |(a, b), (sessions, resumes)| (a + sessions, b + resumes));
        Verdict {
            violations,
            sent: self.book.sends.len(),
            acked: answers().filter(|answer| matches!(answer, Answer::Acked(_))).count(),
            refused: answers().filter(|answer| matches!(answer, Answer::Refused(_))).count(),
            duplicate_acks: self.book.duplicates,
            received: self.devices.iter().map(|log| log.received()).sum(),
            devices: self.devices.len(),
            sessions,
            resumes,
            lagged: self.devices.iter().map(|log| log.lagged()).sum(),
        }
    }
}
