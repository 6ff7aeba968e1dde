//! The log, judged as every reader judges it, and the projection of it: all that the schedules are compared with.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use shared::{
    code::Code,
    cursor::Cursor,
    entitlement::Sight,
    event::{Event, Fact, History},
    fold::{self, ChatState},
    frame::{self, ServerFrame},
    id::{ChatId, EventId, Position, Seq, UserId},
};
use sql::{
    Checkpoint,
    replay::{EventRow, Replay},
};
use streams::Entry;
use uuid::Uuid;

use crate::hub::{
    facts::{joining, leaving},
    install::{LoadedChat, LoadedUser},
    judge::Looked,
    user::Interval,
};

/// An entry, and what all readers make of it.
pub(super) struct Judged {
    pub(super) entry: Entry,
    pub(super) event: Option<Event>,
    pub(super) verdict: Result<(), Code>,
    pub(super) prev: Seq,
    /// The chat's state after it.
    state: Option<ChatState>,
    /// Who is entitled to it.
    pub(super) readers: Vec<UserId>,
}

#[derive(Default)]
pub(super) struct Book {
    pub(super) entries: Vec<Judged>,
    chats: BTreeMap<ChatId, (Option<ChatState>, Seq)>,
    commands: BTreeSet<(ChatId, UserId, Uuid)>,
    /// The cuts on record, oldest first: the epoch that each began, and the last entry that survived it.
    cuts: Vec<(u32, Position)>,
    /// Up to here the projection has folded the log.
    pub(super) checkpoint: Seq,
    /// How many entries were ever made: their times are unique across all histories.
    made: u64,
}

impl Book {
    pub(super) fn tip(&self) -> Seq {
        Seq(self.entries.len() as u64)
    }

    pub(super) fn epoch(&self) -> u32 {
        self.cuts.last().map_or(0, |(epoch, _)| *epoch)
    }

    pub(super) fn get(&self, seq: Seq) -> Option<&Judged> {
        self.entries.get((seq.get() as usize).checked_sub(1)?)
    }

    pub(super) fn position(&self, seq: Seq) -> Position {
        self.get(seq).map_or(Position::default(), |judged| judged.entry.position())
    }

    pub(super) fn lowest_after(&self, epoch: u32) -> Option<Position> {
        let later = self.cuts.iter().filter(|(cut, _)| *cut > epoch).map(|(_, position)| *position);
        later.min_by_key(|position| position.seq)
    }

    /// What remains of what a cursor covers.
    pub(super) fn kept_of(&self, cursor: Cursor) -> Position {
        let cut = self.lowest_after(cursor.epoch).filter(|cut| cut.seq < cursor.position.seq);
        cut.unwrap_or(cursor.position)
    }

    pub(super) fn next_uuid(&self) -> Uuid {
        Uuid::from_u64_pair(0x0192_c3f0_0000_7000, 1 << 63 | self.made)
    }

    pub(super) fn append(&mut self, chat: Option<ChatId>, payload: Bytes) {
        self.made += 1;
        let seq = self.tip().next();
        let id = EventId(self.made);
        let entry = Entry { seq, id, ts_ms: self.made, appended_ns: 0, chat, payload, traceparent: None };
        let event = Event::decode(&entry.payload).ok();
        let mut judged = Judged {
            entry,
            event,
            verdict: Err(Code::CommandInvalid),
            prev: Seq::ZERO,
            state: None,
            readers: Vec::new(),
        };
        if let (Some(chat), Some(event)) = (chat, &judged.event) {
            let (state, head) = self.chats.entry(chat).or_default();
            let key = (chat, event.actor, event.uuid);
            judged.verdict = fold::judge(state, seq, event, self.commands.contains(&key));
            if fold::is_copy(judged.verdict) {
                self.commands.insert(key);
            }
            judged.state.clone_from(state);
            if judged.verdict.is_ok() {
                judged.prev = std::mem::replace(head, seq);
                judged.readers = state.iter().flat_map(|state| state.members.users()).collect();
                judged.readers.extend(leaving(&event.fact));
            }
        }
        self.entries.push(judged);
    }

    /// The log loses all above `seq`, the loss is on record, and the projection has taken back what it had of it.
    pub(super) fn cut(&mut self, seq: Seq) {
        let cut = self.position(seq);
        self.entries.truncate(seq.get() as usize);
        self.checkpoint = self.checkpoint.min(seq);
        self.cuts.push((self.epoch() + 1, cut));
        self.chats.clear();
        self.commands.clear();
        for Judged { entry, event, verdict, state, .. } in &self.entries {
            let (Some(chat), Some(event)) = (entry.chat, event) else { continue };
            if fold::is_copy(*verdict) {
                self.commands.insert((chat, event.actor, event.uuid));
            }
            let known = self.chats.entry(chat).or_default();
            if verdict.is_ok() {
                *known = (state.clone(), entry.seq);
            }
        }
    }

    pub(super) fn state(&self, chat: ChatId) -> Option<&ChatState> {
        self.chats.get(&chat)?.0.as_ref()
    }

    pub(super) fn is_member(&self, chat: ChatId, user: UserId) -> bool {
        self.state(chat).is_some_and(|state| state.members.contains(user))
    }

