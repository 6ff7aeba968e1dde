//! Attaching sessions to their users, feeding them what they missed from the ring, making them live, detaching them.
//!
//! Invariants: a session becomes live only in the hold of the lock in which its last missed event is queued, so nothing
//! falls between the replay and live delivery; at most a piece waits in an outbox during a catch-up; a session that
//! cannot be attached is changed in nothing.

use std::sync::Arc;

use shared::{
    cursor::Cursor,
    frame,
    id::{Position, Seq, UserId},
};

use super::{Hub, State, user::User};
use crate::session::{Lane, Session, wire};

/// The outcome of [`Hub::attach`].
#[derive(Debug, PartialEq, Eq)]
pub enum Attached {
    /// All that the device missed is in the outbox, and the session is live.
    Live,
    /// The device missed more than is queued at once, or events that the ring lacks, or a chat of the user is still
    /// being loaded. A catch-up must feed the session.
    CatchUp,
    /// The user is to be loaded first.
    Unknown,
    /// The cursor is of another epoch than the hub's. It is to be carried over first ([`Hub::carry_over`]).
    Cut,
}

/// The outcome of [`Hub::reattach`].
#[derive(Debug, PartialEq, Eq)]
pub enum Reattached {
    /// The session is attached, and a catch-up must feed it.
    CatchUp,
    /// The user is to be loaded first.
    Unknown,
    /// Another cut came meanwhile. The session was not attached, so nobody has told it of that cut: close it.
    Cut,
    /// The session's connection is gone, or the session closes.
    Ended,
}

/// The outcome of one piece of a catch-up, and with it what the catch-up does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The session is live: the catch-up ends.
    Live,
    /// The ring has more. Go on once the outbox has drained.
    More,
    /// The next entry is of a chat whose state is being loaded. Wait for that.
    Held,
    /// The next entry is older than the ring. Read it from elsewhere.
    BelowRing,
    /// The projection has fed the session beyond the hub's position. Wait for the tail.
    Ahead,
    /// The session is no longer attached, or another catch-up has made it live: this one ends.
    Gone,
}

/// A loaded chat is kept this long after a command needed it. No command takes longer, so the chat is still here when
/// the command's event is judged.
const COMMAND_MEMORY_MS: u64 = 15_000;
/// A device that missed at most this many events is served at once, without a catch-up.
const AT_ONCE_EVENTS: usize = 256;
/// Entries that a catch-up looks at in one hold of the lock. It takes about 200 µs.
const SCAN_STEPS: usize = 4_096;
/// Bytes that a catch-up queues at a time: enough to keep a fast reader busy, little beside the bound of an outbox.
const PIECE_BYTES: usize = 32 * 1024;

impl Hub {
    /// Attaches a session whose device has everything up to `from`, and queues what it missed. `None`: the device
    /// wants only what comes from now on.
    pub fn attach(&self, session: &Arc<Session>, from: Option<Cursor>) -> Attached {
        let now_ms = self.clock.now_ms();
        let mut state = self.lock();
        let position = state.ring.position();
        let start = from.map_or(position.seq, |from| from.position.seq);
        let epoch = state.epoch;
        let Some(slot) = state.slots.get(&session.user()).copied() else { return Attached::Unknown };
        let Some(user) = state.users.get_mut(slot as usize) else { return Attached::Unknown };
        if from.is_some_and(|from| from.epoch != epoch) {
            return Attached::Cut;
        }
        session.start_at(start);
        if from.is_some() {
            session.set_resumed(now_ms);
        }
        user.sessions.push(session.clone());
        user.idle_since_ms = None;
        let missed =
            state.users.get(slot as usize).and_then(|user| state.missed(user, start, AT_ONCE_EVENTS));
        let Some(missed) = missed else {
            session.set_lane(Lane::CatchUp);
            return Attached::CatchUp;
        };
        let lives = self
            .feed(&state, session, start, &missed, now_ms)
            .is_some_and(|at| self.step(session, at, position.seq) && self.go_live(&state, session, now_ms));
        if lives {
            return Attached::Live;
        }
        session.set_lane(Lane::CatchUp);
        Attached::CatchUp
    }

    /// Attaches a session again after the hub forgot all users ([`Hub::cut`], [`Hub::skip_to`]). `epoch` is the hub's
    /// epoch after that.
    pub fn reattach(&self, session: &Arc<Session>, epoch: u32) -> Reattached {
        let mut state = self.lock();
        // A connection's task detaches its session after it was marked as ended or closing. So a session that is not
        // marked here will still be detached, and none stays attached for ever.
        if session.is_ended() || session.closing().is_some() {
            return Reattached::Ended;
        }
        if state.epoch != epoch {
            return Reattached::Cut;
        }
        let Some(user) = state.user_mut(session.user()) else { return Reattached::Unknown };
        user.sessions.push(session.clone());
        user.idle_since_ms = None;
        state.away.remove(&session.id);
        Reattached::CatchUp
    }

    /// Moves a session's position. A step that is not adjacent is refused, counted and logged, and the session reads on
    /// from where it stands.
    pub fn step(&self, session: &Session, from: Seq, to: Seq) -> bool {
        let moved = session.advance(from, to);
        if let Err(error) = moved {
            self.metrics.refused_steps.inc();
            tracing::error!(%error, session = %session.id, "a session reads the log again");
        }
        moved.is_ok()
    }

