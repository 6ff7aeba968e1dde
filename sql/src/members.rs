//! The members of a chat, a page at a time.

use shared::{
    id::{ChatId, UserId},
    permission::Role,
};
use tokio_postgres::Row;

use crate::{
    Checkpoint, Db, Error,
    accounts::user_id,
    checkpoint::from_checkpoint,
    states::{checkpoint_of, role_of},
};

/// A member as the others see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub user: UserId,
    pub display_name: String,
    pub role: Role,
    pub joined_ms: u64,
}

/// A page of members, ascending by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberPage {
    pub members: Vec<Member>,
    /// Where the next page starts: pass it as `after`.
    pub next: Option<UserId>,
}

const MEMBERS: &str = concat!(
    "SELECT c.*, mine.chat_id AS mine, m.*",
    from_checkpoint!(),
    "LEFT JOIN memberships mine ON mine.chat_id = $2 AND mine.user_id = $1 AND mine.to_seq IS NULL
    LEFT JOIN LATERAL (
        SELECT m.user_id, m.role, m.joined_ts, coalesce(u.display_name, '') AS display_name
        FROM (
            SELECT user_id, role, joined_ts FROM memberships
            WHERE chat_id = $2 AND to_seq IS NULL AND user_id > $3 ORDER BY user_id LIMIT $4
        ) m LEFT JOIN users u ON u.id = m.user_id
    ) m ON mine.chat_id IS NOT NULL ORDER BY m.user_id"
);
fn member(row: &Row) -> Result<Option<Member>, Error> {
    let Some(user) = row.try_get::<_, Option<i64>>("user_id")? else { return Ok(None) };
    let joined: i64 = row.try_get("joined_ts")?;
    Ok(Some(Member {
        user: user_id(user)?,
        display_name: row.try_get("display_name")?,
        role: role_of(row.try_get("role")?)?,
        joined_ms: joined as u64,
    }))
}

impl Db {
    /// The chat's members with ids above `after`, or `None` if `user` is not one of them.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn members(
        &self,
        user: UserId,
        chat: ChatId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<(Checkpoint, Option<MemberPage>), Error> {
        let after = after.map_or(0, UserId::as_i64);
        let wanted = limit.max(1) as i64 + 1;
        let rows = self.query(MEMBERS, &[&user.as_i64(), &chat.as_i64(), &after, &wanted]).await?;
        let checkpoint = checkpoint_of(&rows)?;
        if rows[0].try_get::<_, Option<i64>>("mine")?.is_none() {
            return Ok((checkpoint, None));
        }
        let mut members =
            rows.iter().filter_map(|row| member(row).transpose()).collect::<Result<Vec<_>, _>>()?;
        let more = members.len() as i64 == wanted;
        members.truncate(limit.max(1));
        let next = members.last().filter(|_| more).map(|member| member.user);
        Ok((checkpoint, Some(MemberPage { members, next })))
    }
}
