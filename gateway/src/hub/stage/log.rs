//! The log of a test: it makes entries, and judges them as the projection does.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use shared::{
    code::Code,
    event::{Event, Fact},
    fold::{self, ChatState},
    id::{ChatId, EventId, Position, Seq, UserId},
};
use sql::replay::EventRow;
use streams::Entry;
use uuid::Uuid;

use super::{chat, user};
use crate::hub::{
    facts::{Revision, joining, leaving, revision},
    install::{LoadedChat, LoadedUser},
    judge::Looked,
    user::Interval,
    verdict::Key,
};

/// The time at which all entries are stored and all uuids are made.
const STORED_MS: u64 = 0x0192_c3f0_0000;

/// Begins at sequence 1.
#[derive(Clone, Default)]
pub(crate) struct Log {
    entries: Vec<Entry>,
    /// How many entries were ever made: those that were cut off count, so identities and uuids differ.
    made: u64,
}

/// What the fold says of one entry.
struct Judged<'a> {
    entry: &'a Entry,
    seq: Seq,
    chat: ChatId,
    event: &'a Event,
    verdict: Result<(), Code>,
    /// The chat's valid event before it.
    prev: Seq,
    /// The chat's state after it.
    state: &'a Option<ChatState>,
}

impl Log {
    /// The key of the next command that a user appends to a chat.
    pub(crate) fn next_key(&self, to: u64, actor: u64) -> Key {
        let uuid = Uuid::from_u64_pair(STORED_MS << 16 | 0x7000, 1 << 63 | self.made);
        Key { chat: chat(to), actor: user(actor), uuid }
    }

    /// The key of the command at `seq`.
    pub(crate) fn key(&self, seq: Seq) -> Key {
        let entry = self.entry(seq);
        let event = Event::decode(&entry.payload).unwrap();
        Key { chat: entry.chat.unwrap(), actor: event.actor, uuid: event.uuid }
    }

    /// Appends an event of a user to a chat.
    pub(crate) fn append(&mut self, to: u64, actor: u64, fact: Fact) -> Entry {
        let Key { actor, uuid, .. } = self.next_key(to, actor);
        // Its gateway has looked for an earlier copy, up to the log's end.
        let unique_as_of = Some(self.tip());
        let event = Event { actor, device: "web".into(), uuid, fact, unique_as_of };
        self.append_raw(Some(to), event.encode())
    }

    /// Appends a second copy of the command that stands at `seq`.
    pub(crate) fn append_copy(&mut self, seq: Seq) -> Entry {
        let first = self.entry(seq);
        let (to, payload) = (first.chat.map(ChatId::get), first.payload.clone());
        self.append_raw(to, payload)
    }

    /// Appends the command of the entry at `seq` again, as another event.
    pub(crate) fn append_again(&mut self, seq: Seq, fact: Fact) -> Entry {
        let first = self.entry(seq);
        let (to, event) = (first.chat.map(ChatId::get), Event::decode(&first.payload).unwrap());
        self.append_raw(to, Event { fact, ..event }.encode())
    }

    /// Appends an event that is stored at a time, with the uuid of a command that may be here already.
    pub(crate) fn append_at(
        &mut self,
        (to, actor): (u64, u64),
        ts_ms: u64,
        uuid: Uuid,
        fact: Fact,
        unique_as_of: Option<Seq>,
    ) -> Seq {
        let event = Event { actor: user(actor), device: "web".into(), uuid, fact, unique_as_of };
        self.append_raw(Some(to), event.encode());
        self.stored_at(ts_ms)
    }

    /// Appends bytes whose head is that of a command and that are no event.
    pub(crate) fn append_corrupt(&mut self, (to, actor): (u64, u64), ts_ms: u64, uuid: Uuid) -> Seq {
        let fact = super::titled("cut short");
        let event = Event { actor: user(actor), device: "web".into(), uuid, fact, unique_as_of: None };
        let mut payload = event.encode();
        payload.truncate(payload.len() - 3);
        self.append_raw(Some(to), payload);
        self.stored_at(ts_ms)
    }

    /// Sets the time at which the last entry was stored.
    fn stored_at(&mut self, ts_ms: u64) -> Seq {
        if let Some(last) = self.entries.last_mut() {
            (last.ts_ms, last.appended_ns) = (ts_ms, ts_ms * 1_000_000);
        }
        self.tip()
    }

    /// The verdict on each event, and of a valid one the chat's valid event before it.
    pub(crate) fn verdicts(&self) -> BTreeMap<Seq, (Result<(), Code>, Seq)> {
        let mut verdicts = BTreeMap::new();
        self.judge(self.tip(), |judged| {
            let prev = if judged.verdict.is_ok() { judged.prev } else { Seq::ZERO };
            verdicts.insert(judged.seq, (judged.verdict, prev));
        });
        verdicts
    }

    /// Appends any bytes; `None`: to the subject of no chat.
    pub(crate) fn append_raw(&mut self, to: Option<u64>, payload: impl Into<Bytes>) -> Entry {
        self.made += 1;
        let entry = Entry {
            seq: self.tip().next(),
            id: EventId(self.made),
            ts_ms: STORED_MS,
            appended_ns: STORED_MS * 1_000_000,
            chat: to.map(chat),
            payload: payload.into(),
            traceparent: None,
        };
        self.entries.push(entry.clone());
        entry
    }

