//! Room for more: how large a group grows, and how many groups a user is in.
//!
//! Checked before the append, against this gateway's state and the projection: two commands at the same moment may
//! exceed a limit by one batch, but never the fold's own bound ([`shared::fold::MAX_MEMBERS`]).

use shared::{
    code::Code,
    id::{ChatId, UserId},
};

use super::{Commands, Failure};

impl Commands {
    /// Whether a group has room for `users`, and each of them for the group. The chat is loaded.
    pub(super) async fn room_in(&self, chat: ChatId, users: &[UserId]) -> Result<(), Failure> {
        let present = {
            let state = self.hub.lock();
            state.loaded(chat).and_then(|chat| chat.state.as_ref()).map_or(0, |state| state.members.len())
        };
        if present + users.len() > self.limits.group_members() {
            return Err(Failure::refused(Code::ChatFull, Code::ChatFull.title()));
        }
        self.room_for_groups(users).await
    }

    /// The same for a group that is about to be created.
    pub(super) async fn room_for_new(&self, members: &[UserId]) -> Result<(), Failure> {
        if members.len() > self.limits.group_members() {
            return Err(Failure::refused(Code::LimitExceeded, "too many members for a group"));
        }
        self.room_for_groups(members).await
    }

    async fn room_for_groups(&self, users: &[UserId]) -> Result<(), Failure> {
        if self.db.any_in_groups(users, self.limits.groups_per_user).await? {
            let full = "a user is in as many groups as one can be";
            return Err(Failure::refused(Code::LimitExceeded, full));
        }
        Ok(())
    }
}
