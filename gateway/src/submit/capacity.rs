//! Capacity: how large a group grows, how many groups a user is in, and who may put a user into one.
//!
//! Checked before the append, against this gateway's state and the projection: two commands at the same moment may
//! exceed a limit by one batch, but never the fold's own bound ([`shared::fold::MAX_MEMBERS`]). Nobody is refused by a
//! projection that is behind: a group may have been left since, or a direct chat begun.

use clap::Args;
use shared::{
    code::Code,
    fold::MAX_MEMBERS,
    id::{ChatId, UserId},
};
use sql::groups::GroupLimits;

use super::Commands;
use crate::{command::Failure, feed::reads::Fresh};

/// How large groups grow.
#[derive(Debug, Clone, Copy, Args)]
pub struct ChatSettings {
    /// Members of a group; more than 10,000 are never possible.
    #[arg(long, env = "MT_GROUP_MEMBERS", default_value_t = MAX_MEMBERS as u32,
        value_parser = clap::value_parser!(u32).range(1..=MAX_MEMBERS as i64))]
    pub group_members: u32,
    /// Groups that a user can be in. The last half of them is for groups that the user or a contact puts them in.
    #[arg(long, env = "MT_GROUPS_PER_USER", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub groups_per_user: u32,
}

impl ChatSettings {
    pub const fn group_members(self) -> usize {
        self.group_members as usize
    }

    /// Half of a user's groups are out of the reach of strangers, so that nobody can fill them up for somebody else.
    const fn of_user(self) -> GroupLimits {
        let most = self.groups_per_user;
        GroupLimits { most, by_strangers: most.div_ceil(2) }
    }
}

impl Commands {
    /// Whether a group has room for `users`, and the actor may put each of them into it. The chat is loaded.
    pub(super) async fn has_room_in(
        &self,
        chat: ChatId,
        actor: UserId,
        users: &[UserId],
    ) -> Result<(), Failure> {
        if self.hub.member_count(chat) + users.len() > self.limits.group_members() {
            return Err(Failure::refused(Code::ChatFull, Code::ChatFull.title()));
        }
        self.admits(actor, users).await
    }

    /// The same for a group that the actor is about to create.
    pub(super) async fn has_room_for_new(&self, actor: UserId, members: &[UserId]) -> Result<(), Failure> {
        if members.len() > self.limits.group_members() {
            return Err(Failure::refused(Code::LimitExceeded, "too many members for a group"));
        }
        self.admits(actor, members).await
    }

    /// Whether the actor may put each of the users into one more group.
    async fn admits(&self, actor: UserId, users: &[UserId]) -> Result<(), Failure> {
        let ask = || self.db.kept_out(actor, users, self.limits.of_user());
        if ask().await?.1.is_empty() {
            return Ok(());
        }
        let Fresh { value: kept_out, stale } = self.reads.fresh(ask).await?;
        if kept_out.is_empty() {
            Ok(())
        } else if stale {
            Err(Failure::projection_behind())
        } else if kept_out.refusing.is_empty() {
            let full = "a user is in as many groups as one can be";
            Err(Failure::refused(Code::LimitExceeded, full))
        } else {
            Err(Failure::member_refused(kept_out.refusing))
        }
    }
}
