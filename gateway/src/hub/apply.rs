//! Applying the log's next entries: ring, fold, fan-out.
//!
//! An entry of a chat that no local device wants costs a ring slot and a look at its head, no more.

use std::{
    hash::BuildHasher,
    sync::{Arc, LazyLock},
};

use foldhash::fast::RandomState;
use shared::{
    code::Code,
    event::{DecodeError, Event, Fact, Head, Kind},
    fold,
    frame::ServerFrame,
    id::{ChatId, Seq, UserId},
};
use streams::Entry;
use uuid::Uuid;

use super::{
    Hub, State, UserSlot,
    chat::Chat,
    ring::{self, Verdict},
};
use crate::session::{
    Lane, Session,
    wire::{self, Encoded},
};

/// The log holds an event that this build cannot judge: only a newer build may go on.
#[derive(Debug, thiserror::Error)]
#[error("entry {seq} of the log: {source}")]
pub struct TooNew {
    pub seq: Seq,
    #[source]
    pub source: DecodeError,
}

/// Entries applied in one hold of the lock: about 100 µs, so that sessions that start are not kept waiting.
const BATCH: usize = 64;

impl Hub {
    /// Applies entries in the log's order. They continue at the hub's position.
    ///
    /// # Errors
    /// [`TooNew`]; the entries before it are applied.
    pub fn apply(&self, entries: &[Entry]) -> Result<(), TooNew> {
        for batch in entries.chunks(BATCH) {
            let now_ms = self.clock.now_ms();
            let mut state = self.lock();
            state.applied_ms = now_ms;
            let outcome = batch.iter().try_for_each(|entry| self.apply_one(&mut state, entry, now_ms));
            let position = state.ring.position().seq;
            drop(state);
            self.announce(position);
            outcome?;
        }
        Ok(())
    }

    fn apply_one(&self, state: &mut State, entry: &Entry, now_ms: u64) -> Result<(), TooNew> {
        // Only a sampled append has a parent to be followed.
        let span = entry.traceparent.as_deref().map(|parent| {
            let span = tracing::info_span!("deliver chat", otel.kind = "consumer", messaging.system = "nats");
            otel::set_parent(&span, parent);
            span.entered()
        });
        let outcome = self.take(state, entry, now_ms);
        drop(span);
        outcome
    }

    fn take(&self, state: &mut State, entry: &Entry, now_ms: u64) -> Result<(), TooNew> {
        let head = match Head::read(&entry.payload) {
            Ok((head, _)) => Some(head),
            Err(error) if error.is_corrupt() => None,
            Err(source) => return Err(TooNew { seq: entry.seq, source }),
        };
        let kind = head.map_or(Kind::Noop, |head| head.kind);
        let chat = entry.chat.filter(|_| head.is_some());
        let seq = state.ring.push(ring::Slot {
            id: entry.id,
            ts: entry.ts_ms,
            chat,
            link: Seq::ZERO,
            prev: Seq::ZERO,
            verdict: if head.is_some() { Verdict::Unknown } else { Verdict::Void(Code::CommandInvalid) },
            kind,
            command: head.zip(entry.chat).map_or(0, |(head, chat)| command_hash(chat, head.actor, head.uuid)),
            alike: 0,
            deleted: false,
            payload: entry.payload.clone(),
        });
        debug_assert_eq!(seq, entry.seq, "the tail is dense");
        if kind.changes_members() {
            let floor = state.ring.floor().seq;
            while state.membership.front().is_some_and(|oldest| *oldest <= floor) {
                state.membership.pop_front();
            }
            state.membership.push_back(seq);
        }
        let Some(chat) = chat else { return Ok(()) };
        match state.chats.get(&chat).map(|chat| chat.loaded) {
            Some(true) => self.judge_and_deliver(state, chat, seq, entry, now_ms),
            Some(false) => self.hold_back(state, chat, seq),
            None if kind.changes_members() => self.meet(state, chat, seq, entry, now_ms),
            None => {}
        }
        Ok(())
    }

    fn judge_and_deliver(&self, state: &mut State, chat: ChatId, seq: Seq, entry: &Entry, now_ms: u64) {
        // The head was readable, so what does not decode is corrupt, and void for everyone.
        let event = Event::decode(&entry.payload).ok();
        let valid = event.as_ref().is_some_and(|event| state.judge(chat, seq, event));
        if valid && let Some(event) = &event {
            state.take_members(chat, seq, event);
            self.deliver(state, chat, seq, entry.appended_ns / 1_000, now_ms);
            state.drop_members(chat, seq, event);
        }
        self.settle(state, seq);
    }

