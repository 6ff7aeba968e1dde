//! Table `memberships`: who was a member when, as intervals of sequences, and how far each has everything.

use shared::{
    id::{ChatId, Seq, UserId},
    permission::Role,
};
use tokio_postgres::Client;

use super::{
    events::Lost,
    row::{Write, columns, rows_as_q},
    table::{Compared, Table, Transaction},
};
use crate::{Error, kind::messages, states::role_number};

/// The mark of a closed interval is never read, and depends on where batches ended.
pub(super) const TABLES: &[Table] = &[Table {
    name: "memberships",
    compared: Compared::Columns(
        "chat_id, user_id, from_seq, to_seq, joined_seq, joined_ts, role, gone,
        CASE WHEN to_seq IS NULL THEN own_seq END",
    ),
}];

/// What a batch changes of memberships.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MembershipRows {
    pub closed: Vec<Closed>,
    pub opened: Vec<Opened>,
}

impl MembershipRows {
    pub(super) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.opened.is_empty()
    }
}

/// The end of an interval that was open before the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub chat: ChatId,
    pub user: UserId,
    /// The last event that the interval holds.
    pub to: Seq,
    /// Ended by leaving, and not by a change of the role.
    pub gone: bool,
}

columns!(Closed {
    chat_id: "bigint" = |closed| closed.chat.as_i64(),
    user_id: "bigint" = |closed| closed.user.as_i64(),
    to_seq: "bigint" = |closed| closed.to.as_i64(),
    gone: "boolean" = |closed| closed.gone,
});

/// A new interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub chat: ChatId,
    pub user: UserId,
    pub role: Role,
    pub from: Seq,
    /// It ended within the batch.
    pub to: Option<Seq>,
    pub gone: bool,
    pub origin: Origin,
}

/// Where a new interval's stay began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// In this batch.
    Joined { seq: Seq, ts_ms: u64, own_seq: Seq },
    /// Before it: as in the interval that the batch closed with `to`.
    Continues { to: Seq },
}

impl Origin {
    /// The event and the time of joining, and the member's own mark.
    fn joined(self) -> Option<(i64, i64, i64)> {
        match self {
            Self::Joined { seq, ts_ms, own_seq } => Some((seq.as_i64(), ts_ms as i64, own_seq.as_i64())),
            Self::Continues { .. } => None,
        }
    }

    /// The end of the interval that this one continues.
    fn base(self) -> Option<i64> {
        match self {
            Self::Joined { .. } => None,
            Self::Continues { to } => Some(to.as_i64()),
        }
    }
}

columns!(Opened {
    chat_id: "bigint" = |opened| opened.chat.as_i64(),
    user_id: "bigint" = |opened| opened.user.as_i64(),
    from_seq: "bigint" = |opened| opened.from.as_i64(),
    to_seq: "bigint" = |opened| opened.to.map(Seq::as_i64),
    joined_seq: "bigint" = |opened| opened.origin.joined().map(|(seq, ..)| seq),
    joined_ts: "bigint" = |opened| opened.origin.joined().map(|(_, ts, _)| ts),
    own_seq: "bigint" = |opened| opened.origin.joined().map(|(.., own)| own),
    role: "smallint" = |opened| role_number(opened.role),
    gone: "boolean" = |opened| opened.gone,
    base: "bigint" = |opened| opened.origin.base(),
});

/// The sender's own last message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnMark {
    pub chat: ChatId,
    pub user: UserId,
    pub seq: Seq,
}

columns!(OwnMark {
    chat_id: "bigint" = |mark| mark.chat.as_i64(),
    user_id: "bigint" = |mark| mark.user.as_i64(),
    seq: "bigint" = |mark| mark.seq.as_i64(),
});

/// The update of own marks, for a statement with a table `moved`; `first` is the number of its first parameter.
pub(super) fn raise_own_marks(first: usize) -> String {
    format!(
        "UPDATE memberships m SET own_seq = q.seq FROM moved, {}
        WHERE m.chat_id = q.chat_id AND m.user_id = q.user_id AND m.to_seq IS NULL AND m.own_seq < q.seq",
        rows_as_q::<OwnMark>(first)
    )
}

fn close() -> String {
    format!(
        "UPDATE memberships m SET to_seq = q.to_seq, gone = q.gone FROM {}
        WHERE m.chat_id = q.chat_id AND m.user_id = q.user_id AND m.to_seq IS NULL",
        rows_as_q::<Closed>(1)
    )
}

/// A stay that goes on takes its beginning and mark from the interval that was closed just before.
fn open() -> String {
    format!(
        "INSERT INTO memberships (chat_id, user_id, from_seq, to_seq, joined_seq, joined_ts, own_seq, role, gone)
        SELECT q.chat_id, q.user_id, q.from_seq, q.to_seq, coalesce(q.joined_seq, b.joined_seq),
            coalesce(q.joined_ts, b.joined_ts), coalesce(q.own_seq, b.own_seq), q.role, q.gone
        FROM {}
        LEFT JOIN memberships b ON b.chat_id = q.chat_id AND b.user_id = q.user_id AND b.to_seq = q.base",
        rows_as_q::<Opened>(1)
    )
}

const LOSE: &str = "DELETE FROM memberships WHERE chat_id = ANY($1) AND from_seq > $2";
// An interval that a change of the role closed ends just before the event that closed it.
const REOPEN: &str = "
    UPDATE memberships SET to_seq = NULL, gone = false
    WHERE chat_id = ANY($1) AND (to_seq > $2 OR (to_seq = $2 AND NOT gone))
    RETURNING chat_id, user_id";
// A closed interval need not know the last mark, so one that is open again gets it anew.
const RESET_OWN_MARKS: &str = concat!(
    "UPDATE memberships m SET own_seq = greatest(
        CASE WHEN m.joined_seq = c.created_seq THEN 0 ELSE m.joined_seq END,
        coalesce((SELECT max(e.seq) FROM events e
                  WHERE e.chat_id = m.chat_id AND e.actor = m.user_id AND e.kind IN (",
    messages!(),
    ")          AND e.seq >= m.joined_seq), 0))
    FROM unnest($1::bigint[], $2::bigint[]) AS q (chat_id, user_id), chats c
    WHERE m.chat_id = q.chat_id AND m.user_id = q.user_id AND c.id = m.chat_id
        AND (m.own_seq > $3 OR m.to_seq IS NULL)"
);

pub(super) struct Group {
    close: Write,
    open: Write,
}

impl Group {
    pub(super) async fn prepare(client: &Client, _: i16) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            close: Write::prepare(client, &close()).await?,
            open: Write::prepare(client, &open()).await?,
        })
    }

    pub(super) async fn write(
        &self,
        client: &Client,
        rows: &MembershipRows,
    ) -> Result<(), tokio_postgres::Error> {
        let (close, open) = (self.close.run(client, &rows.closed), self.open.run(client, &rows.opened));
        tokio::try_join!(biased; close, open).map(drop)
    }

    pub(super) async fn take_back(transaction: &Transaction<'_>, lost: &Lost) -> Result<(), Error> {
        let chats: Vec<i64> = lost.membership.iter().copied().collect();
        transaction.execute(LOSE, &[&chats, &lost.cut]).await?;
        let mut members = lost.senders.clone();
        for row in transaction.query(REOPEN, &[&chats, &lost.cut]).await? {
            members.insert((row.try_get(0)?, row.try_get(1)?));
        }
        let (chats, users): (Vec<i64>, Vec<i64>) = members.into_iter().unzip();
        transaction.execute(RESET_OWN_MARKS, &[&chats, &users, &lost.cut]).await?;
        Ok(())
    }
}
