//! Looking things up in the recent past: messages, earlier copies of a command, pages of a chat.
//!
//! `None` means "not here": the caller asks the projection.

use bytes::Bytes;
use shared::{
    event::{Event, Fact, Head, Reacted},
    fold::ChatState,
    id::{ChatId, Seq, UserId},
};
use sql::PageFrom;
use uuid::Uuid;

use super::{State, apply::command_hash, ring::Verdict};

/// What the checks of a command need to know of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageFact {
    pub author: UserId,
    pub deleted: bool,
}

/// A stored event that may be an earlier copy of a command.
#[derive(Debug, Clone)]
pub struct Copy {
    pub seq: Seq,
    pub ts: u64,
    pub verdict: Verdict,
    pub payload: Bytes,
}

impl State {
    /// The message at `seq` of a loaded chat. `None`: not in the ring. `Some(None)`: it is no message of the chat.
    pub fn message(&self, chat: ChatId, seq: Seq) -> Option<Option<MessageFact>> {
        let slot = self.ring.get(seq)?;
        if slot.chat != Some(chat) {
            return Some(None);
        }
        let event = Event::decode(&slot.payload).ok();
        match (slot.verdict, event) {
            (Verdict::Unknown, _) => None,
            (Verdict::Valid, Some(Event { actor, fact: Fact::MessageSent(_), .. })) => {
                Some(Some(MessageFact { author: actor, deleted: slot.deleted }))
            }
            _ => Some(None),
        }
    }

    /// The first event of the actor in the chat with this uuid, as far as the ring goes back.
    pub fn copy_of(&self, chat: ChatId, actor: UserId, uuid: Uuid) -> Option<Copy> {
        let copy = self.copy_at(self.ring.first_copy(command_hash(chat, actor, uuid))?)?;
        let (head, _) = Head::read(&copy.payload).ok()?;
        (head.uuid == uuid && head.actor == actor).then_some(copy)
    }

    /// The entry at `seq` as a possible copy of a command.
    pub fn copy_at(&self, seq: Seq) -> Option<Copy> {
        self.ring.get(seq).map(|slot| Copy {
            seq,
            ts: slot.ts,
            verdict: slot.verdict,
            payload: slot.payload.clone(),
        })
    }

    /// The state and head of a loaded chat, in which the user is a member.
    pub fn membership(&self, chat: ChatId, user: UserId) -> Option<(&ChatState, Seq)> {
        let chat = self.loaded(chat)?;
        let state = chat.state.as_ref().filter(|state| state.members.contains(user))?;
        Some((state, chat.head))
    }

    /// The valid reactions to a message that came after `after`, as far as they are in the ring.
    pub fn reactions(&self, chat: ChatId, message: Seq, after: Seq) -> Vec<Reacted> {
        let newer = self.ring.chain(chat).take_while(|(seq, _)| *seq > after);
        let valid = newer.filter(|(_, slot)| slot.verdict == Verdict::Valid);
        valid
            .filter_map(|(_, slot)| match Event::decode(&slot.payload).ok()?.fact {
                Fact::Reacted(reacted) if reacted.seq == message => Some(reacted),
                _ => None,
            })
            .collect()
    }

    /// A page of a loaded chat, ascending, and whether more lies beyond it. `None`: it reaches below the ring.
    pub fn page(&self, chat: ChatId, from: PageFrom, limit: usize) -> Option<(Vec<Seq>, bool)> {
        let valid = self.ring.chain(chat).filter(|(_, slot)| slot.verdict == Verdict::Valid);
        match from {
            PageFrom::After(after) => {
                let mut newer = Vec::new();
                let mut reached = self.loaded(chat)?.head <= after;
                for (seq, slot) in valid.take_while(|(seq, _)| *seq > after) {
                    newer.push(seq);
                    reached = slot.prev <= after;
                }
                newer.reverse();
                let more = newer.len() > limit;
                newer.truncate(limit);
                reached.then_some((newer, more))
            }
            PageFrom::Before(before) => {
                let mut older = Vec::new();
                let mut first_prev = None;
                for (seq, slot) in valid.skip_while(|(seq, _)| *seq >= before).take(limit) {
                    older.push(seq);
                    first_prev = Some(slot.prev);
                }
                older.reverse();
                let begins = first_prev == Some(Seq::ZERO);
                (older.len() == limit || begins).then_some((older, !begins))
            }
        }
    }
}
