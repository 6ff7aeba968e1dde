//! Partners in direct chats, to whom presence announces a user, and the marks that it announces.

use shared::id::{ChatId, UserId};

use crate::{
    Db, Error,
    accounts::user_id,
    marks::{Mark, mark},
};

// A pair may be claimed without that its chat was ever created, or have lost it with the log's tail.
const PARTNERS: &str = "
    SELECT q.user_id, p.partner FROM unnest($1::bigint[]) AS q (user_id)
    CROSS JOIN LATERAL (
        (SELECT hi AS partner FROM direct_pairs JOIN chats ON id = chat_id WHERE lo = q.user_id LIMIT $2)
        UNION ALL (SELECT lo FROM direct_pairs JOIN chats ON id = chat_id WHERE hi = q.user_id LIMIT $2)
    ) p";
const MARKS: &str = "
    SELECT chat_id, user_id, read_seq, delivered_seq
    FROM unnest($1::bigint[], $2::bigint[]) AS q (chat_id, user_id) JOIN read_marks USING (chat_id, user_id)";

impl Db {
    /// Pairs of one of the users and a partner in a direct chat; at most `per_user` in either direction of ids.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn partners(&self, users: &[UserId], per_user: usize) -> Result<Vec<(UserId, UserId)>, Error> {
        let users: Vec<i64> = users.iter().map(|user| user.as_i64()).collect();
        let rows = self.query(PARTNERS, &[&users, &(per_user as i64)]).await?;
        rows.iter().map(|row| Ok((user_id(row.try_get(0)?)?, user_id(row.try_get(1)?)?))).collect()
    }

    /// The marks of these members, as they are now.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn marks_of(&self, members: &[(ChatId, UserId)]) -> Result<Vec<Mark>, Error> {
        let chats: Vec<i64> = members.iter().map(|(chat, _)| chat.as_i64()).collect();
        let users: Vec<i64> = members.iter().map(|(_, user)| user.as_i64()).collect();
        let rows = self.query(MARKS, &[&chats, &users]).await?;
        rows.iter().map(mark).collect()
    }
}
