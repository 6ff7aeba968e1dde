//! Entitlement: what of a chat a user may see. One rule, which everything asks that shows, names or takes back a part
//! of a chat.
//!
//! - An event *reaches* a user who was a member at its sequence. Their own removal is the last one of a stay.
//! - A member *reads* what reached them, and everything if the chat's history is open (`all`). Somebody who is no
//!   member reads only what reached them, in a replay of that time.
//! - An event that names a message which the user does not read says nothing of that message: neither what it says now
//!   nor that it exists.
//!
//! Invariant: the answer depends on nothing but the user's stays in the chat and the chat's setting.

use std::borrow::Cow;

use crate::{
    event::{Event, Fact, History, MessageSent},
    id::Seq,
};

/// The most former stays of a user that a gateway remembers, over all chats. Somebody who is put out and taken in again
/// and again would otherwise fill its memory. What older ones reached is found in the projection alone, so live events
/// that name a message of such a stay come without its name.
pub const MAX_FORMER_STAYS: usize = 256;

/// A time in which a user was a member of a chat; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    /// The event by which the user became a member.
    pub from: Seq,
    /// The event by which the stay ended, if it did.
    pub to: Option<Seq>,
}

impl Stay {
    /// Whether the chat's event at `seq` reached the user in this stay.
    pub fn holds(&self, seq: Seq) -> bool {
        self.from <= seq && self.to.is_none_or(|to| seq <= to)
    }
}

/// What a user reads of a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    Everything,
    /// What reached them in these stays.
    Stays(Vec<Stay>),
}

impl Sight {
    /// The sight of a user with these stays. `history` is the chat's setting if the user is a member.
    pub fn of(history: Option<History>, stays: impl IntoIterator<Item = Stay>) -> Self {
        match history {
            Some(History::All) => Self::Everything,
            Some(History::Join) | None => Self::Stays(stays.into_iter().collect()),
        }
    }

    /// Whether the user reads the chat's event at `seq`.
    pub fn reads(&self, seq: Seq) -> bool {
        match self {
            Self::Everything => true,
            Self::Stays(stays) => stays.iter().any(|stay| stay.holds(seq)),
        }
    }

    /// The newest position at or below `seq` that the user reads; zero: there is none. So a member's mark is shown to
    /// another one who does not read as far back.
    pub fn newest(&self, seq: Seq) -> Seq {
        match self {
            Self::Everything => seq,
            Self::Stays(stays) => {
                let begun = stays.iter().filter(|stay| stay.from <= seq);
                begun.map(|stay| stay.to.map_or(seq, |to| to.min(seq))).max().unwrap_or_default()
            }
        }
    }

    /// The event as the user sees it: without the message that it names, if they don't read that one. A reply is then
    /// a plain message. An edit, a deletion and a reaction are then nothing but a place in the order.
    pub fn shows<'a>(&self, event: &'a Event) -> Cow<'a, Event> {
        match event.fact.names() {
            Some(message) if !self.reads(message) => {
                let fact = match &event.fact {
                    Fact::MessageSent(sent) => {
                        Fact::MessageSent(MessageSent { reply_to: None, ..sent.clone() })
                    }
                    _ => Fact::Noop,
                };
                Cow::Owned(Event { device: event.device.clone(), fact, ..*event })
            }
            Some(_) | None => Cow::Borrowed(event),
        }
    }
}
