//! The actions that each role may do in a chat: one pure table.

use serde::{Deserialize, Serialize};

/// Direct chats have exactly two members for ever; groups change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChatType {
    Direct,
    Group,
}

impl ChatType {
    /// The number on the wire and in the log.
    pub const fn number(self) -> u8 {
        match self {
            Self::Direct => 1,
            Self::Group => 2,
        }
    }

    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Direct),
            2 => Some(Self::Group),
            _ => None,
        }
    }
}

impl Serialize for ChatType {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(self.number())
    }
}

impl<'de> Deserialize<'de> for ChatType {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::from_number(u8::deserialize(d)?)
            .ok_or_else(|| serde::de::Error::custom("a chat's type is 1 (direct) or 2 (group)"))
    }
}

/// A member's role, in ascending order of rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Member,
    Admin,
    Owner,
}

impl Role {
    /// The text on the wire and in Postgres.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// The inverse of [`Role::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Member, Self::Admin, Self::Owner].into_iter().find(|role| role.as_str() == text)
    }

    pub(crate) const fn bits(self) -> u64 {
        match self {
            Self::Member => 0,
            Self::Admin => 1,
            Self::Owner => 2,
        }
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        match bits {
            0 => Self::Member,
            1 => Self::Admin,
            _ => Self::Owner,
        }
    }
}

/// An action of a member beyond reading the chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send a message, react to one, edit or delete one's own.
    Speak,
    /// Delete another's message.
    DeleteOthers,
    /// Add members with this role.
    Add(Role),
    /// Remove another member, who has this role.
    Remove(Role),
    /// Leave the chat.
    Leave,
    /// Change another member's role.
    ChangeRole { from: Role, to: Role },
    /// Take a lower role oneself.
    StepDown,
    /// Change the title or the settings.
    Configure,
}

/// Whether a member with `role` may do `action` in a chat of this type. The rule of the last owner depends on the other
/// members, so the fold applies it.
pub const fn allows(chat: ChatType, role: Role, action: Action) -> bool {
    let (admin, owner) = (!matches!(role, Role::Member), matches!(role, Role::Owner));
    match (chat, action) {
        (_, Action::Speak) => true,
        (ChatType::Direct, _) => false,
        (ChatType::Group, action) => match action {
            Action::Speak | Action::Leave | Action::StepDown => true,
            Action::DeleteOthers | Action::Configure => admin,
            Action::Add(Role::Member) | Action::Remove(Role::Member) => admin,
            Action::Add(_) | Action::Remove(_) | Action::ChangeRole { .. } => owner,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table() {
        use Role::{Admin, Member, Owner};
        const NOBODY: &[Role] = &[];
        let everyone: &[Role] = &[Member, Admin, Owner];
        let admins: &[Role] = &[Admin, Owner];
        let owners: &[Role] = &[Owner];
        let mut rows = vec![
            (Action::Speak, everyone, everyone),
            (Action::DeleteOthers, NOBODY, admins),
            (Action::Leave, NOBODY, everyone),
            (Action::StepDown, NOBODY, everyone),
            (Action::Configure, NOBODY, admins),
            (Action::Add(Member), NOBODY, admins),
            (Action::Add(Admin), NOBODY, owners),
            (Action::Add(Owner), NOBODY, owners),
            (Action::Remove(Member), NOBODY, admins),
            (Action::Remove(Admin), NOBODY, owners),
            (Action::Remove(Owner), NOBODY, owners),
        ];
        for from in [Member, Admin, Owner] {
            for to in [Member, Admin, Owner] {
                rows.push((Action::ChangeRole { from, to }, NOBODY, owners));
            }
        }
        for (action, direct, group) in rows {
            for role in [Member, Admin, Owner] {
                assert_eq!(
                    allows(ChatType::Direct, role, action),
                    direct.contains(&role),
                    "{action:?} {role:?}"
                );
                assert_eq!(
                    allows(ChatType::Group, role, action),
                    group.contains(&role),
                    "{action:?} {role:?}"
                );
            }
        }
    }
}
