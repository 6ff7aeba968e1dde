//! A local user: their memberships and sessions.
//!
//! A user is kept while they have a session here and for a while after, so that a device that comes back needs no
//! query. Invariants: memberships are sorted by chat, at most one holds per chat; a membership that ended is kept at least
//! until its end is below the ring's floor, because a device may still have to be fed from it. The newest of the others
//! are kept as well, because later events may name a message that reached the user then.

use std::sync::Arc;

use shared::{
    entitlement::{MAX_FORMER_STAYS, Stay},
    id::{ChatId, Seq, UserId},
};
use smallvec::SmallVec;

use crate::session::Session;

/// A membership that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Membership {
    chat: ChatId,
    /// The event by which the user became a member.
    from: Seq,
}

/// A membership with its beginning and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub chat: ChatId,
    /// The event by which the user became a member.
    pub from: Seq,
    /// The event by which the membership ended, if it did.
    pub to: Option<Seq>,
}

impl Interval {
    /// Whether it holds, or ended above `floor`: a device may still have to be fed from it.
    pub fn reaches_above(&self, floor: Seq) -> bool {
        self.to.is_none_or(|to| to > floor)
    }
}

#[derive(Debug)]
pub struct User {
    pub id: UserId,
    /// Ascending by chat.
    memberships: Vec<Membership>,
    /// Memberships that ended, ascending by chat and beginning: those that ended above the ring's floor, and the newest
    /// [`MAX_FORMER_STAYS`] of the others.
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

    /// A user with loaded memberships. `floor` is the ring's.
    pub fn loaded(id: UserId, intervals: &[Interval], floor: Seq, now_ms: u64) -> Self {
        let mut user = Self::new(id, now_ms);
        // The list lives as long as the user, so it gets no spare capacity.
        user.memberships.reserve_exact(intervals.iter().filter(|interval| interval.to.is_none()).count());
        for interval in intervals {
            match interval.to {
                None => user.join(interval.chat, interval.from),
                Some(_) => user.ended.push(*interval),
            }
        }
        user.ended.sort_unstable_by_key(|interval| (interval.chat, interval.from));
        user.forget_below(floor);
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

    /// The user's stays in the chat, as far back as they are known.
    pub fn stays(&self, chat: ChatId) -> impl Iterator<Item = Stay> + '_ {
        let open = self.find(chat).ok().map(|at| Stay { from: self.memberships[at].from, to: None });
        let first = self.ended.partition_point(|interval| interval.chat < chat);
        let of_chat = self.ended.iter().skip(first).take_while(move |interval| interval.chat == chat);
        of_chat.map(|interval| Stay { from: interval.from, to: interval.to }).chain(open)
    }

    /// Whether the chat's event at `seq` reached the user: they were a member then, or left by that event.
    pub fn entitled(&self, chat: ChatId, seq: Seq) -> bool {
        self.stays(chat).any(|stay| stay.holds(seq))
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
        let place = self.ended.partition_point(|interval| (interval.chat, interval.from) < (chat, from));
        self.ended.insert(place, Interval { chat, from, to: Some(to) });
    }

    /// Of the memberships that ended at or below `floor`, which entitle the user to no entry of the ring, drops all but
    /// the newest.
    pub fn forget_below(&mut self, floor: Seq) {
        let former = self.ended.iter().filter(|interval| !interval.reaches_above(floor));
        let mut ends: Vec<Option<Seq>> = former.map(|interval| interval.to).collect();
        if ends.len() <= MAX_FORMER_STAYS {
            return;
        }
        let excess = ends.len() - MAX_FORMER_STAYS;
        let (_, last, _) = ends.select_nth_unstable(excess - 1);
        let last = *last;
        self.ended.retain(|interval| interval.to > last);
    }

    /// The chats that the user has left above `floor`, the ring's, and is no member of now.
    pub fn left_chats(&self, floor: Seq) -> impl Iterator<Item = ChatId> + '_ {
        let left = self.ended.iter().filter(move |interval| interval.reaches_above(floor));
        left.map(|interval| interval.chat).filter(|chat| !self.is_member(*chat))
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
        assert!(user.entitled(chat, Seq(25)) && user.entitled(chat, Seq(3)));
        assert_eq!(user.left_chats(Seq(10)).collect::<Vec<_>>(), [chat]);
        assert_eq!(user.left_chats(Seq(30)).count(), 0);
    }

    #[test]
    fn of_the_stays_that_ended_below_the_ring_the_newest_are_remembered() {
        let chat = ChatId::new(5).unwrap();
        let mut user = User::new(UserId::new(1).unwrap(), 0);
        let stays = MAX_FORMER_STAYS as u64 + 10;
        for at in 1..=stays {
            user.join(chat, Seq(10 * at));
            user.leave(chat, Seq(10 * at + 1), Seq::ZERO);
        }
        assert_eq!(user.stays(chat).count() as u64, stays, "the ring may have to feed from all of them");
        user.forget_below(Seq(10 * stays));
        assert!(!user.entitled(chat, Seq(10 * 9)) && user.entitled(chat, Seq(10 * 10)));
        assert!(user.entitled(chat, Seq(10 * stays)));
        assert_eq!(user.stays(chat).count(), MAX_FORMER_STAYS + 1, "the last one reaches above the floor");
    }
}
