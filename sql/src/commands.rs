//! Look-ups before an append: whether a command is stored already, and the message that it concerns.

use shared::{
    code::Code,
    id::{ChatId, Seq, UserId},
};
use uuid::Uuid;

use crate::{
    Checkpoint, Db, Error,
    accounts::user_id,
    chats::chat_id,
    checkpoint::from_checkpoint,
    kind::{messages, stale},
    states::{checkpoint_of, code},
};

/// A command's idempotency key.
pub type Key = (ChatId, UserId, Uuid);

/// A command that is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCommand {
    pub seq: Seq,
    pub ts_ms: u64,
    /// The event's bytes.
    pub payload: Vec<u8>,
    /// `None`: it is valid. [`shared::fold::STALE`]: every event of the command so far was stale, and this is the last.
    pub refused: Option<Code>,
}

/// The facts about a message that decide what may be done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageFact {
    pub author: UserId,
    pub deleted: bool,
}

// Of several copies the first counts: the fold took that one. A stale event is no copy, and of several the last tells
// how far its command has come.
const COMMAND: &str = concat!(
    "SELECT c.*, f.*",
    from_checkpoint!(),
    "LEFT JOIN LATERAL (
        SELECT seq, ts, payload, NULL AS code FROM events WHERE chat_id = $2 AND actor = $1 AND uuid = $3
        UNION ALL
        SELECT seq, ts, payload, code FROM refused WHERE chat_id = $2 AND actor = $1 AND uuid = $3
    ) f ON true ORDER BY coalesce(f.code = ",
    stale!(),
    ", false), CASE WHEN f.code = ",
    stale!(),
    " THEN -f.seq ELSE f.seq END LIMIT 1"
);
// The first copy of each command, valid or refused.
const FIRST_COPIES: &str = concat!(
    "SELECT c.*, q.chat_id, q.actor, q.uuid, f.seq",
    from_checkpoint!(),
    "LEFT JOIN LATERAL unnest($1::bigint[], $2::bigint[], $3::uuid[]) AS q (chat_id, actor, uuid) ON true
    LEFT JOIN LATERAL (
        SELECT least(
            (SELECT seq FROM events e WHERE e.chat_id = q.chat_id AND e.actor = q.actor AND e.uuid = q.uuid),
            (SELECT min(seq) FROM refused r
            WHERE r.chat_id = q.chat_id AND r.actor = q.actor AND r.uuid = q.uuid AND r.code <> ",
    stale!(),
    ")
        ) AS seq
    ) f ON true"
);
const FACT: &str = concat!(
    "SELECT c.*, e.actor, r.deleted_ts IS NOT NULL AS deleted",
    from_checkpoint!(),
    "LEFT JOIN events e ON e.chat_id = $1 AND e.seq = $2 AND e.kind IN (",
    messages!(),
    ")
    LEFT JOIN revisions r ON r.chat_id = e.chat_id AND r.seq = e.seq"
);
const EMOJI: &str = concat!(
    "SELECT c.*, r.emoji",
    from_checkpoint!(),
    "LEFT JOIN LATERAL (SELECT DISTINCT emoji FROM reactions WHERE chat_id = $1 AND seq = $2) r ON true"
);

impl Db {
    /// The command of this user, chat and uuid, as far as the projection has come.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn command(
        &self,
        actor: UserId,
        chat: ChatId,
        uuid: Uuid,
    ) -> Result<(Checkpoint, Option<StoredCommand>), Error> {
        let rows = self.query(COMMAND, &[&actor.as_i64(), &chat.as_i64(), &uuid]).await?;
        let checkpoint = checkpoint_of(&rows)?;
        let row = &rows[0];
        let Some(seq) = row.try_get::<_, Option<i64>>("seq")? else { return Ok((checkpoint, None)) };
        let ts: i64 = row.try_get("ts")?;
        let stored = StoredCommand {
            seq: seq.into(),
            ts_ms: ts as u64,
            payload: row.try_get("payload")?,
            refused: row.try_get::<_, Option<&str>>("code")?.map(code).transpose()?,
        };
        Ok((checkpoint, Some(stored)))
    }

    /// The first copies of those commands that are stored, valid or refused, as far as the projection has come. A stale
    /// event is no copy.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn first_copies(&self, keys: &[Key]) -> Result<(Checkpoint, Vec<(Key, Seq)>), Error> {
        let chats: Vec<i64> = keys.iter().map(|(chat, ..)| chat.as_i64()).collect();
        let actors: Vec<i64> = keys.iter().map(|(_, actor, _)| actor.as_i64()).collect();
        let uuids: Vec<Uuid> = keys.iter().map(|(.., uuid)| *uuid).collect();
        let rows = self.query(FIRST_COPIES, &[&chats, &actors, &uuids]).await?;
        let mut firsts = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(seq) = row.try_get::<_, Option<i64>>("seq")? {
                let chat = chat_id(row.try_get("chat_id")?)?;
                let actor = user_id(row.try_get("actor")?)?;
                firsts.push(((chat, actor, row.try_get("uuid")?), seq.into()));
            }
        }
        Ok((checkpoint_of(&rows)?, firsts))
    }

    /// The chat's message at `seq`; `None` if no message is there.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn message_fact(
        &self,
        chat: ChatId,
        seq: Seq,
    ) -> Result<(Checkpoint, Option<MessageFact>), Error> {
        let rows = self.query(FACT, &[&chat.as_i64(), &crate::replay::bound(seq)]).await?;
        let checkpoint = checkpoint_of(&rows)?;
        let author: Option<i64> = rows[0].try_get("actor")?;
        let deleted = rows[0].try_get("deleted")?;
        let fact = author.map(|author| Ok::<_, Error>(MessageFact { author: user_id(author)?, deleted }));
        Ok((checkpoint, fact.transpose()?))
    }

    /// The different emoji on a message.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn emoji_of(&self, chat: ChatId, seq: Seq) -> Result<(Checkpoint, Vec<String>), Error> {
        let rows = self.query(EMOJI, &[&chat.as_i64(), &crate::replay::bound(seq)]).await?;
        let emoji: Result<Vec<Option<String>>, Error> =
            rows.iter().map(|row| Ok(row.try_get("emoji")?)).collect();
        Ok((checkpoint_of(&rows)?, emoji?.into_iter().flatten().collect()))
    }
}
