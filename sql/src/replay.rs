//! Events of the log as the projection keeps them: the events that a device missed, and pages of one chat.
//!
//! Invariant: a row is returned only to a user who was entitled to it at its sequence (or may read the chat's whole
//! history), and a row that was deleted later says so.

use shared::{
    event::Kind,
    id::{ChatId, Seq, UserId},
};
use tokio_postgres::Row;

use crate::{
    Checkpoint, Db, Error, chats::chat_id, checkpoint::from_checkpoint, kind::texts, states::checkpoint_of,
};

/// An event as it is delivered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    pub chat: ChatId,
    pub seq: Seq,
    pub prev: Seq,
    pub ts_ms: u64,
    pub kind: Kind,
    /// The event's bytes, as in the log.
    pub payload: Vec<u8>,
    /// The message, or the message that this edit concerns, is deleted: its text must not be served.
    pub deleted: bool,
}

/// A piece of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Ascending by sequence.
    pub events: Vec<EventRow>,
    /// Complete up to here: every event in the asked range to which the user is entitled is among them.
    pub upto: Seq,
}

/// A page of one chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Ascending by sequence.
    pub events: Vec<EventRow>,
    /// There is more beyond the page.
    pub more: bool,
}

/// Which events of a chat a page wants; the bounds are exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageFrom {
    /// The oldest ones after this sequence.
    After(Seq),
    /// The newest ones before this sequence.
    Before(Seq),
}

/// The columns of an [`EventRow`], and the join that tells whether its text is gone. `e` is the event.
macro_rules! event_columns {
    () => {
        "e.chat_id, e.seq, e.prev, e.ts, e.kind, e.payload, r.deleted_ts IS NOT NULL AS deleted"
    };
}
macro_rules! join_deletion {
    () => {
        concat!(
            " LEFT JOIN revisions r ON r.chat_id = e.chat_id AND r.seq = coalesce(e.target, e.seq)
            AND e.kind IN (",
            texts!(),
            ") AND r.deleted_ts IS NOT NULL "
        )
    };
}

/// The ranges of sequences that the user ($1) may read of a chat ($2) of which they are a member. None for others.
macro_rules! readable {
    () => {
        "WITH mine AS MATERIALIZED (
            SELECT ch.id, ch.history FROM chats ch
            JOIN memberships m ON m.chat_id = ch.id AND m.user_id = $1 AND m.to_seq IS NULL
            WHERE ch.id = $2
        ),
        readable (lo, hi) AS MATERIALIZED (
            SELECT 0::bigint, 9223372036854775807 FROM mine WHERE history = 'all'
            UNION ALL
            SELECT m.from_seq, coalesce(m.to_seq, 9223372036854775807)
            FROM mine JOIN memberships m ON m.chat_id = mine.id AND m.user_id = $1 WHERE mine.history <> 'all'
        ) "
    };
}
pub(crate) use readable;

// `size` bounds the bytes: the first event always passes.
const REPLAY: &str = concat!(
    "SELECT c.*, e.*",
    from_checkpoint!(),
    "LEFT JOIN LATERAL (
        SELECT * FROM (
            SELECT ",
    event_columns!(),
    ", sum(octet_length(e.payload)) OVER (ORDER BY e.seq) - octet_length(e.payload) AS size
            FROM (
                SELECT e.* FROM memberships m
                CROSS JOIN LATERAL (
                    SELECT * FROM events e
                    WHERE e.chat_id = m.chat_id AND e.seq > $2 AND e.seq >= m.from_seq AND e.seq <= $3
                        AND e.seq <= coalesce(m.to_seq, $3)
                    ORDER BY e.seq LIMIT $4
                ) e
                WHERE m.user_id = $1 AND (m.to_seq IS NULL OR m.to_seq > $2) AND m.from_seq <= $3
                ORDER BY e.seq LIMIT $4
            ) e",
    join_deletion!(),
    "   ) e WHERE e.size < $5
    ) e ON true ORDER BY e.seq"
);

