//! Table `events`: every valid event of every chat, complete enough to replay it.
//!
//! Written by the statement of [`super::fold`], as the checkpoint moves with the events.

use std::collections::BTreeSet;

use shared::{
    event::Kind,
    id::{ChatId, EventId, Seq, UserId},
};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    row::{columns, names, rows_as_q},
    table::{Table, Transaction},
};
use crate::Error;

pub(super) const TABLES: &[Table] = &[Table::compared("events")];

/// A valid event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent<'a> {
    pub chat: ChatId,
    pub seq: Seq,
    pub prev: Seq,
    /// The chat's last message up to and including this event.
    pub message_seq: Seq,
    /// The chat's messages up to and including this event.
    pub n: u32,
    pub id: EventId,
    pub ts_ms: u64,
    pub kind: Kind,
    pub actor: UserId,
    pub uuid: Uuid,
    /// The message that it concerns.
    pub target: Option<Seq>,
    pub payload: &'a [u8],
}

columns!(NewEvent<'_> {
    chat_id: "bigint" = |event| event.chat.as_i64(),
    seq: "bigint" = |event| event.seq.as_i64(),
    prev: "bigint" = |event| event.prev.as_i64(),
    message_seq: "bigint" = |event| event.message_seq.as_i64(),
    id: "bigint" = |event| event.id.as_i64(),
    ts: "bigint" = |event| event.ts_ms as i64,
    actor: "bigint" = |event| event.actor.as_i64(),
    n: "int" = |event| event.n as i32,
    kind: "smallint" = |event| event.kind.as_i16(),
    uuid: "uuid" = |event| event.uuid,
    target: "bigint" = |event| event.target.map(Seq::as_i64),
    payload: "bytea" = |event| event.payload,
});

/// The insert, for a statement with a table `moved` that holds the partition. `first` is the number of its first
/// parameter.
pub(super) fn insert(first: usize) -> String {
    format!(
        "INSERT INTO events (partition, {}) SELECT moved.partition, {} FROM moved, {}",
        names::<NewEvent<'_>>(""),
        names::<NewEvent<'_>>("q."),
        rows_as_q::<NewEvent<'_>>(first)
    )
}

const LOSE: &str = "
    WITH lost AS (DELETE FROM events WHERE seq > $2 AND partition = $1 RETURNING chat_id, actor, kind, target)
    SELECT DISTINCT chat_id, actor, kind, target FROM lost";

/// What lies above a cut, and what of the rows below it the lost events had touched.
pub(crate) struct Lost {
    pub(crate) partition: i16,
    /// The last event that survived.
    pub(crate) cut: i64,
    pub(crate) chats: BTreeSet<i64>,
    /// Chats whose members changed.
    pub(crate) membership: BTreeSet<i64>,
    /// Chats whose title or settings changed.
    pub(crate) settings: BTreeSet<i64>,
    /// Messages that were edited, deleted or reacted to.
    pub(crate) messages: BTreeSet<(i64, i64)>,
    /// Members who sent messages, by chat.
    pub(crate) senders: BTreeSet<(i64, i64)>,
}

/// Deletes the events above the cut.
pub(super) async fn take_back(
    transaction: &Transaction<'_>,
    partition: i16,
    cut: i64,
) -> Result<Lost, Error> {
    let rows = transaction.query(LOSE, &[&partition, &cut]).await?;
    let mut lost = Lost {
        partition,
        cut,
        chats: BTreeSet::new(),
        membership: BTreeSet::new(),
        settings: BTreeSet::new(),
        messages: BTreeSet::new(),
        senders: BTreeSet::new(),
    };
    for row in &rows {
        lost.add(row)?;
    }
    Ok(lost)
}

impl Lost {
    fn add(&mut self, row: &Row) -> Result<(), Error> {
        let (chat, actor, kind): (i64, i64, i16) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        self.chats.insert(chat);
        match Kind::from_i16(kind).ok_or(Error::Corrupt("an event's kind is unknown"))? {
            // A creation says the chat's title and settings as well; the chat goes with it.
            Kind::ChatCreated | Kind::MembersJoined | Kind::MemberLeft | Kind::RoleChanged => {
                self.membership.insert(chat);
            }
            Kind::TitleChanged | Kind::SettingsChanged => {
                self.settings.insert(chat);
            }
            Kind::MessageSent => {
                self.senders.insert((chat, actor));
            }
            // Their target, below, says which message they touched.
            Kind::MessageEdited | Kind::MessageDeleted | Kind::Reacted => {}
            // Of no chat, so never a row.
            Kind::Noop => {}
        }
        if let Some(target) = row.try_get::<_, Option<i64>>(3)? {
            self.messages.insert((chat, target));
        }
        Ok(())
    }
}
