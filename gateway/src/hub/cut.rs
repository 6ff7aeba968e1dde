//! Following a cut: the log has lost all above a position, and devices may hold events that no longer exist.
//!
//! The hub takes the lost entries back and enters the new epoch. It tells each session which chats lost events: a
//! `Reset` per chat. A cursor may lag behind the events on the device, so even a cursor below the cut does not prove
//! that the device has none of the lost events. Therefore a device that comes from a former epoch is told of all its
//! chats.
//!
//! Only the last `Reset` carries a cursor of the new epoch. A device that drops before it has read the last one comes
//! back with a cursor of the former epoch and is told all of them again. A device that has read the last one holds a
//! cursor of the new epoch. A gateway accepts that only once it has followed the cut, so no gateway sends this device
//! the lost events again.

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

/// How far one gateway's tail may trail another's. A device that resumed here longer ago than this holds nothing that
/// this hub has not applied. In practice tails are milliseconds apart.
const RESUME_DOUBT_MS: u64 = 10_000;

impl Hub {
    /// Enters `epoch`, in whose history nothing above `cut` exists. Takes the lost entries back, tells the sessions
    /// whose chats lost events or may have, and forgets all users and chats. Returns all sessions; each must be attached
    /// again once its user is loaded.
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
        state.marks.cut(cut.seq);
        // Entries above the cut that were known to be stored are gone.
        self.expected.store(cut.seq.get(), Ordering::Release);
        while state.membership.back().is_some_and(|seq| *seq > cut.seq) {
            state.membership.pop_back();
        }
        self.begin_anew(state)
    }

    /// Goes on after `position`, because the log no longer has the entries up to it. Forgets all users and chats, and
    /// returns all sessions, as [`Hub::cut`] does.
    pub fn skip_to(&self, position: Position) -> Vec<Arc<Session>> {
        let mut state = self.lock();
        state.ring.skip_to(position);
        state.marks.begin_after(position.seq);
        state.membership.clear();
        for session in state.sessions() {
            let (has, _) = session.fall_behind();
            session.set_lane(Lane::CatchUp);
            session.start_at(has);
        }
        self.begin_anew(state)
    }

    /// Forgets all users and chats, because their states are not those at the new position. Returns the sessions.
    fn begin_anew(&self, mut state: MutexGuard<'_, State>) -> Vec<Arc<Session>> {
        let sessions: Vec<Arc<Session>> = state.sessions().cloned().collect();
        state.away.extend(sessions.iter().map(|session| (session.id, session.clone())));
        state.users.clear();
        state.slots.clear();
        state.chats.clear();
        let position = state.ring.position().seq;
        // Nobody knows whether the waiting commands still exist. Their clients send them again.
        let waiters: Vec<_> = std::mem::take(&mut state.waiters).into_values().flatten().collect();
        drop(state);
        for waiting in waiters {
            self.answer(waiting.waiter, Err(Failure::log_unavailable()));
        }
        self.announce(position);
        sessions
    }

    /// Puts a session back to the cut, or leaves it below, and queues its `Reset`s. Call it before the ring is cut.
    fn take_back(&self, state: &State, user: &User, session: &Session, turn: &Turn) {
        let (tip, floor) = (state.ring.position().seq, state.ring.floor().seq);
        let queued = if session.lane() == Lane::Live { tip } else { session.fed() };
        let (written, dropped) = session.fall_behind();
        let has = if dropped == 0 { queued } else { written }.min(turn.cut.seq);
        session.set_lane(Lane::CatchUp);
        session.start_at(has);
        let doubtful = session.resumed_ms().is_some_and(|since| since + RESUME_DOUBT_MS > state.applied_ms);
        let lost = |chat: &ChatId| state.loaded(*chat).is_none_or(|chat| chat.head > turn.cut.seq);
        let told: Vec<ChatId> =
            user.chats().chain(user.left_chats(floor)).filter(|chat| doubtful || lost(chat)).collect();
        let id = if has == turn.cut.seq { Some(turn.cut.id) } else { state.ring.id_at(has) };
        match id.filter(|_| turn.cut.seq >= floor) {
            Some(_) if told.is_empty() => {}
            Some(id) => {
                let from = Cursor { epoch: state.epoch, position: Position { seq: has, id } };
                self.reset(state, session, &told, from, turn);
            }
            // The position is below the ring, so its identity is not here to seal a cursor with; or the cut is, so the
            // chats that lost events are not known. Close; the device comes back with its cursor and is told then.
            None => session.close(Close::Internal, turn.now_ms),
        }
    }

    /// Brings a session that resumes with a cursor of a former epoch into the present one. Queues a `Reset` for each
    /// chat of its user, also for those that the user has `left`, and returns the cursor to attach it with. `None`: its
    /// user is to be loaded first.
    pub fn carry_over(
        &self,
        session: &Session,
        cursor: Cursor,
        cut: Position,
        left: &[ChatId],
    ) -> Option<Cursor> {
        let state = self.lock();
        let user = state.user(session.user())?;
        let floor = state.ring.floor().seq;
        let chats: BTreeSet<ChatId> =
            user.chats().chain(user.left_chats(floor)).chain(left.iter().copied()).collect();
        let chats: Vec<ChatId> = chats.into_iter().collect();
        let position = if cursor.position.seq > cut.seq { cut } else { cursor.position };
        let turn = Turn { cut, epoch: state.epoch, now_ms: self.clock.now_ms() };
        Some(self.reset(&state, session, &chats, Cursor { position, ..cursor }, &turn))
    }

    /// Queues the `Reset`s of a session that has all up to `from`. Returns the same position as a cursor of the new
    /// epoch.
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

/// The step from one epoch to the next.
struct Turn {
    /// The last entry that both histories have.
    cut: Position,
    /// The new epoch.
    epoch: u32,
    now_ms: u64,
}

impl State {
    /// The chat's last valid event at or below `seq`, if the hub knows it, else `seq`. In a `Reset` both mean the same:
    /// no event of the chat lies between the two.
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