macro_rules! page {
    ($bound:literal, $order:literal) => {
        concat!(
            readable!(),
            "SELECT c.*, mine.id AS mine, e.*",
            from_checkpoint!(),
            "LEFT JOIN mine ON true LEFT JOIN LATERAL (
                SELECT * FROM (
                    SELECT ",
            event_columns!(),
            ", sum(octet_length(e.payload)) OVER (ORDER BY e.seq ",
            $order,
            ") - octet_length(e.payload) AS size
                    FROM (
                        SELECT e.* FROM readable CROSS JOIN LATERAL (
                            SELECT * FROM events e
                            WHERE e.chat_id = $2 AND e.seq >= lo AND e.seq <= hi AND e.seq ",
            $bound,
            " $3 ORDER BY e.seq ",
            $order,
            " LIMIT $4
                        ) e ORDER BY e.seq ",
            $order,
            " LIMIT $4
                    ) e",
            join_deletion!(),
            "   ) e WHERE e.size < $5
            ) e ON true ORDER BY e.seq ",
            $order
        )
    };
}
const PAGE_AFTER: &str = page!(">", "ASC");
const PAGE_BEFORE: &str = page!("<", "DESC");

/// `None` for the row that only carries the checkpoint.
fn event_row(row: &Row) -> Result<Option<EventRow>, Error> {
    let Some(seq) = row.try_get::<_, Option<i64>>("seq")? else { return Ok(None) };
    let (kind, prev, ts): (i16, i64, i64) = (row.try_get("kind")?, row.try_get("prev")?, row.try_get("ts")?);
    Ok(Some(EventRow {
        chat: chat_id(row.try_get("chat_id")?)?,
        seq: seq.into(),
        prev: prev.into(),
        ts_ms: ts.max(0) as u64,
        kind: Kind::from_i16(kind).ok_or(Error::Corrupt("an event's kind is unknown"))?,
        payload: row.try_get("payload")?,
        deleted: row.try_get("deleted")?,
    }))
}

fn event_rows(rows: &[Row]) -> Result<Vec<EventRow>, Error> {
    rows.iter().filter_map(|row| event_row(row).transpose()).collect()
}

impl Db {
    /// The events in `(after, upto]` of all chats at the sequences of which the user was a member (their own removal
    /// included): at most `limit`, and no more once they hold `max_bytes`.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn replay(
        &self,
        user: UserId,
        after: Seq,
        upto: Seq,
        limit: usize,
        max_bytes: usize,
    ) -> Result<(Checkpoint, Replay), Error> {
        let (limit, bytes) = (limit.max(1) as i64, max_bytes.max(1) as i64);
        let rows =
            self.query(REPLAY, &[&user.as_i64(), &after.as_i64(), &upto.as_i64(), &limit, &bytes]).await?;
        let checkpoint = checkpoint_of(&rows)?;
        let events = event_rows(&rows)?;
        let held: usize = events.iter().map(|event| event.payload.len()).sum();
        let cut_short = events.len() as i64 == limit || held as i64 >= bytes;
        let upto = match events.last() {
            Some(last) if cut_short => last.seq,
            _ => upto.min(checkpoint.position.seq),
        };
        Ok((checkpoint, Replay { events, upto }))
    }

    /// A page of a chat's events, or `None` if the user is no member of it. As many as `limit`, and no more once
    /// they hold `max_bytes`.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn page(
        &self,
        user: UserId,
        chat: ChatId,
        from: PageFrom,
        limit: usize,
        max_bytes: usize,
    ) -> Result<(Checkpoint, Option<Page>), Error> {
        let (statement, bound) = match from {
            PageFrom::After(seq) => (PAGE_AFTER, bound(seq)),
            PageFrom::Before(seq) => (PAGE_BEFORE, bound(seq)),
        };
        // One more than wanted tells whether there is more.
        let (wanted, bytes) = (limit.max(1) as i64 + 1, max_bytes.max(1) as i64);
        let rows = self.query(statement, &[&user.as_i64(), &chat.as_i64(), &bound, &wanted, &bytes]).await?;
        let checkpoint = checkpoint_of(&rows)?;
        if rows[0].try_get::<_, Option<i64>>("mine")?.is_none() {
            return Ok((checkpoint, None));
        }
        let mut events = event_rows(&rows)?;
        let held: usize = events.iter().map(|event| event.payload.len()).sum();
        let more = events.len() as i64 == wanted || held >= max_bytes;
        events.truncate(limit.max(1));
        if matches!(from, PageFrom::Before(_)) {
            events.reverse();
        }
        Ok((checkpoint, Some(Page { events, more })))
    }
}

/// A client's bound as a `bigint`. Bounds above the largest `bigint` mean the same as that.
pub(crate) fn bound(seq: Seq) -> i64 {
    i64::try_from(seq.get()).unwrap_or(i64::MAX)
}
