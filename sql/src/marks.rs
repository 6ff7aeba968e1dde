//! Read and delivered marks: how far members have read and received. They only move forward; presence writes them in
//! bulk.

use shared::id::{ChatId, Seq, UserId};
use tokio_postgres::Row;

use crate::{Db, Error, accounts::user_id, chats::chat_id};

/// How far a member has read and received a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub chat: ChatId,
    pub user: UserId,
    pub read: Seq,
    pub delivered: Seq,
}

// A message that was read was delivered, hence the second `greatest`. Rows are locked in one order, so that two writers
// wait for each other instead of deadlocking. A mark that is not ahead writes nothing.
const RAISE: &str = "
    INSERT INTO read_marks AS m (chat_id, user_id, read_seq, delivered_seq)
    SELECT chat_id, user_id, max(read), max(greatest(read, delivered))
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS q (chat_id, user_id, read, delivered)
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (chat_id, user_id) DO UPDATE SET
        read_seq = greatest(m.read_seq, excluded.read_seq),
        delivered_seq = greatest(m.delivered_seq, excluded.delivered_seq)
    WHERE m.read_seq < excluded.read_seq OR m.delivered_seq < excluded.delivered_seq
    RETURNING chat_id, user_id, read_seq, delivered_seq";
const OF_CHATS: &str = "
    SELECT k.chat_id, k.user_id, k.read_seq, k.delivered_seq FROM unnest($1::bigint[]) AS q (chat_id)
    CROSS JOIN LATERAL (
        SELECT k.* FROM read_marks k JOIN memberships m USING (chat_id, user_id)
        WHERE k.chat_id = q.chat_id AND m.to_seq IS NULL LIMIT $2
    ) k";

pub(crate) fn mark(row: &Row) -> Result<Mark, Error> {
    let (read, delivered): (i64, i64) = (row.try_get("read_seq")?, row.try_get("delivered_seq")?);
    Ok(Mark {
        chat: chat_id(row.try_get("chat_id")?)?,
        user: user_id(row.try_get("user_id")?)?,
        read: read.into(),
        delivered: delivered.into(),
    })
}

impl Db {
    /// Moves marks forward, many at once; returns those that moved, as they are now.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn raise_marks(&self, marks: &[Mark]) -> Result<Vec<Mark>, Error> {
        let chats: Vec<i64> = marks.iter().map(|mark| mark.chat.as_i64()).collect();
        let users: Vec<i64> = marks.iter().map(|mark| mark.user.as_i64()).collect();
        let read: Vec<i64> = marks.iter().map(|mark| mark.read.as_i64()).collect();
        let delivered: Vec<i64> = marks.iter().map(|mark| mark.delivered.as_i64()).collect();
        let rows = self.query(RAISE, &[&chats, &users, &read, &delivered]).await?;
        rows.iter().map(mark).collect()
    }

    /// The marks of the chats' members, at most `per_chat` of each chat.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn marks_of_chats(&self, chats: &[ChatId], per_chat: usize) -> Result<Vec<Mark>, Error> {
        let chats: Vec<i64> = chats.iter().map(|chat| chat.as_i64()).collect();
        let rows = self.query(OF_CHATS, &[&chats, &(per_chat as i64)]).await?;
        rows.iter().map(mark).collect()
    }
}