    fn upto(&self, upto: Seq) -> &[Judged] {
        &self.entries[..upto.get() as usize]
    }

    /// The chat as of `upto`, loaded when the ring's floor was `floor`.
    pub(super) fn chat(&self, chat: ChatId, upto: Seq, floor: Seq) -> LoadedChat {
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
        for judged in self.upto(upto).iter().filter(|judged| judged.entry.chat == Some(chat)) {
            let seq = judged.entry.seq;
            match judged.verdict {
                Ok(()) => {
                    loaded.state.clone_from(&judged.state);
                    loaded.head = seq;
                    if seq <= floor {
                        loaded.floor_head = seq;
                    }
                }
                Err(code) if seq > floor && judged.event.is_some() => loaded.void.push((seq, code)),
                Err(_) => {}
            }
        }
        loaded
    }

    /// The user's memberships as of `upto`, also those that ended.
    pub(super) fn user(&self, user: UserId, upto: Seq) -> LoadedUser {
        let mut intervals: Vec<Interval> = Vec::new();
        for judged in self.upto(upto).iter().filter(|judged| judged.verdict.is_ok()) {
            let (Some(chat), Some(event)) = (judged.entry.chat, &judged.event) else { continue };
            let seq = judged.entry.seq;
            if joining(&event.fact).contains(&user) {
                intervals.push(Interval { chat, from: seq, to: None });
            }
            if leaving(&event.fact) == Some(user) {
                let open = |interval: &&mut Interval| interval.chat == chat && interval.to.is_none();
                intervals.iter_mut().find(open).unwrap().to = Some(seq);
            }
        }
        LoadedUser { user, upto, intervals }
    }

    /// The user's events in `(after, upto]`.
    pub(super) fn entitled(&self, user: UserId, after: Seq, upto: Seq) -> impl Iterator<Item = &Judged> {
        let range = self.entries.iter().skip(after.get() as usize).take_while(move |it| it.entry.seq <= upto);
        range.filter(move |judged| judged.readers.contains(&user))
    }

    /// Whether the message, or what this edits, was deleted by `upto`.
    fn is_deleted(&self, judged: &Judged, upto: Seq) -> bool {
        let target = match judged.event.as_ref().map(|event| &event.fact) {
            Some(Fact::MessageEdited(edited)) => edited.seq,
            _ => judged.entry.seq,
        };
        self.upto(upto).iter().filter(|later| later.verdict.is_ok() && later.entry.chat == judged.entry.chat).any(
            |later| matches!(&later.event, Some(Event { fact: Fact::MessageDeleted(gone), .. }) if gone.seq == target),
        )
    }

    /// The frames as which the event may be delivered to a user: now or before a later deletion, and with the message
    /// that it names if the user may have read that one.
    pub(super) fn frames(&self, judged: &Judged, user: UserId) -> Vec<ServerFrame> {
        let event = judged.event.as_ref().unwrap();
        let opened = judged.state.as_ref().is_some_and(|state| state.history == History::All);
        let reached = |seq| {
            self.get(seq).is_some_and(|message| {
                // What is void reaches nobody, and yet has its place in the time of members.
                let present = message.state.as_ref().is_some_and(|state| state.members.contains(user));
                present || message.readers.contains(&user)
            })
        };
        let named = opened || event.fact.names().is_none_or(reached);
        let sights = [Sight::Everything, Sight::Stays(Vec::new())];
        let mut frames = Vec::new();
        for sight in sights.iter().filter(|sight| named || **sight != Sight::Everything) {
            frames.extend([false, true].map(|late| self.frame(judged, sight, late)));
        }
        frames
    }

    /// The event for a user with this sight, without its text if it is read `late` and was deleted by then.
    pub(super) fn frame(&self, judged: &Judged, sight: &Sight, late: bool) -> ServerFrame {
        let Judged { entry, event, prev, .. } = judged;
        let shown = sight.shows(event.as_ref().unwrap());
        let deleted = late && self.is_deleted(judged, self.tip());
        frame::delivered(entry.chat.unwrap(), entry.seq, *prev, entry.ts_ms, &shown, deleted)
    }

    /// The projection's answer: the user's events after `after`, at most `limit`.
    pub(super) fn replay(&self, user: UserId, after: Seq, limit: usize) -> (Checkpoint, Replay) {
        let row = |judged: &Judged| EventRow {
            chat: judged.entry.chat.unwrap(),
            seq: judged.entry.seq,
            prev: judged.prev,
            ts_ms: judged.entry.ts_ms,
            kind: judged.event.as_ref().unwrap().fact.kind(),
            payload: judged.entry.payload.to_vec(),
            deleted: self.is_deleted(judged, self.checkpoint),
        };
        let events: Vec<EventRow> =
            self.entitled(user, after, self.checkpoint).take(limit).map(row).collect();
        let upto = match events.last() {
            Some(last) if events.len() == limit => last.seq,
            _ => self.checkpoint,
        };
        (
            Checkpoint { epoch: self.epoch(), position: self.position(self.checkpoint) },
            Replay { events, upto },
        )
    }
}