    /// An entry of a chat whose state is on the way: the users it may concern wait for it.
    fn hold_back(&self, state: &mut State, chat: ChatId, seq: Seq) {
        let behind = &mut state.behind;
        for (_, user) in state.users.iter().filter(|(_, user)| user.pending.contains(&chat)) {
            for session in user.sessions.iter().filter(|session| session.lane() == Lane::Live) {
                leave_live(session, Seq(seq.get() - 1), behind);
            }
        }
    }

    /// A chat that nobody here knows, and an event that may bring local members.
    fn meet(&self, state: &mut State, chat: ChatId, seq: Seq, entry: &Entry, now_ms: u64) {
        let Ok(event) = Event::decode(&entry.payload) else { return };
        let users = joining(&event);
        let locals: Vec<UserSlot> = users.iter().filter_map(|user| state.slots.get(user).copied()).collect();
        if locals.is_empty() {
            return;
        }
        if matches!(event.fact, Fact::ChatCreated(_))
            && state.ring.get(seq).is_some_and(|slot| slot.link == Seq::ZERO)
        {
            // The chat begins here (the append of `ChatCreated` demands an empty subject), so its state is whole.
            state.chats.insert(chat, Chat { loaded: true, used_ms: now_ms, ..Chat::default() });
            return self.judge_and_deliver(state, chat, seq, entry, now_ms);
        }
        state.chats.insert(chat, Chat { used_ms: now_ms, ..Chat::default() });
        state.wanted.push(chat);
        for slot in locals {
            if let Some(user) = state.users.get_mut(slot as usize) {
                user.pending.push(chat);
            }
        }
        self.hold_back(state, chat, seq);
    }

    /// Queues the event at `seq` to every live local session of the chat.
    fn deliver(&self, state: &mut State, chat: ChatId, seq: Seq, stored_us: u64, now_ms: u64) {
        let State { ring, chats, users, behind, .. } = state;
        let Some(chat) = chats.get(&chat) else { return };
        let Some(mut frame) = ring.get(seq).and_then(|slot| slot.frame(seq)).map(Encoded::new) else {
            return;
        };
        let mut delivered = 0;
        for local in &chat.locals {
            let Some(user) = users.get(*local as usize) else { continue };
            for session in user.sessions.iter().filter(|session| session.lane() == Lane::Live) {
                if session.push_durable(frame.of(session.identity.encoding), seq, stored_us, now_ms) {
                    delivered += 1;
                } else {
                    self.metrics.lagging_total.inc();
                    overflow(session, seq, behind, now_ms);
                }
            }
        }
        if delivered > 0 {
            self.serves(now_ms);
            self.metrics.delivered_total.inc_by(delivered);
        }
    }
}

/// For the ring's index of commands; a collision is told from a copy by the entry itself. Uuids are the clients', so the
/// hash is seeded: without the seed nobody can make many of them collide.
pub fn command_hash(chat: ChatId, actor: UserId, uuid: Uuid) -> u64 {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    SEED.hash_one((chat, actor, uuid)) | 1
}

/// The users that an event makes members.
pub fn joining(event: &Event) -> Vec<UserId> {
    match &event.fact {
        Fact::ChatCreated(created) => created.members.iter().map(|member| member.user_id).collect(),
        Fact::MembersJoined(joined) => joined.members.iter().map(|member| member.user_id).collect(),
        _ => Vec::new(),
    }
}

/// Moves a session that has no room left out of the live lane; it is told, and reads the log from what it has.
fn overflow(session: &Arc<Session>, position: Seq, behind: &mut Vec<Arc<Session>>, now_ms: u64) {
    let (written, dropped) = session.fall_behind();
    let lagging = shared::frame::Lagging { behind: dropped as u64 + 1 };
    session.push_control(wire::encode(&lagging.into(), session.identity.encoding), now_ms);
    debug_assert!(written < position, "what is queued now was not written");
    session.set_lane(Lane::CatchUp);
    session.set_fed(written);
    behind.push(session.clone());
}

/// Moves a session out of the live lane without a word: it has all up to `fed`.
fn leave_live(session: &Arc<Session>, fed: Seq, behind: &mut Vec<Arc<Session>>) {
    session.set_lane(Lane::CatchUp);
    session.set_fed(fed);
    behind.push(session.clone());
}

