//! Capacity: how large a group grows, and how many groups a user is in.
//!
//! Checked before the append, against this gateway's state and the projection: two commands at the same moment may
//! exceed a limit by one batch, but never the fold's own bound ([`shared::fold::MAX_MEMBERS`]).

use clap::Args;
use shared::{
    code::Code,
    fold::MAX_MEMBERS,
    id::{ChatId, UserId},
};

use super::Commands;
use crate::command::Failure;

/// How large groups grow.
#[derive(Debug, Clone, Copy, Args)]
pub struct ChatSettings {
    /// Members of a group; more than 10,000 are never possible.
    #[arg(long, env = "MT_GROUP_MEMBERS", default_value_t = MAX_MEMBERS as u32,
        value_parser = clap::value_parser!(u32).range(1..=MAX_MEMBERS as i64))]
    pub group_members: u32,
    /// Groups that a user can be in.
    #[arg(long, env = "MT_GROUPS_PER_USER", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub groups_per_user: u32,
}

impl ChatSettings {
    pub const fn group_members(self) -> usize {
        self.group_members as usize
    }
}

impl Commands {
    /// Whether a group has room for `users`, and each of them for the group. The chat is loaded.
    pub(super) async fn has_room_in(&self, chat: ChatId, users: &[UserId]) -> Result<(), Failure> {
        if self.hub.member_count(chat) + users.len() > self.limits.group_members() {
            return Err(Failure::refused(Code::ChatFull, Code::ChatFull.title()));
        }
        self.has_room_for_groups(users).await
    }

    /// The same for a group that is about to be created.
    pub(super) async fn has_room_for_new(&self, members: &[UserId]) -> Result<(), Failure> {
        if members.len() > self.limits.group_members() {
            return Err(Failure::refused(Code::LimitExceeded, "too many members for a group"));
        }
        self.has_room_for_groups(members).await
    }

    async fn has_room_for_groups(&self, users: &[UserId]) -> Result<(), Failure> {
        if self.db.any_in_groups(users, self.limits.groups_per_user).await? {
            let full = "a user is in as many groups as one can be";
            return Err(Failure::refused(Code::LimitExceeded, full));
        }
        Ok(())
    }
}
