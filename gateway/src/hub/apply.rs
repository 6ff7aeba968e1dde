//! Applying the log's next entries: each goes into the ring, is judged, and is queued to the live local sessions.
//!
//! Invariants: an entry of a chat that is not loaded costs its place in the ring and a look at its head, and, if it may
//! change members, a look at who they are; a session without room leaves the live lane and costs the others nothing; an
//! event of a chat whose state is not here is withheld from the users who may be its members, and from nobody else.

use std::sync::Arc;

use shared::{
    code::Code,
    event::{DecodeError, Event, Head, Kind},
    id::{ChatId, Seq},
};
use streams::Entry;

use super::{
    Hub, State, UserSlot,
    chat::Chat,
    facts::joining,
    judge::{Judged, Looked},
    ring::{self, Verdict, command_hash},
};
use crate::session::{
    Lane, Session,
    wire::{self, Encoded},
};

/// The log holds an event that only a newer build can judge. The gateway must stop before it.
#[derive(Debug, thiserror::Error)]
#[error("entry {seq} of the log: {source}")]
pub struct TooNew {
    pub seq: Seq,
    #[source]
    pub source: DecodeError,
}

/// Entries applied in one hold of the lock. It takes about 100 µs, so sessions that start do not wait for long.
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
        // Only an append that was sampled has a trace to continue.
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
        if let Some(head) = head.filter(|_| entry.chat.is_some()) {
            state.marks.note(head.actor, head.uuid, entry.ts_ms);
        }
        let kind = head.map_or(Kind::Noop, |head| head.kind);
        let chat = entry.chat.filter(|_| head.is_some());
        let seq = state.ring.push(ring::Entry {
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
            Some(false) => {
                let joining = if kind.changes_members() { state.joining_locals(entry) } else { Vec::new() };
                hold_back(state, chat, seq, &joining);
            }
            None if kind.changes_members() => self.meet(state, chat, seq, entry, now_ms),
            None => {}
        }
        Ok(())
    }

    fn judge_and_deliver(&self, state: &mut State, chat: ChatId, seq: Seq, entry: &Entry, now_ms: u64) {
        match state.judge(chat, seq, &Looked::default()) {
            Judged::Valid(event) => {
                // The users whom the event adds get it, and so does the user whom it removes.
                state.take_members(chat, seq, &event);
                self.deliver(state, chat, seq, entry.appended_ns / 1_000, now_ms);
                state.drop_members(chat, seq, &event);
            }
            Judged::Void => {}
            Judged::Doubtful => {
                self.metrics.doubtful_total.inc();
                let mut waiting = state.unload(chat);
                if state.ring.get(seq).is_some_and(|entry| entry.kind.changes_members()) {
                    waiting.extend(state.joining_locals(entry));
                }
                hold_back(state, chat, seq, &waiting);
                return;
            }
        }
        self.settle(state, seq);
    }

    /// Takes an event that may make local users members of a chat whose state nobody has asked for yet.
    fn meet(&self, state: &mut State, chat: ChatId, seq: Seq, entry: &Entry, now_ms: u64) {
        let joining = state.joining_locals(entry);
        if joining.is_empty() {
            return;
        }
        // The append of `ChatCreated` demands an empty subject. So nothing of the chat is older, and there is nothing
        // to load.
        let begins = state
            .ring
            .get(seq)
            .is_some_and(|entry| entry.kind == Kind::ChatCreated && entry.link == Seq::ZERO);
        state.chats.insert(chat, Chat { loaded: begins, used_ms: now_ms, ..Chat::default() });
        if begins {
            return self.judge_and_deliver(state, chat, seq, entry, now_ms);
        }
        state.wanted.push(chat);
        hold_back(state, chat, seq, &joining);
    }

    /// Queues the event at `seq` to every live local session of the chat.
    fn deliver(&self, state: &mut State, chat: ChatId, seq: Seq, stored_us: u64, now_ms: u64) {
        let State { ring, chats, users, behind, .. } = state;
        let (Some(here), Some(entry)) = (chats.get(&chat), ring.get(seq)) else { return };
        let Some(mut full) = entry.frame(seq).map(Encoded::new) else { return };
        let names = here.hidden_name(entry);
        let mut hidden = names.and_then(|_| entry.frame_without_name(seq)).map(Encoded::new);
        let mut delivered = 0;
        for local in &here.locals {
            let Some(user) = users.get(*local as usize) else { continue };
            let frame = match (names, &mut hidden) {
                (Some(message), Some(hidden)) if !user.entitled(chat, message) => hidden,
                _ => &mut full,
            };
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

/// Takes an entry of a chat whose state is being loaded. The members are not known, so the event may concern every
/// user who waits for the chat, the `joining` ones from now on. Their sessions leave the live lane: a catch-up feeds
/// them once the state is here.
fn hold_back(state: &mut State, chat: ChatId, seq: Seq, joining: &[UserSlot]) {
    let State { users, behind, .. } = state;
    for slot in joining {
        if let Some(user) = users.get_mut(*slot as usize).filter(|user| !user.pending.contains(&chat)) {
            user.pending.push(chat);
        }
    }
    for (_, user) in users.iter().filter(|(_, user)| user.pending.contains(&chat)) {
        for session in user.sessions.iter().filter(|session| session.lane() == Lane::Live) {
            leave_live(session, Seq(seq.get() - 1), behind);
        }
    }
}

impl State {
    /// Stops judging a chat: its state is to be loaded anew. Returns its local members.
    fn unload(&mut self, id: ChatId) -> Vec<UserSlot> {
        let Some(chat) = self.chats.get_mut(&id) else { return Vec::new() };
        chat.loaded = false;
        self.wanted.push(id);
        std::mem::take(&mut chat.locals).into_vec()
    }

    /// The local users that an entry would make members, if it is valid.
    fn joining_locals(&self, entry: &Entry) -> Vec<UserSlot> {
        let Ok(event) = Event::decode(&entry.payload) else { return Vec::new() };
        joining(&event.fact).iter().filter_map(|user| self.slots.get(user).copied()).collect()
    }
}

/// Moves a session without room out of the live lane. Its queued events are dropped and its client is told
/// (`Lagging`). A catch-up will feed it, beginning after the last event that was written.
fn overflow(session: &Arc<Session>, position: Seq, behind: &mut Vec<Arc<Session>>, now_ms: u64) {
    let (written, dropped) = session.fall_behind();
    let lagging = shared::frame::Lagging { behind: dropped as u64 + 1 };
    session.push_control(wire::encode(&lagging.into(), session.identity.encoding), now_ms);
    debug_assert!(written < position, "what is queued now was not written");
    session.leave_live(written);
    behind.push(session.clone());
}

/// Moves a session out of the live lane without telling its client. It has been queued all up to `fed`.
fn leave_live(session: &Arc<Session>, fed: Seq, behind: &mut Vec<Arc<Session>>) {
    session.leave_live(fed);
    behind.push(session.clone());
}

#[cfg(test)]
mod tests;
