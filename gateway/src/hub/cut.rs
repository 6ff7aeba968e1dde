//! The log lost its tail: everything above the cut is void, here as everywhere.

use std::sync::{Arc, atomic::Ordering};

use shared::{
    frame,
    id::{ChatId, Position, Seq, UserId},
};

use super::{Hub, State, ring::Verdict, wire};
use crate::session::{Lane, Session};

impl Hub {
    /// Takes back everything above `cut`, tells the sessions whose chats lost events, and returns all sessions:
    /// each must be attached anew, since the memberships are to be loaded again.
    pub fn cut(&self, cut: Position, epoch: u32) -> Vec<Arc<Session>> {
        let now_ms = self.clock.now_ms();
        let mut state = self.lock();
        let lost = state.heads_after(cut.seq);
        state.epoch = epoch;
        state.ring.cut(cut);
        // What was known to be stored above the cut is gone.
        self.expected.store(cut.seq.get(), Ordering::Release);
        while state.membership.back().is_some_and(|seq| *seq > cut.seq) {
            state.membership.pop_back();
        }
        let mut sessions = Vec::new();
        for (_, user) in &state.users {
            for session in &user.sessions {
                let (written, _) = session.fall_behind();
                session.set_lane(Lane::CatchUp);
                session.start_at(written.min(cut.seq));
                for (chat, head) in lost.iter().filter(|(chat, _)| user.is_member(*chat)) {
                    let frame = self.reset_frame(&state, user.id, *chat, *head, cut);
                    session.push_control(wire::encode(&frame.into(), session.identity.encoding), now_ms);
                }
                sessions.push(session.clone());
            }
        }
        state.users.clear();
        state.slots.clear();
        state.chats.clear();
        // Commands stored above the cut are void; their clients send them again.
        let waiters: Vec<_> = std::mem::take(&mut state.waiters).into_values().flatten().collect();
        drop(state);
        for waiter in waiters {
            self.answer(waiter, Err(crate::command::Failure::log_unavailable()));
        }
        self.announce(cut.seq);
        sessions
    }

    /// What a session is told of one chat.
    pub fn reset_frame(
        &self,
        state: &State,
        user: UserId,
        chat: ChatId,
        after: Seq,
        cut: Position,
    ) -> frame::Reset {
        frame::Reset { chat_id: chat, after_seq: after, cursor: self.seal(state, user, cut) }
    }
}

impl State {
    /// The chats with events above `seq`, and the last valid one of each at or below it.
    fn heads_after(&self, seq: Seq) -> Vec<(ChatId, Seq)> {
        let lost = |chat: &ChatId| self.ring.head(*chat).is_some_and(|head| head > seq);
        let head = |chat: ChatId| {
            let mut valid = self.ring.chain(chat).filter(|(_, slot)| slot.verdict == Verdict::Valid);
            let first_lost = valid.by_ref().take_while(|(at, _)| *at > seq).last();
            first_lost.map_or(seq, |(_, slot)| slot.prev)
        };
        self.chats.keys().copied().filter(lost).map(|chat| (chat, head(chat))).collect()
    }
}
