//! The rules: from the log's next entries and the chats' states to the rows to write. Pure: no clock, no I/O.
//!
//! Invariants: the same log gives the same rows however it is cut into batches; every valid event gets a row, with
//! `prev` the chat's valid event before it and messages numbered densely; of several events with one idempotency key
//! only the first counts, except that a stale one is as if it were not there.

mod chats;
mod membership;
mod slice;

use std::collections::{BTreeMap, HashSet};

use foldhash::fast::RandomState;
use shared::{
    code::Code,
    event::{Event, Fact},
    fold,
    id::{ChatId, Seq, UserId},
    window,
};
use sql::{
    kind::sends_a_message,
    projection::{AheadCommand, DeadLetter, Key, NewEvent, OwnMark, Refused, Rows},
};
use streams::Entry;

pub use self::slice::{Decoded, Slice, TooNew, slices};
use self::{chats::Chats, membership::Membership};
use crate::cache::{Cache, Chat};

/// Idempotency keys under which a command is stored.
pub type Keys = HashSet<Key, RandomState>;

/// Folds the entries into rows. Their chats are in the cache, which is afterwards as of the last entry. `stored` are
/// those of their keys under which the database holds an earlier command.
pub fn project<'a>(cache: &mut Cache, decoded: &[Decoded<'a>], stored: &Keys) -> Rows<'a> {
    let mut batch = Batch::default();
    for Decoded { chat, entry, event } in decoded {
        match event {
            Ok(event) => batch.take(cache, stored, *chat, entry, event),
            Err(error) => batch.rows.dead_letters.push(DeadLetter {
                seq: entry.seq,
                id: entry.id,
                ts_ms: entry.ts_ms,
                reason: error.to_string(),
                payload: &entry.payload,
            }),
        }
    }
    batch.finish(cache)
}

#[derive(Default)]
struct Batch<'a> {
    rows: Rows<'a>,
    seen: Keys,
    chats: Chats,
    membership: Membership,
    own_marks: BTreeMap<(ChatId, UserId), Seq>,
}

impl<'a> Batch<'a> {
    fn take(&mut self, cache: &mut Cache, stored: &Keys, id: ChatId, entry: &'a Entry, event: &Event) {
        // The caller has to load the chats. Without that, the chat would be folded as one that does not exist.
        if !cache.contains(id) {
            debug_assert!(false, "chat {id} was not loaded");
            cache.insert(id, Chat::default());
        }
        let Some(chat) = cache.get_mut(id) else { return };
        // Also of a void event: a copy of it may come later.
        if let Some(until_ms) = window::ahead_until(event.uuid, entry.ts_ms) {
            self.rows.ahead.push(AheadCommand { seq: entry.seq, user: event.actor, until_ms });
        }
        let key = (id, event.actor, event.uuid);
        let repeats = stored.contains(&key) || self.seen.contains(&key);
        let verdict = fold::judge(&mut chat.state, entry.seq, event, repeats);
        if fold::is_copy(verdict) {
            self.seen.insert(key);
        }
        match verdict {
            Ok(()) => self.valid(chat, id, entry, event),
            Err(code) => {
                chat.has_refused = true;
                self.rows.refused.push(refused(id, entry, event, code));
            }
        }
    }

    fn valid(&mut self, chat: &mut Chat, id: ChatId, entry: &'a Entry, event: &Event) {
        let seq = entry.seq;
        if sends_a_message(event.fact.kind()) {
            chat.n += 1;
            chat.message_seq = seq;
            self.own_marks.insert((id, event.actor), seq);
        }
        self.rows.events.push(NewEvent {
            chat: id,
            seq,
            prev: std::mem::replace(&mut chat.head, seq),
            message_seq: chat.message_seq,
            n: chat.n,
            id: entry.id,
            ts_ms: entry.ts_ms,
            kind: event.fact.kind(),
            actor: event.actor,
            uuid: event.uuid,
            target: target(&event.fact),
            payload: &entry.payload,
        });
        self.chats.apply(id, entry, &event.fact);
        self.membership.apply(id, entry, &event.fact);
        self.rows.messages.apply(id, seq, entry.ts_ms, event, &entry.payload);
    }

    fn finish(mut self, cache: &mut Cache) -> Rows<'a> {
        self.chats.finish(cache, &mut self.rows);
        self.membership.finish(&mut self.rows);
        let mark = |((chat, user), seq)| OwnMark { chat, user, seq };
        self.rows.own_marks = self.own_marks.into_iter().map(mark).collect();
        self.rows
    }
}

fn refused<'a>(chat: ChatId, entry: &'a Entry, event: &Event, code: Code) -> Refused<'a> {
    Refused {
        chat,
        seq: entry.seq,
        id: entry.id,
        ts_ms: entry.ts_ms,
        actor: event.actor,
        uuid: event.uuid,
        code,
        payload: &entry.payload,
    }
}

/// The message that an event concerns.
fn target(fact: &Fact) -> Option<Seq> {
    match fact {
        Fact::MessageEdited(edited) => Some(edited.seq),
        Fact::MessageDeleted(deleted) => Some(deleted.seq),
        Fact::Reacted(reacted) => Some(reacted.seq),
        Fact::ChatCreated(_)
        | Fact::MessageSent(_)
        | Fact::MembersJoined(_)
        | Fact::MemberLeft(_)
        | Fact::RoleChanged(_)
        | Fact::TitleChanged(_)
        | Fact::SettingsChanged(_)
        | Fact::Noop => None,
    }
}
