//! History: the messages of a chat in their current state.

use shared::id::{ChatId, UserId};
use tokio_postgres::Row;

use crate::{
    Checkpoint, Db, Error, PageFrom,
    checkpoint::from_checkpoint,
    kind::messages,
    message::{Message, join_overlay, join_stays, message, message_bytes, message_columns},
    pool::Param,
    replay::{bound, readable},
    states::checkpoint_of,
};

/// A page of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// Newest first for [`PageFrom::Before`], oldest first for [`PageFrom::After`].
    pub messages: Vec<Message>,
    /// There is more beyond the page.
    pub more: bool,
}

// `bytes` bounds the page ($5): the first message always passes.
macro_rules! history {
    ($bound:literal, $order:literal) => {
        concat!(
            readable!(),
            "SELECT c.*, mine.id AS mine, s.stay_from, s.stay_to, e.*",
            from_checkpoint!(),
            "LEFT JOIN mine ON true",
            join_stays!("mine.id", "mine.history"),
            "LEFT JOIN LATERAL (
                SELECT * FROM (
                SELECT ",
            message_columns!(),
            ", k.bytes, sum(k.bytes) OVER (ORDER BY e.seq ",
            $order,
            ") AS upto FROM (
                    SELECT e.* FROM readable CROSS JOIN LATERAL (
                        SELECT * FROM events e
                        WHERE e.chat_id = $2 AND e.kind IN (",
            messages!(),
            ") AND e.seq >= lo AND e.seq <= hi AND e.seq ",
            $bound,
            " $3 ORDER BY e.seq ",
            $order,
            " LIMIT $4
                    ) e ORDER BY e.seq ",
            $order,
            " LIMIT $4
                ) e",
            join_overlay!(),
            "CROSS JOIN LATERAL (SELECT ",
            message_bytes!(),
            " AS bytes) k ) e WHERE e.upto - e.bytes < $5
            ) e ON true ORDER BY e.seq ",
            $order
        )
    };
}
const AFTER: &str = history!(">", "ASC");
const BEFORE: &str = history!("<", "DESC");

impl Db {
    /// A page of the chat's messages as the user may read them; `None` if they are no member. As many as `limit`, and no
    /// more once they take `max_bytes` here.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn history(
        &self,
        user: UserId,
        chat: ChatId,
        from: PageFrom,
        limit: usize,
        max_bytes: usize,
    ) -> Result<(Checkpoint, Option<HistoryPage>), Error> {
        let (statement, seq) = match from {
            PageFrom::After(seq) => (AFTER, seq),
            PageFrom::Before(seq) => (BEFORE, seq),
        };
        // One more than wanted tells whether there is more.
        let (wanted, max_bytes) = (limit.max(1) as i64 + 1, max_bytes.max(1) as i64);
        let params: [Param<'_>; 5] = [&user.as_i64(), &chat.as_i64(), &bound(seq), &wanted, &max_bytes];
        let rows = self.query(statement, &params).await?;
        let checkpoint = checkpoint_of(&rows)?;
        if rows[0].try_get::<_, Option<i64>>("mine")?.is_none() {
            return Ok((checkpoint, None));
        }
        let one = |row: &Row| message(row).transpose();
        let mut messages = rows.iter().filter_map(one).collect::<Result<Vec<_>, _>>()?;
        let more = messages.len() as i64 == wanted || upto(&rows)? >= max_bytes;
        messages.truncate(limit.max(1));
        Ok((checkpoint, Some(HistoryPage { messages, more })))
    }
}

/// The bytes of all rows of a bounded page.
pub(crate) fn upto(rows: &[Row]) -> Result<i64, Error> {
    let Some(last) = rows.last() else { return Ok(0) };
    Ok(last.try_get::<_, Option<i64>>("upto")?.unwrap_or(0))
}
