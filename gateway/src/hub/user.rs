//! A local user: their memberships and sessions.
//!
//! A user is kept while they have a session here and for a while after, so that a device that comes back needs no
//! query. Invariants: memberships are sorted by chat, at most one holds per chat; a membership that ended is kept until
//! its end is below the ring's floor, because a device may still have to be fed from it.

use std::sync::Arc;

use shared::id::{ChatId, Seq, UserId};
use smallvec::SmallVec;

use crate::session::Session;

/// A membership that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Membership {
    chat: ChatId,
    /// The event by which the user became a member; zero: before the ring.
    from: Seq,
}

/// A membership with its beginning and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub chat: ChatId,
    /// The event by which the user became a member; zero: before the ring.
    pub from: Seq,
    /// The event by which the membership ended, if it did.
    pub to: Option<Seq>,
}

#[derive(Debug)]
pub struct User {
    pub id: UserId,
    /// Ascending by chat.
    memberships: Vec<Membership>,
    /// Memberships that ended above the ring's floor.
    ended: Vec<Interval>,
    /// Chats that the user may have joined and whose state is being loaded. The user's events of them are withheld.
    pub pending: Vec<ChatId>,
    pub sessions: SmallVec<[Arc<Session>; 1]>,
    /// Since when the user has no session.
    pub idle_since_ms: Option<u64>,
}

impl User {
    pub fn new(id: UserId, now_ms: u64) -> Self {
        Self {
            id,
            memberships: Vec::new(),
            ended: Vec::new(),
            pending: Vec::new(),
            sessions: SmallVec::new(),
            idle_since_ms: Some(now_ms),
        }
    }

    /// A user with loaded memberships. Those that ended at or below `floor` are left out.
    pub fn loaded(id: UserId, intervals: &[Interval], floor: Seq, now_ms: u64) -> Self {
        let mut user = Self::new(id, now_ms);
        // The list lives as long as the user, so it gets no spare capacity.
        user.memberships.reserve_exact(intervals.iter().filter(|interval| interval.to.is_none()).count());
        for interval in intervals {
            match interval.to {
                None => {
                    user.join(interval.chat, if interval.from > floor { interval.from } else { Seq::ZERO })
                }
                Some(to) if to > floor => user.ended.push(*interval),
                Some(_) => {}
            }
        }
        user
    }

    /// The chats of which the user is a member, ascending.
    pub fn chats(&self) -> impl ExactSizeIterator<Item = ChatId> + '_ {
        self.memberships.iter().map(|membership| membership.chat)
    }

    pub fn is_member(&self, chat: ChatId) -> bool {
        self.find(chat).is_ok()
    }

    fn find(&self, chat: ChatId) -> Result<usize, usize> {
        self.memberships.binary_search_by_key(&chat, |membership| membership.chat)
    }

    /// Whether the user is entitled to the chat's event at `seq`: they were a member then, or left by that event.
    pub fn entitled(&self, chat: ChatId, seq: Seq) -> bool {
        let holds = self.find(chat).is_ok_and(|at| self.memberships[at].from <= seq);
        let held = |interval: &Interval| {
            interval.chat == chat && interval.from <= seq && interval.to.is_some_and(|to| seq <= to)
        };
        holds || self.ended.iter().any(held)
    }

    /// Records that the membership begins with the event at `from`. A membership that holds is left as it is.
    pub fn join(&mut self, chat: ChatId, from: Seq) {
        if let Err(at) = self.find(chat) {
            self.memberships.insert(at, Membership { chat, from });
        }
    }

    /// Records that the membership ends with the event at `to`, if the user has one. `floor` is the ring's.
    pub fn leave(&mut self, chat: ChatId, to: Seq, floor: Seq) {
        let Ok(at) = self.find(chat) else { return };
        let Membership { from, .. } = self.memberships.remove(at);
        self.forget_below(floor);
        self.ended.push(Interval { chat, from, to: Some(to) });
    }

    /// Drops the memberships that ended at or below `floor`: they entitle the user to no entry of the ring.
    pub fn forget_below(&mut self, floor: Seq) {
        self.ended.retain(|interval| interval.to.is_some_and(|to| to > floor));
        if self.ended.is_empty() {
            self.ended = Vec::new();
        }
    }

    /// The chats that the user has left above the ring's floor and is no member of now.
    pub fn left_chats(&self) -> impl Iterator<Item = ChatId> + '_ {
        self.ended.iter().map(|interval| interval.chat).filter(|chat| !self.is_member(*chat))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entitlement_is_membership_at_the_sequence() {
        let chat = ChatId::new(5).unwrap();
        let mut user = User::new(UserId::new(1).unwrap(), 0);
        user.join(chat, Seq::ZERO);
        assert!(user.entitled(chat, Seq(1)));
        user.leave(chat, Seq(10), Seq::ZERO);
        assert!(user.entitled(chat, Seq(10)), "the own removal");
        assert!(!user.entitled(chat, Seq(11)));
        user.join(chat, Seq(20));
        assert!(!user.entitled(chat, Seq(19)));
        assert!(user.entitled(chat, Seq(20)));
        assert!(user.entitled(chat, Seq(3)));
        user.leave(chat, Seq(30), Seq(10));
        assert!(!user.entitled(chat, Seq(3)), "what is below the floor is forgotten");
        assert!(user.entitled(chat, Seq(25)));
        assert_eq!(user.left_chats().collect::<Vec<_>>(), [chat]);
    }
}
