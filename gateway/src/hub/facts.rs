//! What the hub asks of an event beyond its validity: whom it makes a member, whom it removes, which message it edits
//! or deletes.
//!
//! Each question is an exhaustive match, so whoever adds a kind of event has to answer it here.

use shared::{
    event::Fact,
    id::{Seq, UserId},
};

/// The users that the event makes members.
pub fn joining(fact: &Fact) -> Vec<UserId> {
    match fact {
        Fact::ChatCreated(created) => created.members.iter().map(|member| member.user_id).collect(),
        Fact::MembersJoined(joined) => joined.members.iter().map(|member| member.user_id).collect(),
        Fact::MessageSent(_)
        | Fact::MessageEdited(_)
        | Fact::MessageDeleted(_)
        | Fact::Reacted(_)
        | Fact::MemberLeft(_)
        | Fact::RoleChanged(_)
        | Fact::TitleChanged(_)
        | Fact::SettingsChanged(_)
        | Fact::Noop => Vec::new(),
    }
}

/// The member that the event removes.
pub const fn leaving(fact: &Fact) -> Option<UserId> {
    match fact {
        Fact::MemberLeft(left) => Some(left.user_id),
        Fact::ChatCreated(_)
        | Fact::MessageSent(_)
        | Fact::MessageEdited(_)
        | Fact::MessageDeleted(_)
        | Fact::Reacted(_)
        | Fact::MembersJoined(_)
        | Fact::RoleChanged(_)
        | Fact::TitleChanged(_)
        | Fact::SettingsChanged(_)
        | Fact::Noop => None,
    }
}

/// What an event does to the body of an earlier message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revision {
    /// The message at this sequence gets another body.
    Edit(Seq),
    /// The message at this sequence loses its body.
    Delete(Seq),
}

/// What the event does to the body of an earlier message, if it is such an event.
pub const fn revision(fact: &Fact) -> Option<Revision> {
    match fact {
        Fact::MessageEdited(edited) => Some(Revision::Edit(edited.seq)),
        Fact::MessageDeleted(deleted) => Some(Revision::Delete(deleted.seq)),
        Fact::ChatCreated(_)
        | Fact::MessageSent(_)
        | Fact::Reacted(_)
        | Fact::MembersJoined(_)
        | Fact::MemberLeft(_)
        | Fact::RoleChanged(_)
        | Fact::TitleChanged(_)
        | Fact::SettingsChanged(_)
        | Fact::Noop => None,
    }
}
