//! A local user: memberships and sessions.
//!
//! Memberships are kept while the user has a session here and for a while after, so that a reconnecting device
//! needs nobody else.

use std::sync::Arc;

use shared::id::{ChatId, Seq, UserId};
use smallvec::SmallVec;

use crate::session::Session;

/// A membership that began or ended within the ring's reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub chat: ChatId,
    /// The event by which the user became a member; zero: before the ring.
    pub from: Seq,
    /// The event by which the membership ended.
    pub to: Option<Seq>,
}

#[derive(Debug)]
pub struct User {
    pub id: UserId,
    /// The chats of which the user is a member, ascending.
    pub chats: Vec<ChatId>,
    /// Memberships that do not simply cover the whole ring.
    pub churn: Vec<Interval>,
    /// Chats whose state is on the way and that may have gained this user.
    pub pending: Vec<ChatId>,
    pub sessions: SmallVec<[Arc<Session>; 1]>,
    /// When the last session ended.
    pub idle_since_ms: Option<u64>,
}

impl User {
    pub fn new(id: UserId, now_ms: u64) -> Self {
        Self {
            id,
            chats: Vec::new(),
            churn: Vec::new(),
            pending: Vec::new(),
            sessions: SmallVec::new(),
            idle_since_ms: Some(now_ms),
        }
    }

    pub fn is_member(&self, chat: ChatId) -> bool {
        self.chats.binary_search(&chat).is_ok()
    }

    /// Whether the user is entitled to the chat's event at `seq`: a member then, or the one who left by it.
    pub fn entitled(&self, chat: ChatId, seq: Seq) -> bool {
        let mut from = Seq::ZERO;
        for interval in self.churn.iter().filter(|interval| interval.chat == chat) {
            match interval.to {
                Some(to) if interval.from <= seq && seq <= to => return true,
                Some(_) => {}
                None => from = interval.from,
            }
        }
        from <= seq && self.is_member(chat)
    }

    /// Records that the membership begins with the event at `from`.
    pub fn join(&mut self, chat: ChatId, from: Seq) {
        if let Err(at) = self.chats.binary_search(&chat) {
            self.chats.insert(at, chat);
            if from > Seq::ZERO {
                self.churn.push(Interval { chat, from, to: None });
            }
        }
    }

    /// Records that the membership ends with the event at `to`; what is below `floor` matters no more.
    pub fn leave(&mut self, chat: ChatId, to: Seq, floor: Seq) {
        let Ok(at) = self.chats.binary_search(&chat) else { return };
        self.chats.remove(at);
        self.forget_below(floor);
        match self.churn.iter_mut().find(|interval| interval.chat == chat && interval.to.is_none()) {
            Some(open) => open.to = Some(to),
            None => self.churn.push(Interval { chat, from: Seq::ZERO, to: Some(to) }),
        }
    }

    /// Drops what makes no difference to entries above `floor`.
    pub fn forget_below(&mut self, floor: Seq) {
        self.churn.retain(|interval| interval.to.unwrap_or(interval.from) > floor);
        if self.churn.is_empty() {
            self.churn = Vec::new();
        }
    }

    /// The chats of which the user was a member within the ring but is no more.
    pub fn left_chats(&self) -> impl Iterator<Item = ChatId> + '_ {
        let gone = |interval: &&Interval| interval.to.is_some() && !self.is_member(interval.chat);
        self.churn.iter().filter(gone).map(|interval| interval.chat)
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
