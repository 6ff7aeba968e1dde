//! A projector's session: lock, loads and look-ups.

use std::time::Duration;

use shared::{
    fold::ChatState,
    id::{ChatId, Seq},
};
use tokio::{task::JoinSet, time::timeout};
use tokio_postgres::{Client, NoTls, Row, Statement};
use uuid::Uuid;

use super::{fold::Fold, groups::Groups};
use crate::{
    Checkpoint, Db, Error,
    accounts::user_id,
    chats::chat_id,
    checkpoint::CHECKPOINT,
    commands::Key,
    kind::{deletions, stale},
    states::{join_state, state_columns, state_of},
};

/// The class of our advisory locks: "MT".
const LOCK_CLASS: i32 = 0x4D54;
/// A session that says nothing for this long has stopped, and the server ends it, so that its lock goes to a
/// standby. A living one says something every second.
const LEASE: Duration = Duration::from_secs(5);

const ENSURE: &str = "INSERT INTO checkpoints VALUES ($1, 0, 0, 0, 0) ON CONFLICT DO NOTHING";
const LOCK: &str = "SELECT pg_try_advisory_lock($1, $2)";
/// The first statement of a batch's transaction, so that one that waits for a transaction which steps the checkpoint
/// back waits here, and not later with rows that the other wants.
const LOCK_CHECKPOINT: &str = "SELECT FROM checkpoints WHERE partition = $1 FOR UPDATE";
const LOAD: &str = concat!(
    "SELECT q.chat_id, ",
    state_columns!(),
    ", h.seq, h.message_seq, h.n,
        EXISTS (SELECT 1 FROM refused WHERE chat_id = q.chat_id) AS has_refused
    FROM unnest($1::bigint[]) AS q (chat_id)",
    join_state!(),
    "LEFT JOIN LATERAL (
        SELECT seq, message_seq, n FROM events WHERE chat_id = q.chat_id ORDER BY seq DESC LIMIT 1
    ) h ON ch.id IS NOT NULL"
);
const STORED: &str = concat!(
    "SELECT q.chat_id, q.actor, q.uuid FROM unnest($1::bigint[], $2::bigint[], $3::uuid[]) AS q (chat_id, actor, uuid)
    WHERE EXISTS (SELECT 1 FROM events e WHERE e.chat_id = q.chat_id AND e.actor = q.actor AND e.uuid = q.uuid)
       OR EXISTS (
           SELECT 1 FROM refused r
           WHERE r.chat_id = q.chat_id AND r.actor = q.actor AND r.uuid = q.uuid AND r.code <> ",
    stale!(),
    ")"
);
const LAST_CHAT_ID: &str = "SELECT last_value FROM chat_ids";

/// A chat as the projection holds it: what the next batch continues from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChat {
    pub chat: ChatId,
    pub state: Option<ChatState>,
    pub head: Seq,
    pub message_seq: Seq,
    pub n: u32,
    /// Some command of the chat was refused.
    pub has_refused: bool,
}

/// A projector's session: a connection that is not shared, its prepared statements, and the partition's lock once
/// [`Writer::try_lock`] got it.
pub struct Writer {
    pub(super) client: Client,
    pub(super) statements: Statements,
    pub(super) partition: i16,
    pub(super) patience: Duration,
    /// The task that moves the connection's bytes. The set ends it when the writer is dropped, and the socket with it:
    /// a transaction under way is committed or not. The lock lasts until then, so that the next projector to get it
    /// finds the checkpoint that tells.
    connection: JoinSet<()>,
}

/// Prepared once a session.
pub(super) struct Statements {
    pub(super) lock: Statement,
    pub(super) fold: Fold,
    pub(super) groups: Groups,
    load: Statement,
    stored: Statement,
}

impl Statements {
    async fn prepare(client: &Client, partition: i16) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            lock: client.prepare(LOCK_CHECKPOINT).await?,
            fold: Fold::prepare(client).await?,
            groups: Groups::prepare(client, partition).await?,
            load: client.prepare(LOAD).await?,
            stored: client.prepare(STORED).await?,
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.connection.try_join_next() {
            tracing::error!(%error, "the task of the projector's session panicked");
        }
    }
}

