//! Judging the ring's entries of a loaded chat: the verdict, `prev` (the chat's valid event before it), the bodies that
//! are withheld, and the local users that come and go with it.
//!
//! Invariants: a chat's entries are judged in the log's order, each once; the fold's verdict depends on the log alone,
//! so every reader comes to the same one. Where the ring does not go back far enough to tell whether an entry repeats an
//! earlier command, the entry and all later ones of its chat wait for the projection's answer (`feed::loader`).

use std::collections::HashMap;

use shared::{
    code::Code,
    event::{Event, Head, Kind},
    fold,
    frame::{self, ServerFrame},
    id::{ChatId, Seq, UserId},
};
use uuid::Uuid;

use super::{
    State,
    facts::{Revision, joining, leaving, revision},
    ring::{Entry, Verdict},
    verdict::Key,
};

/// What became of a chat's next entry.
#[derive(Debug)]
pub(super) enum Judged {
    Valid(Event),
    Void,
    /// The ring can't tell whether the entry repeats an earlier command. It has no verdict, and nor may any later entry of
    /// the chat get one before the projection was asked.
    Doubtful,
}

/// What is known of doubtful entries of a chat: from the projection, and from the log between it and the ring.
#[derive(Debug, Clone, Default)]
pub struct Looked {
    /// All copies up to here were looked through.
    pub upto: Seq,
    /// For each entry the first copy of its command, if that is an earlier one.
    pub firsts: HashMap<Seq, Option<Seq>>,
}

impl Looked {
    /// `None`: the entry was not looked up, or the ring no longer has all entries that were not looked through.
    pub(super) fn first(&self, seq: Seq, floor: Seq) -> Option<Option<Seq>> {
        self.firsts.get(&seq).copied().filter(|_| self.upto >= floor)
    }
}

impl State {
    /// Judges the chat's next entry by the fold.
    pub(super) fn judge(&mut self, chat: ChatId, seq: Seq, looked: &Looked) -> Judged {
        let Some(event) = self.decode(seq) else { return Judged::Void };
        let first = match self.earlier_copy(seq, &event) {
            // The fold alone judges it.
            _ if event.fact.kind() == Kind::ChatCreated => None,
            Some(first) => Some(first),
            None if self.is_doubtful(seq, &head_of(&event)) => match looked.first(seq, self.ring.floor().seq)
            {
                Some(first) => first,
                None => return Judged::Doubtful,
            },
            None => None,
        };
        let Some(state) = self.chats.get_mut(&chat).map(|chat| &mut chat.state) else { return Judged::Void };
        let verdict = match (fold::judge(state, seq, &event, first.is_some()), first) {
            (Ok(()), _) => {
                self.mark_valid(chat, seq, &event);
                return Judged::Valid(event);
            }
            (Err(_), Some(first)) => Verdict::Repeat(first),
            (Err(code), None) => Verdict::Void(code),
        };
        if let Some(entry) = self.ring.get_mut(seq) {
            entry.verdict = verdict;
        }
        Judged::Void
    }

    /// Whether an entry of which the ring has no earlier copy may repeat a command that is older than the ring.
    fn is_doubtful(&self, seq: Seq, head: &Head<'_>) -> bool {
        let is_new = || {
            let ts = self.ring.get(seq).map(|entry| entry.ts);
            ts.is_some_and(|ts| self.marks.proves_new(head.actor, head.uuid, ts))
        };
        fold::is_doubtful(head.kind, head.unique_as_of, self.ring.floor().seq, is_new)
    }

    /// The entries of a chat after `upto` that the ring cannot judge by itself, and their commands. Some may be bytes whose
    /// head alone can be read: the data of so many entries is not decoded under the lock.
    pub(super) fn doubtful(&self, chat: ChatId, upto: Seq) -> Vec<(Seq, Key)> {
        let newer = self.ring.chain(chat).take_while(|(seq, _)| *seq > upto);
        newer
            .filter_map(|(seq, entry)| {
                let (head, _) = Head::read(&entry.payload).ok()?;
                let key = Key { chat, actor: head.actor, uuid: head.uuid };
                self.is_doubtful(seq, &head).then_some((seq, key))
            })
            .collect()
    }

    /// Decodes the event of an entry. Marks an entry that is no event as void, as it is for every reader.
    pub(super) fn decode(&mut self, seq: Seq) -> Option<Event> {
        let entry = self.ring.get_mut(seq)?;
        let event = Event::decode(&entry.payload).ok();
        if event.is_none() {
            entry.verdict = Verdict::Void(Code::CommandInvalid);
        }
        event
    }

