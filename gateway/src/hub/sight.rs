//! What local users see of chats: the rule of `shared::entitlement`, asked about the stays and settings that the hub
//! holds.
//!
//! Live delivery, replays, pages and the checks before an append all ask here. Invariant: an event that names a message
//! which its reader does not read is shown without the name.

use shared::{
    entitlement::Sight,
    event::{Event, History},
    frame::{self, ServerFrame},
    id::{ChatId, Seq, UserId},
};

use super::{Hub, State, chat::Chat, ring::Entry, user::User};

/// What each user sees, as of one moment of the hub.
pub struct Sights<'a>(pub(super) &'a State);

impl Sights<'_> {
    /// What the user sees of the chat. Of a user whom the hub does not know it is nothing.
    pub fn of(&self, user: UserId, chat: ChatId) -> Sight {
        let sight = self.0.user(user).and_then(|user| self.0.sight(user, chat));
        sight.unwrap_or(Sight::Stays(Vec::new()))
    }
}

impl Hub {
    /// What a user sees of the chat. `None`: the hub does not know the user, or not the chat that they are in.
    pub fn sight(&self, user: UserId, chat: ChatId) -> Option<Sight> {
        let state = self.lock();
        state.sight(state.user(user)?, chat)
    }
}

impl State {
    /// What the user sees of the chat. `None`: they are a member, and the chat is not loaded.
    pub(super) fn sight(&self, user: &User, chat: ChatId) -> Option<Sight> {
        let history = match user.is_member(chat) {
            true => Some(self.loaded(chat)?.state.as_ref()?.history),
            false => None,
        };
        Some(Sight::of(history, user.stays(chat)))
    }

    /// The frame of the ring's entry at `seq` as the user sees it.
    pub(super) fn frame_for(&self, user: &User, seq: Seq) -> Option<ServerFrame> {
        let entry = self.ring.get(seq)?;
        if !entry.kind.may_name() {
            return entry.frame(seq);
        }
        let sight = self.sight(user, entry.chat?).unwrap_or(Sight::Stays(Vec::new()));
        entry.frame_as(seq, &sight)
    }
}

impl Chat {
    /// The message that the entry names, if there may be members who do not read it.
    pub(super) fn hidden_name(&self, entry: &Entry) -> Option<Seq> {
        let joins = self.state.as_ref().is_some_and(|state| state.history == History::Join);
        if !joins || !entry.kind.may_name() {
            return None;
        }
        Event::decode(&entry.payload).ok()?.fact.names()
    }
}

impl Entry {
    /// The event's frame for a user with this sight.
    pub(super) fn frame_as(&self, seq: Seq, sight: &Sight) -> Option<ServerFrame> {
        let event = Event::decode(&self.payload).ok()?;
        Some(frame::delivered(self.chat?, seq, self.prev, self.ts, &sight.shows(&event), self.deleted))
    }

    /// The event's frame for a user who does not read the message that it names.
    pub(super) fn frame_without_name(&self, seq: Seq) -> Option<ServerFrame> {
        self.frame_as(seq, &Sight::Stays(Vec::new()))
    }
}

#[cfg(test)]
mod tests;