impl State {
    /// Folds the chat's entry at `seq`: verdict, `prev`, head, deletions. Whether it is valid.
    pub(super) fn judge(&mut self, chat_id: ChatId, seq: Seq, event: &Event) -> bool {
        if let Some(first) = self.earlier_copy(seq, event) {
            if let Some(slot) = self.ring.get_mut(seq) {
                slot.verdict = Verdict::Repeat(first);
            }
            return false;
        }
        let Some(chat) = self.chats.get_mut(&chat_id) else { return false };
        let verdict = fold::apply(&mut chat.state, event);
        let Some(slot) = self.ring.get_mut(seq) else { return false };
        match verdict {
            Err(code) => slot.verdict = Verdict::Void(code),
            Ok(()) => {
                slot.verdict = Verdict::Valid;
                slot.prev = std::mem::replace(&mut chat.head, seq);
                if let Fact::MessageDeleted(deleted) = &event.fact {
                    self.blank(chat_id, deleted.seq);
                } else if let Fact::MessageEdited(edited) = &event.fact {
                    // An edit that comes after the deletion says nothing any more.
                    let blank = self.ring.get(edited.seq).is_some_and(|slot| slot.deleted);
                    if let Some(slot) = self.ring.get_mut(seq).filter(|_| blank) {
                        slot.deleted = true;
                    }
                }
            }
        }
        verdict.is_ok()
    }

    /// The entry that holds the same command already. The log's dedupe window and the look-ups before an append
    /// make a second copy all but impossible; the projection's unique key voids it, and so does this.
    fn earlier_copy(&self, seq: Seq, event: &Event) -> Option<Seq> {
        let first = self.ring.first_copy(self.ring.get(seq)?.command).filter(|first| *first < seq)?;
        let (head, _) = Head::read(&self.ring.get(first)?.payload).ok()?;
        (head.uuid == event.uuid && head.actor == event.actor).then_some(first)
    }

    /// Takes the body out of a deleted message and of its edits, as far as they are in the ring.
    pub(super) fn blank(&mut self, chat: ChatId, target: Seq) {
        let edits: Vec<Seq> = self
            .ring
            .chain(chat)
            .take_while(|(seq, _)| *seq >= target)
            .filter(|(seq, slot)| *seq == target || slot.edits() == Some(target))
            .map(|(seq, _)| seq)
            .collect();
        for seq in edits {
            if let Some(slot) = self.ring.get_mut(seq) {
                slot.deleted = true;
            }
        }
    }

    /// Links the local users that the event made members.
    pub(super) fn take_members(&mut self, chat_id: ChatId, seq: Seq, event: &Event) {
        let Some(chat) = self.chats.get_mut(&chat_id) else { return };
        for user in joining(event) {
            let Some(slot) = self.slots.get(&user).copied() else { continue };
            let Some(user) = self.users.get_mut(slot as usize) else { continue };
            user.join(chat_id, seq);
            chat.link(slot);
        }
    }

    /// Unlinks the local user that the event removed.
    pub(super) fn drop_members(&mut self, chat_id: ChatId, seq: Seq, event: &Event) {
        let Fact::MemberLeft(left) = &event.fact else { return };
        let Some(slot) = self.slots.get(&left.user_id).copied() else { return };
        let floor = self.ring.floor().seq;
        if let Some(user) = self.users.get_mut(slot as usize) {
            user.leave(chat_id, seq, floor);
        }
        if let Some(chat) = self.chats.get_mut(&chat_id) {
            chat.unlink(slot);
        }
    }
}

impl ring::Slot {
    /// The message that this entry edits, if it is an edit.
    pub fn edits(&self) -> Option<Seq> {
        match (self.kind == Kind::MessageEdited).then(|| Event::decode(&self.payload))?.ok()?.fact {
            Fact::MessageEdited(edited) => Some(edited.seq),
            _ => None,
        }
    }

    /// The event's frame. It is not kept: to make it again for a replay takes a fraction of a microsecond, and to
    /// keep it would double the ring. `None` only for bytes that are no event.
    pub fn frame(&self, seq: Seq) -> Option<ServerFrame> {
        let event = Event::decode(&self.payload).ok()?;
        Some(shared::frame::delivered(self.chat?, seq, self.prev, self.ts, &event, self.deleted))
    }
}
