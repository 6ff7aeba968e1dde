//! Chats as their members see them in a list: last message, own mark, unread.

use shared::{
    event::History,
    id::{ChatId, Seq, UserId},
    permission::{ChatType, Role},
};
use tokio_postgres::Row;

use crate::{
    Checkpoint, Db, Error,
    accounts::user_id,
    chats::chat_id,
    checkpoint::from_checkpoint,
    history::upto,
    kind::messages,
    message::{Message, join_overlay, join_stays, message, message_bytes, message_columns},
    pool::Param,
    states::{chat_type, checkpoint_of, history, role_of},
};

/// A chat, for one of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chat {
    pub id: ChatId,
    pub chat_type: ChatType,
    pub title: Option<String>,
    pub created_ms: u64,
    pub history: History,
    /// The first 100, ascending.
    pub member_ids: Vec<UserId>,
    pub member_count: u32,
    /// The reader's own role.
    pub role: Role,
    /// The last event of any kind.
    pub last_seq: Seq,
    /// The last message that the reader may see.
    pub last_message: Option<Message>,
    /// How far the reader has read; sending counts as reading.
    pub read_seq: Seq,
    /// Messages of others after `read_seq` that are not deleted.
    pub unread: u32,
}

/// A page of chats, newest activity first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatPage {
    pub chats: Vec<Chat>,
    /// Where the next page starts: pass it as `before`.
    pub next: Option<Seq>,
}

// `mine` are the memberships of the user ($1) with the head of each chat. All messages after a member's mark are of
// others, as sending moves the mark. So the number of unread ones is the head's message number less the mark's. The last
// messages bound the page by their bytes ($4): the first chat always passes.
macro_rules! chats {
    ($where:literal) => {
        concat!(
            "SELECT c.*, l.*",
            from_checkpoint!(),
            "LEFT JOIN LATERAL ( SELECT * FROM (
                SELECT sum(coalesce(e.bytes, 0)) OVER (ORDER BY mine.head DESC) AS upto,
                    ch.id, ch.type, ch.title, ch.created_ts, ch.history, ch.member_count, mine.role,
                    s.stay_from, s.stay_to, mine.head, p.ids AS member_ids, k.read_seq,
                    mine.n
                    - coalesce((SELECT n FROM events WHERE chat_id = ch.id AND seq <= k.read_seq
                                ORDER BY seq DESC LIMIT 1), 0)
                    - (SELECT count(*) FROM revisions r JOIN events d USING (chat_id, seq)
                       WHERE r.chat_id = ch.id AND r.seq > k.read_seq AND r.deleted_ts IS NOT NULL AND d.kind IN (",
            messages!(),
            ")) AS unread,
                    e.*
                FROM (
                    SELECT m.chat_id, m.role, m.own_seq, h.seq AS head, h.n, h.message_seq
                    FROM memberships m CROSS JOIN LATERAL (
                        SELECT seq, n, message_seq FROM events WHERE chat_id = m.chat_id ORDER BY seq DESC LIMIT 1
                    ) h
                    WHERE m.user_id = $1 AND m.to_seq IS NULL AND ",
            $where,
            "       ORDER BY h.seq DESC LIMIT $3
                ) mine
                JOIN chats ch ON ch.id = mine.chat_id
                LEFT JOIN read_marks rm ON rm.chat_id = ch.id AND rm.user_id = $1
                CROSS JOIN LATERAL (SELECT greatest(mine.own_seq, coalesce(rm.read_seq, 0)) AS read_seq) k
                CROSS JOIN LATERAL (
                    SELECT array_agg(user_id) AS ids FROM (
                        SELECT user_id FROM memberships WHERE chat_id = ch.id AND to_seq IS NULL
                        ORDER BY user_id LIMIT 100
                    ) first
                ) p
",
            join_stays!("ch.id", "ch.history"),
            "   LEFT JOIN LATERAL (
                    SELECT ",
            message_columns!(),
            ", ",
            message_bytes!(),
            "       AS bytes FROM events e",
            join_overlay!(),
            "       WHERE e.chat_id = ch.id AND e.seq = CASE WHEN ch.history = 'all' THEN mine.message_seq ELSE (
                        SELECT max(last.message_seq) FROM memberships v CROSS JOIN LATERAL (
                            SELECT message_seq FROM events
                            WHERE chat_id = v.chat_id AND seq <= coalesce(v.to_seq, mine.head)
                            ORDER BY seq DESC LIMIT 1
                        ) last
                        WHERE v.chat_id = ch.id AND v.user_id = $1 AND last.message_seq >= v.from_seq
                    ) END
                ) e ON true
            ) l WHERE l.upto - coalesce(l.bytes, 0) < $4 ) l ON true ORDER BY l.head DESC"
        )
    };
}
const LIST: &str = chats!("h.seq < $2");
const ONE: &str = chats!("m.chat_id = $2");