    pub(crate) fn tip(&self) -> Seq {
        Seq(self.entries.len() as u64)
    }

    pub(crate) fn entry(&self, seq: Seq) -> &Entry {
        &self.entries[seq.get() as usize - 1]
    }

    /// The position of an entry, or the one before the first.
    pub(crate) fn position(&self, seq: Seq) -> Position {
        if seq == Seq::ZERO { Position::default() } else { self.entry(seq).position() }
    }

    /// Loses all above `seq`.
    pub(crate) fn cut(&mut self, seq: Seq) -> Position {
        self.entries.truncate(seq.get() as usize);
        self.position(seq)
    }

    /// Looks at each entry of a chat up to `upto`, except those that are no event.
    fn judge(&self, upto: Seq, mut look: impl FnMut(Judged<'_>)) {
        let mut chats: BTreeMap<ChatId, (Option<ChatState>, Seq)> = BTreeMap::new();
        let mut commands = BTreeSet::new();
        for entry in self.entries.iter().take_while(|entry| entry.seq <= upto) {
            let (Some(chat), Ok(event)) = (entry.chat, Event::decode(&entry.payload)) else { continue };
            let (state, head) = chats.entry(chat).or_default();
            let key = (chat, event.actor, event.uuid);
            let verdict = fold::judge(state, entry.seq, &event, commands.contains(&key));
            if fold::is_copy(verdict) {
                commands.insert(key);
            }
            let seq = entry.seq;
            let prev = if verdict.is_ok() { std::mem::replace(head, seq) } else { *head };
            look(Judged { entry, seq, chat, event: &event, verdict, prev, state });
        }
    }

    /// The chat as of `upto`, loaded when the ring's floor was `floor`.
    pub(crate) fn chat(&self, chat: ChatId, upto: Seq, floor: Seq) -> LoadedChat {
        let (head, floor_head) = (Seq::ZERO, Seq::ZERO);
        let mut loaded = LoadedChat {
            chat,
            state: None,
            upto,
            head,
            floor,
            floor_head,
            void: Vec::new(),
            looked: Looked::default(),
        };
        self.judge(upto, |judged| {
            if judged.chat != chat {
                return;
            }
            loaded.state.clone_from(judged.state);
            match judged.verdict {
                Ok(()) => {
                    loaded.head = judged.seq;
                    if judged.seq <= floor {
                        loaded.floor_head = judged.seq;
                    }
                }
                Err(code) if judged.seq > floor => loaded.void.push((judged.seq, code)),
                Err(_) => {}
            }
        });
        loaded
    }

    /// The user's memberships as of `upto`, also those that ended long ago.
    pub(crate) fn user(&self, user: UserId, upto: Seq) -> LoadedUser {
        LoadedUser { user, upto, intervals: self.memberships(user, upto) }
    }

    /// All memberships that began up to `upto`, in the order of their beginnings.
    fn memberships(&self, user: UserId, upto: Seq) -> Vec<Interval> {
        let mut all: Vec<Interval> = Vec::new();
        self.judge(upto, |judged| {
            if judged.verdict.is_err() {
                return;
            }
            if joining(&judged.event.fact).contains(&user) {
                all.push(Interval { chat: judged.chat, from: judged.seq, to: None });
            }
            if leaving(&judged.event.fact) == Some(user) {
                let open = |interval: &&mut Interval| interval.chat == judged.chat && interval.to.is_none();
                if let Some(open) = all.iter_mut().find(open) {
                    open.to = Some(judged.seq);
                }
            }
        });
        all
    }

    /// The valid events up to `upto` that happened while the user was a member, their own removal included.
    pub(crate) fn entitled(&self, user: UserId, upto: Seq) -> Vec<(ChatId, Seq)> {
        let memberships = self.memberships(user, upto);
        let mut events = Vec::new();
        self.judge(upto, |judged| {
            let held = |interval: &Interval| {
                interval.chat == judged.chat
                    && interval.from <= judged.seq
                    && interval.to.is_none_or(|to| judged.seq <= to)
            };
            if judged.verdict.is_ok() && memberships.iter().any(held) {
                events.push((judged.chat, judged.seq));
            }
        });
        events
    }

    /// What the projection would have fed a session of the user that has all up to `after`.
    pub(crate) fn rows(&self, user: UserId, after: Seq, upto: Seq) -> Vec<EventRow> {
        let entitled: BTreeSet<Seq> = self.entitled(user, upto).into_iter().map(|(_, seq)| seq).collect();
        let mut deleted = BTreeSet::new();
        let mut rows = Vec::new();
        self.judge(upto, |judged| {
            let of = match revision(&judged.event.fact) {
                Some(Revision::Edit(message)) => message,
                Some(Revision::Delete(message)) => {
                    if judged.verdict.is_ok() {
                        deleted.insert(message);
                    }
                    judged.seq
                }
                None => judged.seq,
            };
            if judged.seq > after && entitled.contains(&judged.seq) {
                let row = EventRow {
                    chat: judged.chat,
                    seq: judged.seq,
                    prev: judged.prev,
                    ts_ms: judged.entry.ts_ms,
                    kind: judged.event.fact.kind(),
                    payload: judged.entry.payload.to_vec(),
                    deleted: false,
                };
                rows.push((of, row));
            }
        });
        let with_deletion = |(of, row)| EventRow { deleted: deleted.contains(&of), ..row };
        rows.into_iter().map(with_deletion).collect()
    }
}
