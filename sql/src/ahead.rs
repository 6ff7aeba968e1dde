//! The users who have a command whose uuid was ahead of the log's time: a gateway loads them when it starts.

use shared::id::UserId;

use crate::{Checkpoint, Db, Error, accounts::user_id, checkpoint::from_checkpoint, states::checkpoint_of};

/// A user, and the latest time of a uuid of theirs that was ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AheadMark {
    pub user: UserId,
    pub until_ms: u64,
}

const MARKS: &str = concat!(
    "SELECT c.*, a.user_id, a.until_ts",
    from_checkpoint!(),
    "LEFT JOIN LATERAL (
        SELECT user_id, max(until_ts) AS until_ts FROM ahead WHERE until_ts > $1 GROUP BY user_id
    ) a ON true"
);

impl Db {
    /// The marks of all users, as far as they are later than `since_ms`.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn ahead_marks(&self, since_ms: u64) -> Result<(Checkpoint, Vec<AheadMark>), Error> {
        let since = i64::try_from(since_ms).unwrap_or(i64::MAX);
        let rows = self.query(MARKS, &[&since]).await?;
        let mut marks = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(user) = row.try_get::<_, Option<i64>>("user_id")? {
                let until: i64 = row.try_get("until_ts")?;
                marks.push(AheadMark { user: user_id(user)?, until_ms: until as u64 });
            }
        }
        Ok((checkpoint_of(&rows)?, marks))
    }
}