    /// Queues events from the ring to a session at `from`. The position of the last one; `None`: it stopped early, where
    /// the piece was full.
    fn feed(
        &self,
        state: &State,
        session: &Session,
        mut from: Seq,
        events: &[Seq],
        now_ms: u64,
    ) -> Option<Seq> {
        let user = state.user(session.user())?;
        for seq in events {
            if session.queued_bytes() > PIECE_BYTES || !self.step(session, from, *seq) {
                return None;
            }
            if let Some(frame) = state.frame_for(user, *seq) {
                let bytes = wire::encode(&frame, session.identity.encoding);
                session.push_covering(bytes, *seq, now_ms);
                session.count_replayed(1);
                session.mark_dirty();
                self.serves(now_ms);
                self.metrics.replay_total.get_or_create(&vec![("source", "ring")]).inc();
            }
            from = *seq;
        }
        Some(from)
    }

    /// Makes a session live that has everything up to the hub's position. `false`: it has not.
    fn go_live(&self, state: &State, session: &Session, now_ms: u64) -> bool {
        let position = state.ring.position();
        if !self.step(session, position.seq, position.seq) {
            return false;
        }
        let cursor = self.seal(state, session.user(), position);
        let live = frame::Live { cursor, replayed: u64::from(session.take_replayed()) };
        session.push_covering(wire::encode(&live.into(), session.identity.encoding), position.seq, now_ms);
        // `Live` carries a cursor, so no `Cursor` is due for the events before it.
        session.cover(now_ms);
        session.set_lane(Lane::Live);
        true
    }

    /// Feeds a session in its catch-up one piece from the ring, and makes it live if that was the last.
    pub fn advance(&self, session: &Arc<Session>) -> Step {
        let now_ms = self.clock.now_ms();
        let state = self.lock();
        let Some(user) = state.user(session.user()) else { return Step::Gone };
        if !user.sessions.iter().any(|attached| Arc::ptr_eq(attached, session)) {
            return Step::Gone;
        }
        if session.lane() != Lane::CatchUp {
            return Step::Gone;
        }
        let fed = session.fed();
        if fed < state.ring.floor().seq {
            return Step::BelowRing;
        }
        if fed > state.ring.position().seq {
            return Step::Ahead;
        }
        let piece = state.scan(user, fed, SCAN_STEPS, PIECE_BYTES);
        let Some(at) = self.feed(&state, session, fed, &piece.events, now_ms) else { return Step::More };
        if !self.step(session, at, piece.upto) {
            return Step::More;
        }
        if piece.upto == state.ring.position().seq {
            if self.go_live(&state, session, now_ms) { Step::Live } else { Step::More }
        } else if piece.held {
            Step::Held
        } else {
            Step::More
        }
    }

    /// Takes a session off its user. The user stays known for a while: a device that comes back needs no load.
    pub fn detach(&self, session: &Arc<Session>) {
        let now_ms = self.clock.now_ms();
        let mut state = self.lock();
        if state.away.remove(&session.id).is_some() && state.away.is_empty() {
            state.away.shrink_to_fit();
        }
        let Some(user) = state.user_mut(session.user()) else { return };
        user.sessions.retain(|attached| !Arc::ptr_eq(attached, session));
        if user.sessions.is_empty() {
            user.idle_since_ms = Some(now_ms);
            user.sessions.shrink_to_fit();
        }
    }

    /// Queues a `Cursor` to each of these sessions that was queued events since its last one.
    pub fn send_cursors(&self, sessions: &[Arc<Session>], now_ms: u64) {
        let state = self.lock();
        let position = state.ring.position();
        for session in sessions {
            let covered = match session.lane() {
                Lane::Live => Some(position),
                // A catch-up has queued all up to `fed`. The ring knows that entry's identity unless it is older.
                Lane::CatchUp => {
                    state.ring.id_at(session.fed()).map(|id| Position { seq: session.fed(), id })
                }
                Lane::Starting => None,
            };
            if let Some(covered) = covered
                && session.cover(now_ms)
            {
                let cursor = frame::Cursor { cursor: self.seal(&state, session.user(), covered) };
                let bytes = wire::encode(&cursor.into(), session.identity.encoding);
                session.push_covering(bytes, covered.seq, now_ms);
            }
        }
    }

    /// Forgets the users without sessions and the chats without local members that nobody has needed since `before_ms`.
    pub fn forget_idle(&self, before_ms: u64) {
        let mut state = self.lock();
        let idle =
            |user: &User| user.sessions.is_empty() && user.idle_since_ms.is_some_and(|ms| ms < before_ms);
        let users: Vec<UserId> = state.users.iter().filter(|(_, u)| idle(u)).map(|(_, u)| u.id).collect();
        for user in users {
            state.forget_user(user);
        }
        let floor = state.ring.floor().seq;
        for (_, user) in &mut state.users {
            user.forget_below(floor);
        }
        let chats_before_ms = before_ms.min(self.clock.now_ms().saturating_sub(COMMAND_MEMORY_MS));
        state
            .chats
            .retain(|_, chat| !(chat.loaded && chat.locals.is_empty() && chat.used_ms < chats_before_ms));
        state.give_back();
    }
}

impl State {
    /// Gives memory back after many users have left. A table that is half full or more stays as it is.
    fn give_back(&mut self) {
        if self.chats.capacity() > 2 * self.chats.len() {
            self.chats.shrink_to_fit();
        }
        if self.slots.capacity() > 2 * self.slots.len() {
            self.slots.shrink_to_fit();
            self.users.shrink_to_fit();
        }
    }

    pub(super) fn forget_user(&mut self, id: UserId) {
        let Some(slot) = self.slots.remove(&id) else { return };
        let user = self.users.remove(slot as usize);
        for chat in user.chats() {
            if let Some(chat) = self.chats.get_mut(&chat) {
                chat.unlink(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests;