impl Writer {
    /// Opens a session for the partition.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn connect(db: &Db, partition: i16) -> Result<Self, Error> {
        Self::connect_to(db, partition, "public").await
    }

    /// Opens a session for the partition of the projection in a schema.
    pub(crate) async fn connect_to(db: &Db, partition: i16, schema: &'static str) -> Result<Self, Error> {
        let patience = db.statement_timeout();
        timeout(patience, Self::open(db, partition, schema, patience)).await.unwrap_or(Err(Error::timeout()))
    }

    async fn open(db: &Db, partition: i16, schema: &str, patience: Duration) -> Result<Self, Error> {
        let mut config = db.config().clone();
        let lease_ms = LEASE.as_millis();
        // The log is the truth and the checkpoint is in the same transaction: what a crash of the server takes back
        // is folded again. So no commit waits for the disk.
        let options = format!(
            "{} -c search_path={schema} -c synchronous_commit=off -c idle_session_timeout={lease_ms} \
             -c idle_in_transaction_session_timeout={lease_ms}",
            config.get_options().unwrap_or_default()
        );
        config.options(&options);
        let (client, connection) = config.connect(NoTls).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "the projector's session ended");
            }
        });
        client.execute(ENSURE, &[&partition]).await?;
        let statements = Statements::prepare(&client, partition).await?;
        Ok(Self { client, statements, partition, patience, connection: tasks })
    }

    /// Takes the partition's lock if nobody has it. It is held until the session ends.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn try_lock(&self) -> Result<bool, Error> {
        let row =
            self.bounded(self.client.query_one(LOCK, &[&LOCK_CLASS, &i32::from(self.partition)])).await?;
        Ok(row.try_get(0)?)
    }

    /// Where the projection stands. Also shows the server, every second or so, that the session lives.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn checkpoint(&self) -> Result<Checkpoint, Error> {
        let row = self.bounded(self.client.query_one(CHECKPOINT, &[&self.partition])).await?;
        Checkpoint::of(&row)
    }

    /// The chats as they stand, also those that do not exist yet.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn load(&self, chats: &[ChatId]) -> Result<Vec<StoredChat>, Error> {
        let chats: Vec<i64> = chats.iter().map(|chat| chat.as_i64()).collect();
        let rows = self.bounded(self.client.query(&self.statements.load, &[&chats])).await?;
        rows.iter().map(stored_chat).collect()
    }

    /// Those of the keys under which a command is stored already, valid or refused. A stale event is no copy.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn stored_keys(&self, keys: &[Key]) -> Result<Vec<Key>, Error> {
        let chats: Vec<i64> = keys.iter().map(|(chat, ..)| chat.as_i64()).collect();
        let actors: Vec<i64> = keys.iter().map(|(_, actor, _)| actor.as_i64()).collect();
        let uuids: Vec<Uuid> = keys.iter().map(|(.., uuid)| *uuid).collect();
        let rows =
            self.bounded(self.client.query(&self.statements.stored, &[&chats, &actors, &uuids])).await?;
        let key = |row: &Row| Ok((chat_id(row.try_get(0)?)?, user_id(row.try_get(1)?)?, row.try_get(2)?));
        rows.iter().map(key).collect()
    }

    /// The last id of a chat that the database gave.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn last_chat_id(&self) -> Result<ChatId, Error> {
        let row = self.bounded(self.client.query_one(LAST_CHAT_ID, &[])).await?;
        chat_id(row.try_get(0)?)
    }

    pub(super) async fn bounded<T>(
        &self,
        query: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        match timeout(self.patience, query).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(Error::timeout()),
        }
    }
}

fn stored_chat(row: &Row) -> Result<StoredChat, Error> {
    let seq = |column| Ok::<_, Error>(row.try_get::<_, Option<i64>>(column)?.unwrap_or(0).into());
    let n: Option<i32> = row.try_get("n")?;
    Ok(StoredChat {
        chat: chat_id(row.try_get("chat_id")?)?,
        state: state_of(row)?,
        head: seq("seq")?,
        message_seq: seq("message_seq")?,
        n: n.unwrap_or(0).max(0) as u32,
        has_refused: row.try_get("has_refused")?,
    })
}
