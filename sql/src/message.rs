//! A message in its current state: the event that sent it, overlaid by its last edit or its deletion.

use serde::Deserialize;
use shared::{
    entitlement::{Sight, Stay},
    event::{Event, Fact, Mention},
    id::{ChatId, Seq, UserId},
};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{Error, accounts::user_id, chats::chat_id};

/// A message as history shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub chat: ChatId,
    pub seq: Seq,
    pub prev: Seq,
    pub uuid: Uuid,
    pub from: UserId,
    /// Empty once deleted.
    pub body: String,
    pub ts_ms: u64,
    pub reply_to: Option<Seq>,
    pub mentions: Vec<Mention>,
    pub edited_ms: Option<u64>,
    pub deleted: bool,
    /// In the order in which each emoji was first used.
    pub reactions: Vec<Reaction>,
}

/// An emoji on a message and who put it there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Reaction {
    pub emoji: String,
    pub count: u64,
    /// The first 100.
    pub user_ids: Vec<UserId>,
}

/// The columns of a [`Message`]; `e` is its event.
macro_rules! message_columns {
    () => {
        "e.chat_id, e.seq, e.prev, e.uuid, e.actor, e.ts, e.payload, r.edited_ts, r.deleted_ts,
        r.payload AS revised, x.reactions "
    };
}
macro_rules! join_overlay {
    () => {
        " LEFT JOIN revisions r ON r.chat_id = e.chat_id AND r.seq = e.seq
        LEFT JOIN LATERAL (
            SELECT json_agg(json_build_array(emoji, count, users) ORDER BY first, emoji)::text AS reactions
            FROM (
                SELECT emoji, count(*) AS count, min(at_seq) AS first,
                    (array_agg(user_id ORDER BY at_seq, user_id))[1:100] AS users
                FROM reactions WHERE chat_id = e.chat_id AND seq = e.seq GROUP BY emoji
            ) g
        ) x ON r.deleted_ts IS NULL "
    };
}
/// The bytes that a message takes here; behind [`join_overlay`].
macro_rules! message_bytes {
    () => {
        "coalesce(octet_length(e.payload), 0) + coalesce(octet_length(r.payload), 0)
        + coalesce(octet_length(x.reactions), 0)"
    };
}
/// The stays of the user ($1) in a chat whose history is not open to them, as the columns `stay_from` and `stay_to`,
/// which are null for a chat whose history is open. A change of role ends a row of `memberships` too, which makes no
/// difference here. Of each user only the newest rows count, as many as `MAX_FORMER_STAYS`, since every message of a page
/// comes with them.
macro_rules! join_stays {
    ($chat:literal, $history:literal) => {
        concat!(
            " LEFT JOIN LATERAL (
                SELECT array_agg(from_seq) AS stay_from, array_agg(coalesce(to_seq, 0)) AS stay_to FROM (
                    SELECT from_seq, to_seq FROM memberships WHERE chat_id = ",
            $chat,
            " AND user_id = $1 AND ",
            $history,
            " <> 'all' ORDER BY from_seq DESC LIMIT 256
                ) newest
            ) s ON true "
        )
    };
}
pub(crate) use {join_overlay, join_stays, message_bytes, message_columns};

/// What the user sees of the chat, by the columns of `join_stays`.
fn sight(row: &Row) -> Result<Sight, Error> {
    let Some(from) = row.try_get::<_, Option<Vec<i64>>>("stay_from")? else { return Ok(Sight::Everything) };
    let to: Vec<i64> = row.try_get("stay_to")?;
    let stay = |(from, to): (i64, i64)| Stay { from: from.into(), to: (to > 0).then(|| to.into()) };
    Ok(Sight::Stays(from.into_iter().zip(to).map(stay).collect()))
}

/// `None` for a row without a message. The row has the columns of `join_stays`, too: the message that this one answers
/// is not named to a user who does not read it.
pub(crate) fn message(row: &Row) -> Result<Option<Message>, Error> {
    let Some(payload) = row.try_get::<_, Option<&[u8]>>("payload")? else { return Ok(None) };
    let Fact::MessageSent(sent) = decode(payload)?.fact else {
        return Err(Error::Corrupt("an event of another kind stands for a message"));
    };
    let (seq, prev, ts): (i64, i64, i64) = (row.try_get("seq")?, row.try_get("prev")?, row.try_get("ts")?);
    let edited: Option<i64> = row.try_get("edited_ts")?;
    let mut message = Message {
        chat: chat_id(row.try_get("chat_id")?)?,
        seq: seq.into(),
        prev: prev.into(),
        uuid: row.try_get("uuid")?,
        from: user_id(row.try_get("actor")?)?,
        body: sent.body,
        ts_ms: ts as u64,
        reply_to: sent
            .reply_to
            .map(|to| sight(row).map(|sight| sight.reads(to).then_some(to)))
            .transpose()?
            .flatten(),
        mentions: sent.mentions,
        edited_ms: edited.map(|ts| ts as u64),
        deleted: row.try_get::<_, Option<i64>>("deleted_ts")?.is_some(),
        reactions: Vec::new(),
    };
    if message.deleted {
        message.body.clear();
        message.mentions.clear();
        return Ok(Some(message));
    }
    if let Some(revised) = row.try_get::<_, Option<&[u8]>>("revised")? {
        let Fact::MessageEdited(edited) = decode(revised)?.fact else {
            return Err(Error::Corrupt("an event of another kind stands for an edit"));
        };
        (message.body, message.mentions) = (edited.body, edited.mentions);
    }
    if let Some(reactions) = row.try_get::<_, Option<&str>>("reactions")? {
        message.reactions =
            serde_json::from_str(reactions).map_err(|error| Error::undecodable("reactions", error))?;
    }
    Ok(Some(message))
}

/// A stored event.
pub(crate) fn decode(payload: &[u8]) -> Result<Event, Error> {
    Event::decode(payload).map_err(|error| Error::undecodable("a stored event", error))
}
