//! Facts of every kind, in short.

use shared::{
    event::{
        ChatCreated, Fact, History, LeaveReason, MemberLeft, MemberRole, MembersJoined, MessageDeleted,
        MessageEdited, MessageSent, Reacted, RoleChanged, SettingsChanged, TitleChanged,
    },
    id::Seq,
    permission::{ChatType, Role},
};

use super::user;

/// A group, whose owner is the first of them.
pub(crate) fn created(members: &[u64]) -> Fact {
    let role = |index| if index == 0 { Role::Owner } else { Role::Member };
    let members = members
        .iter()
        .enumerate()
        .map(|(at, id)| MemberRole { user_id: user(*id), role: role(at) })
        .collect();
    Fact::ChatCreated(ChatCreated { chat_type: ChatType::Group, title: None, history: History::All, members })
}

pub(crate) fn sent(body: &str) -> Fact {
    Fact::MessageSent(MessageSent { body: body.into(), reply_to: None, mentions: Vec::new() })
}

pub(crate) fn replied(to: Seq) -> Fact {
    Fact::MessageSent(MessageSent { body: "re".into(), reply_to: Some(to), mentions: Vec::new() })
}

pub(crate) fn edited(seq: Seq, author: u64) -> Fact {
    Fact::MessageEdited(MessageEdited {
        seq,
        author: user(author),
        body: "new".into(),
        mentions: Vec::new(),
        seen: None,
    })
}

pub(crate) fn deleted(seq: Seq, author: u64) -> Fact {
    Fact::MessageDeleted(MessageDeleted { seq, author: user(author), seen: None })
}

/// The same fact, by a gateway that had looked for a deletion of the message up to `seen`.
pub(crate) fn looked(fact: Fact, seen: Seq) -> Fact {
    let seen = Some(seen);
    match fact {
        Fact::MessageEdited(edited) => Fact::MessageEdited(MessageEdited { seen, ..edited }),
        Fact::MessageDeleted(deleted) => Fact::MessageDeleted(MessageDeleted { seen, ..deleted }),
        Fact::Reacted(reacted) => Fact::Reacted(Reacted { seen, ..reacted }),
        other => other,
    }
}

pub(crate) fn reacted(seq: Seq) -> Fact {
    Fact::Reacted(Reacted { seq, emoji: "👍".into(), on: true, seen: None })
}

pub(crate) fn joined(users: &[u64]) -> Fact {
    let members = users.iter().map(|id| MemberRole { user_id: user(*id), role: Role::Member }).collect();
    Fact::MembersJoined(MembersJoined { members })
}

/// The user goes by themselves.
pub(crate) fn left(id: u64) -> Fact {
    Fact::MemberLeft(MemberLeft { user_id: user(id), reason: LeaveReason::Left })
}

/// Another member takes the user out.
pub(crate) fn removed(id: u64) -> Fact {
    Fact::MemberLeft(MemberLeft { user_id: user(id), reason: LeaveReason::Removed })
}

pub(crate) fn role_changed(id: u64, role: Role) -> Fact {
    Fact::RoleChanged(RoleChanged { user_id: user(id), role })
}

pub(crate) fn titled(title: &str) -> Fact {
    Fact::TitleChanged(TitleChanged { title: title.into() })
}

pub(crate) fn history(history: History) -> Fact {
    Fact::SettingsChanged(SettingsChanged { history })
}