fn chat(row: &Row) -> Result<Option<Chat>, Error> {
    let Some(id) = row.try_get::<_, Option<i64>>("id")? else { return Ok(None) };
    let (created, head, read): (i64, i64, i64) =
        (row.try_get("created_ts")?, row.try_get("head")?, row.try_get("read_seq")?);
    let (count, unread): (i32, i64) = (row.try_get("member_count")?, row.try_get("unread")?);
    let members: Option<Vec<i64>> = row.try_get("member_ids")?;
    Ok(Some(Chat {
        id: chat_id(id)?,
        chat_type: chat_type(row.try_get("type")?)?,
        title: row.try_get("title")?,
        created_ms: created as u64,
        history: history(row.try_get("history")?)?,
        member_ids: members.unwrap_or_default().into_iter().map(user_id).collect::<Result<_, _>>()?,
        member_count: count.max(0) as u32,
        role: role_of(row.try_get("role")?)?,
        last_seq: head.into(),
        last_message: message(row)?,
        read_seq: read.into(),
        unread: unread.max(0) as u32,
    }))
}

impl Db {
    /// A page of the user's chats, newest activity first: those whose last event is before `before`. As many as `limit`,
    /// and no more once their last messages take `max_bytes` here.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn chats(
        &self,
        user: UserId,
        before: Option<Seq>,
        limit: usize,
        max_bytes: usize,
    ) -> Result<(Checkpoint, ChatPage), Error> {
        let before = before.map_or(i64::MAX, crate::replay::bound);
        // One more than wanted tells whether there is another page.
        let (wanted, max_bytes) = (limit.max(1) as i64 + 1, max_bytes.max(1) as i64);
        let (checkpoint, mut chats, bytes) =
            self.chat_rows(LIST, &[&user.as_i64(), &before, &wanted, &max_bytes]).await?;
        let more = chats.len() as i64 == wanted || bytes >= max_bytes;
        chats.truncate(limit.max(1));
        let next = chats.last().filter(|_| more).map(|chat| chat.last_seq);
        Ok((checkpoint, ChatPage { chats, next }))
    }

    /// One chat of the user; `None` if they are no member.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn chat(&self, user: UserId, chat: ChatId) -> Result<(Checkpoint, Option<Chat>), Error> {
        let params: [Param<'_>; 4] = [&user.as_i64(), &chat.as_i64(), &1_i64, &i64::MAX];
        let (checkpoint, mut chats, _) = self.chat_rows(ONE, &params).await?;
        Ok((checkpoint, chats.pop()))
    }

    /// The chats, and the bytes that their last messages take.
    async fn chat_rows(
        &self,
        statement: &'static str,
        params: &[Param<'_>],
    ) -> Result<(Checkpoint, Vec<Chat>, i64), Error> {
        let rows = self.query(statement, params).await?;
        let chats = rows.iter().filter_map(|row| chat(row).transpose()).collect::<Result<_, _>>()?;
        Ok((checkpoint_of(&rows)?, chats, upto(&rows)?))
    }
}
