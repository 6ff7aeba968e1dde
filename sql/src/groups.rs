//! How many groups a user is in: for the limit that is checked before a user joins one more.

use shared::id::UserId;

use crate::{Db, Error};

/// Stops counting a user's groups at the limit, and ends at the first user who has reached it.
const ANY_IN: &str = "
    SELECT u.id FROM unnest($1::bigint[]) AS u (id) WHERE (
        SELECT count(*) FROM (
            SELECT 1 FROM memberships m JOIN chats ch ON ch.id = m.chat_id AND ch.type = 2
            WHERE m.user_id = u.id AND m.to_seq IS NULL LIMIT $2
        ) g
    ) >= $2 LIMIT 1";

impl Db {
    /// Whether any of the users is in `groups` groups or more, as of the projection's checkpoint.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn any_in_groups(&self, users: &[UserId], groups: u32) -> Result<bool, Error> {
        let users: Vec<i64> = users.iter().map(|user| user.as_i64()).collect();
        Ok(self.query_opt(ANY_IN, &[&users, &i64::from(groups)]).await?.is_some())
    }
}
