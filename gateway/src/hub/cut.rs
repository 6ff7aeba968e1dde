//! The log lost its tail: everything above the cut is void, here as everywhere.
//!
//! A device may hold events that its cursor does not cover, so a cursor below the cut says nothing about what its
//! device has of the void: each session that was fed, by this gateway or by another, in a history before the
//! present one gets its `Reset`s. Only the last of them carries a cursor of the present history: a device that drops
//! among them is told all of them again, and one that has read them all is not shown the void by a gateway that has
//! yet to hear of the cut.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use parking_lot::MutexGuard;
use shared::{
    cursor::Cursor,
    frame,
    id::{ChatId, Position, Seq},
};

use super::{Hub, State, ring::Verdict, user::User};
use crate::{
    command::Failure,
    session::{Lane, Session, close::Close, wire},
};

/// A session that resumed this long before the hub last applied something has nothing from other gateways that the hub
/// has not seen: far longer than one gateway's tail is behind another's while both get anything at all.
const RESUME_DOUBT_MS: u64 = 10_000;

impl Hub {
    /// Enters the history `epoch`, which has nothing of the present one above `cut`: takes that back, tells the
    /// sessions whose chats lost events or may have, and returns all sessions: each must be attached anew, since the
    /// memberships are to be loaded again.
    pub fn cut(&self, cut: Position, epoch: u32) -> Vec<Arc<Session>> {
        let turn = Turn { cut, epoch, now_ms: self.clock.now_ms() };
        let mut state = self.lock();
        for (_, user) in &state.users {
            for session in &user.sessions {
                self.take_back(&state, user, session, &turn);
            }
        }
        state.epoch = epoch;
        if state.ring.position().seq > cut.seq {
            state.ring.cut(cut);
        }
        // What was known to be stored above the cut is gone.
        self.expected.store(cut.seq.get(), Ordering::Release);
        while state.membership.back().is_some_and(|seq| *seq > cut.seq) {
            state.membership.pop_back();
        }
        self.begin_anew(state)
    }

    /// Goes on after `position`: the log no longer has what comes before it. Returns all sessions, as [`Hub::cut`].
    pub fn skip_to(&self, position: Position) -> Vec<Arc<Session>> {
        let mut state = self.lock();
        state.ring.skip_to(position);
        state.membership.clear();
        for session in state.sessions() {
            let (has, _) = session.fall_behind();
            session.set_lane(Lane::CatchUp);
            session.start_at(has);
        }
        self.begin_anew(state)
    }

    /// Forgets all users and chats, whose states are as of another place or history; returns the sessions.
    fn begin_anew(&self, mut state: MutexGuard<'_, State>) -> Vec<Arc<Session>> {
        let sessions = state.sessions().cloned().collect();
        state.users.clear();
        state.slots.clear();
        state.chats.clear();
        let position = state.ring.position().seq;
        // Commands that wait for their verdict may be void; their clients send them again.
        let waiters: Vec<_> = std::mem::take(&mut state.waiters).into_values().flatten().collect();
        drop(state);
        for waiter in waiters {
            self.answer(waiter, Err(Failure::log_unavailable()));
        }
        self.announce(position);
        sessions
    }

    fn take_back(&self, state: &State, user: &User, session: &Session, turn: &Turn) {
        let tip = state.ring.position().seq;
        let queued = if session.lane() == Lane::Live { tip } else { session.fed() };
        let (written, dropped) = session.fall_behind();
        let has = if dropped == 0 { queued } else { written }.min(turn.cut.seq);
        session.set_lane(Lane::CatchUp);
        session.start_at(has);
        let doubtful = session.resumed_ms().is_some_and(|since| since + RESUME_DOUBT_MS > state.applied_ms);
        let lost = |chat: &ChatId| state.loaded(*chat).is_none_or(|chat| chat.head > turn.cut.seq);
        let told: Vec<ChatId> =
            user.chats().chain(user.left_chats()).filter(|chat| doubtful || lost(chat)).collect();
        let id = if has == turn.cut.seq { Some(turn.cut.id) } else { state.ring.id_at(has) };
        match id.filter(|_| turn.cut.seq >= state.ring.floor().seq) {
            Some(_) if told.is_empty() => {}
            Some(id) => {
                let from = Cursor { epoch: state.epoch, position: Position { seq: has, id } };
                self.reset(state, session, &told, from, turn);
            }
            // Below the ring nobody here knows what it had, or what it has left since. Its device comes back with its
            // cursor, and is told then.
            None => session.close(Close::Internal, turn.now_ms),
        }
    }

    /// Brings a session that resumes from a cursor of a former history into the present one: tells it of all its
    /// chats, those that it left since included, and returns from where it goes on. `None`: its user is not loaded.
    pub fn carry_over(
        &self,
        session: &Session,
        cursor: Cursor,
        cut: Position,
        left: &[ChatId],
    ) -> Option<Cursor> {
        let state = self.lock();
        let user = state.user(session.user())?;
        let chats: BTreeSet<ChatId> =
            user.chats().chain(user.left_chats()).chain(left.iter().copied()).collect();
        let chats: Vec<ChatId> = chats.into_iter().collect();
        let position = if cursor.position.seq > cut.seq { cut } else { cursor.position };
        let turn = Turn { cut, epoch: state.epoch, now_ms: self.clock.now_ms() };
        Some(self.reset(&state, session, &chats, Cursor { position, ..cursor }, &turn))
    }

    /// Queues the `Reset`s of a session that has all up to `from`. The same place in the present history.
    fn reset(&self, state: &State, session: &Session, chats: &[ChatId], from: Cursor, turn: &Turn) -> Cursor {
        let to = Cursor { epoch: turn.epoch, ..from };
        let [former, present] = [from, to].map(|cursor| self.sealer.seal(session.user(), cursor));
        for (index, chat_id) in chats.iter().copied().enumerate() {
            let is_last = index + 1 == chats.len();
            let cursor = if is_last { present.clone() } else { former.clone() };
            let frame = frame::Reset { chat_id, after_seq: state.head_at(chat_id, turn.cut.seq), cursor };
            session.push_control(wire::encode(&frame.into(), session.identity.encoding), turn.now_ms);
        }
        to
    }
}

/// The turn to another history of the log.
struct Turn {
    /// The last that both have.
    cut: Position,
    epoch: u32,
    now_ms: u64,
}

impl State {
    /// The chat's last valid event at or below `seq`; `seq` itself, which is as true in a `Reset`, where that is not
    /// known here.
    fn head_at(&self, chat: ChatId, seq: Seq) -> Seq {
        let Some(head) = self.loaded(chat).map(|chat| chat.head).filter(|_| self.ring.position().seq >= seq)
        else {
            return seq;
        };
        if head <= seq {
            return head;
        }
        let above = self.ring.chain(chat).take_while(|(at, _)| *at > seq);
        let first_above = above.filter(|(_, entry)| entry.verdict == Verdict::Valid).last();
        first_above.map(|(_, entry)| entry.prev).filter(|prev| *prev <= seq).unwrap_or(seq)
    }
}

#[cfg(test)]
mod tests;