    /// Makes a valid event the chat's newest one.
    pub(super) fn mark_valid(&mut self, chat_id: ChatId, seq: Seq, event: &Event) {
        let (Some(entry), Some(chat)) = (self.ring.get_mut(seq), self.chats.get_mut(&chat_id)) else {
            return;
        };
        entry.verdict = Verdict::Valid;
        // A deletion that the log has lost since may have set it.
        entry.deleted = false;
        entry.prev = std::mem::replace(&mut chat.head, seq);
        match revision(&event.fact) {
            Some(Revision::Delete(target)) => self.withhold(chat_id, target),
            // An edit of a message that is deleted already: its body must not come back.
            Some(Revision::Edit(target)) if self.ring.get(target).is_some_and(|entry| entry.deleted) => {
                if let Some(entry) = self.ring.get_mut(seq) {
                    entry.deleted = true;
                }
            }
            Some(Revision::Edit(_)) | None => {}
        }
    }

    /// The first entry before this one that holds the same command and counts, as far as the ring goes back.
    pub(super) fn earlier_copy(&self, seq: Seq, event: &Event) -> Option<Seq> {
        let newest_first = self.ring.copies(self.ring.get(seq)?.command);
        let counts = |(at, entry): &(Seq, &Entry)| {
            *at < seq && entry.verdict != Verdict::Void(fold::STALE) && entry.holds(event.actor, event.uuid)
        };
        newest_first.filter(counts).last().map(|(at, entry)| match entry.verdict {
            Verdict::Repeat(first) => first,
            Verdict::Unknown | Verdict::Valid | Verdict::Void(_) => at,
        })
    }

    /// Marks a deleted message and its edits, as far as they are in the ring: they are replayed without their bodies.
    fn withhold(&mut self, chat: ChatId, target: Seq) {
        let of_target: Vec<Seq> = self
            .ring
            .chain(chat)
            .take_while(|(seq, _)| *seq >= target)
            .filter(|(seq, entry)| *seq == target || entry.edits() == Some(target))
            .map(|(seq, _)| seq)
            .collect();
        for seq in of_target {
            if let Some(entry) = self.ring.get_mut(seq) {
                entry.deleted = true;
            }
        }
    }

    /// Records the local users that a valid event makes members.
    pub(super) fn take_members(&mut self, chat_id: ChatId, seq: Seq, event: &Event) {
        let Some(chat) = self.chats.get_mut(&chat_id) else { return };
        for user in joining(&event.fact) {
            let Some(slot) = self.slots.get(&user).copied() else { continue };
            let Some(user) = self.users.get_mut(slot as usize) else { continue };
            user.join(chat_id, seq);
            chat.link(slot);
        }
    }

    /// Records that a valid event removes a local user.
    pub(super) fn drop_members(&mut self, chat_id: ChatId, seq: Seq, event: &Event) {
        let Some(user) = leaving(&event.fact) else { return };
        let Some(slot) = self.slots.get(&user).copied() else { return };
        let floor = self.ring.floor().seq;
        if let Some(user) = self.users.get_mut(slot as usize) {
            user.leave(chat_id, seq, floor);
        }
        if let Some(chat) = self.chats.get_mut(&chat_id) {
            chat.unlink(slot);
        }
    }
}

fn head_of(event: &Event) -> Head<'_> {
    let Event { actor, device, uuid, fact, unique_as_of } = event;
    Head { kind: fact.kind(), actor: *actor, device, uuid: *uuid, unique_as_of: *unique_as_of }
}

impl Entry {
    /// Whether the entry is an event of this user with this uuid. An entry that does not decode is none.
    pub(super) fn holds(&self, actor: UserId, uuid: Uuid) -> bool {
        Event::decode(&self.payload).is_ok_and(|event| event.actor == actor && event.uuid == uuid)
    }

    /// The message that this entry edits, if it is an edit.
    fn edits(&self) -> Option<Seq> {
        let event = (self.kind == Kind::MessageEdited).then(|| Event::decode(&self.payload))?.ok()?;
        match revision(&event.fact)? {
            Revision::Edit(target) => Some(target),
            Revision::Delete(_) => None,
        }
    }

    /// The event's frame. It is not kept: making it again takes a fraction of a microsecond, and keeping it would
    /// double the ring. `None`: the entry is no event of a chat.
    pub fn frame(&self, seq: Seq) -> Option<ServerFrame> {
        let event = Event::decode(&self.payload).ok()?;
        Some(frame::delivered(self.chat?, seq, self.prev, self.ts, &event, self.deleted))
    }
}
