//! The transaction of a batch.

use shared::id::Position;
use tokio_postgres::{Client, Statement, types::ToSql};

use super::{
    ChatChange, Closed, DeadLetter, NewChat, Opened, Origin, Refused, Rows, Writer, session::prepare_reads,
};
use crate::{
    Checkpoint, Error,
    error::is_command_key,
    overlay::{DELETE_REACTIONS, WRITE_REACTIONS, WRITE_REVISIONS},
    states::role_number,
};

/// How a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Its rows and the checkpoint are there.
    Yes,
    /// The checkpoint is not where the batch starts: somebody else moved it. Nothing was written.
    Moved,
    /// A command is stored under the key of another event of the batch. Nothing was written.
    DuplicateKey,
}

/// Before anything else, so that a transaction waits here for one that steps the checkpoint back, and not later with
/// rows that the other wants.
const LOCK: &str = "SELECT FROM checkpoints WHERE partition = $1 FOR UPDATE";
/// What nearly every batch consists of, in one statement: the checkpoint's compare-and-set, and nothing if it fails;
/// the events; how far their authors have everything. Most transactions are this and no more, one round trip.
const FOLD: &str = "
    WITH moved AS (
        UPDATE checkpoints SET seq = $5, id = $6, updated_ts = $7
        WHERE partition = $1 AND epoch = $2 AND seq = $3 AND id = $4
        RETURNING partition
    ), written AS (
        INSERT INTO events
            (chat_id, seq, prev, message_seq, id, ts, actor, n, kind, partition, uuid, target, payload)
        SELECT q.chat_id, q.seq, q.prev, q.message_seq, q.id, q.ts, q.actor, q.n, q.kind, moved.partition, q.uuid,
            q.target, q.payload
        FROM moved, unnest($8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[],
                           $14::bigint[], $15::int[], $16::smallint[], $17::uuid[], $18::bigint[], $19::bytea[])
            AS q (chat_id, seq, prev, message_seq, id, ts, actor, n, kind, uuid, target, payload)
    ), marked AS (
        UPDATE memberships m SET own_seq = q.seq
        FROM moved, unnest($20::bigint[], $21::bigint[], $22::bigint[]) AS q (chat_id, user_id, seq)
        WHERE m.chat_id = q.chat_id AND m.user_id = q.user_id AND m.to_seq IS NULL AND m.own_seq < q.seq
    )
    SELECT count(*) FROM moved";
const REFUSED: &str = "
    INSERT INTO refused (chat_id, seq, id, ts, actor, partition, uuid, code, payload)
    SELECT chat_id, seq, id, ts, actor, $6, uuid, code, payload
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $7::uuid[], $8::text[],
                $9::bytea[]) AS q (chat_id, seq, id, ts, actor, uuid, code, payload)";
const DEAD_LETTERS: &str = "
    INSERT INTO dead_letters (partition, seq, id, ts, reason, payload)
    SELECT $1, seq, id, ts, reason, payload
    FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bytea[]) AS q (seq, id, ts, reason, payload)";
const CHATS: &str = "
    INSERT INTO chats (id, created_seq, created_ts, member_count, type, partition, history, title)
    SELECT id, created_seq, created_ts, member_count, type, $8, history, title
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::int[], $5::smallint[], $6::text[], $7::text[])
        AS q (id, created_seq, created_ts, member_count, type, history, title)";
const CHAT_CHANGES: &str = "
    UPDATE chats c SET title = coalesce(q.title, c.title), history = q.history, member_count = q.member_count
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::int[]) AS q (id, title, history, member_count)
    WHERE c.id = q.id";
const CLOSED: &str = "
    UPDATE memberships m SET to_seq = q.to_seq, gone = q.gone
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[]) AS q (chat_id, user_id, to_seq, gone)
    WHERE m.chat_id = q.chat_id AND m.user_id = q.user_id AND m.to_seq IS NULL";
// A stay that goes on takes its beginning and mark from the interval that was closed just before.
const OPENED: &str = "
    INSERT INTO memberships (chat_id, user_id, from_seq, to_seq, joined_seq, joined_ts, own_seq, role, gone)
    SELECT q.chat_id, q.user_id, q.from_seq, q.to_seq, coalesce(q.joined_seq, b.joined_seq),
        coalesce(q.joined_ts, b.joined_ts), coalesce(q.own_seq, b.own_seq), q.role, q.gone
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                $8::smallint[], $9::boolean[], $10::bigint[])
        AS q (chat_id, user_id, from_seq, to_seq, joined_seq, joined_ts, own_seq, role, gone, base)
    LEFT JOIN memberships b ON b.chat_id = q.chat_id AND b.user_id = q.user_id AND b.to_seq = q.base";

/// Prepared once per session.
pub(super) struct Statements {
    pub(super) load: Statement,
    pub(super) stored: Statement,
    lock: Statement,
    fold: Statement,
    refused: Statement,
    dead_letters: Statement,
    chats: Statement,
    chat_changes: Statement,
    closed: Statement,
    opened: Statement,
    revisions: Statement,
    reactions_off: Statement,
    reactions_on: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let (load, stored) = prepare_reads(client).await?;
        Ok(Self {
            load,
            stored,
            lock: client.prepare(LOCK).await?,
            fold: client.prepare(FOLD).await?,
            refused: client.prepare(REFUSED).await?,
            dead_letters: client.prepare(DEAD_LETTERS).await?,
            chats: client.prepare(CHATS).await?,
            chat_changes: client.prepare(CHAT_CHANGES).await?,
            closed: client.prepare(CLOSED).await?,
            opened: client.prepare(OPENED).await?,
            revisions: client.prepare(WRITE_REVISIONS).await?,
            reactions_off: client.prepare(DELETE_REACTIONS).await?,
            reactions_on: client.prepare(WRITE_REACTIONS).await?,
        })
    }
}

impl Writer {
    /// Moves the checkpoint from where the batch starts to its last event, and writes its rows: all or nothing.
    ///
    /// # Errors
    /// [`Error`]; if it is temporary, the outcome is unknown and the session is to be given up.
    pub async fn write(
        &self,
        from: Checkpoint,
        to: Position,
        rows: &Rows<'_>,
        now_ms: u64,
    ) -> Result<Written, Error> {
        let alone = rows.is_only_events();
        let work = async {
            let fold = self.fold(from, to, rows, now_ms);
            let outcome = if alone { fold.await } else { self.after_the_rest(rows, fold).await };
            let written = match outcome {
                Ok(1) => Written::Yes,
                Ok(_) => Written::Moved,
                Err(error) if is_command_key(&error) => Written::DuplicateKey,
                Err(error) => {
                    // The failure is what the caller must hear of; a failed rollback has the same cause.
                    let _same_cause = !alone && self.client.batch_execute("ROLLBACK").await.is_err();
                    return Err(error);
                }
            };
            if !alone {
                let end = if written == Written::Yes { "COMMIT" } else { "ROLLBACK" };
                self.client.batch_execute(end).await?;
            }
            Ok(written)
        };
        self.bounded(work).await
    }

    /// Opens a transaction, writes what is not events, and then folds. Sent in one go: a failed statement fails those
    /// behind it, and nothing is committed before all of their answers are here.
    async fn after_the_rest(
        &self,
        rows: &Rows<'_>,
        fold: impl Future<Output = Result<i64, tokio_postgres::Error>>,
    ) -> Result<i64, tokio_postgres::Error> {
        let lock: &[&(dyn ToSql + Sync)] = &[&self.partition];
        let (.., moved) = tokio::try_join!(
            biased;
            self.client.batch_execute("BEGIN"),
            self.client.execute(&self.statements.lock, lock),
            self.chats(&rows.chats),
            self.chat_changes(&rows.chat_changes),
            self.closed(&rows.closed),
            self.opened(&rows.opened),
            self.refused(&rows.refused),
            self.dead_letters(&rows.dead_letters),
            self.overlay(rows),
            fold,
        )?;
        Ok(moved)
    }

    /// [`FOLD`]: how many checkpoints moved.
    async fn fold(
        &self,
        from: Checkpoint,
        to: Position,
        rows: &Rows<'_>,
        now_ms: u64,
    ) -> Result<i64, tokio_postgres::Error> {
        let (epoch, at, now) = (from.epoch as i32, from.position, now_ms as i64);
        let (events, marks) = (&rows.events, &rows.own_marks);
        let params: &[&(dyn ToSql + Sync)] = &[
            &self.partition,
            &epoch,
            &at.seq.as_i64(),
            &at.id.as_i64(),
            &to.seq.as_i64(),
            &to.id.as_i64(),
            &now,
            &column(events, |e| e.chat.as_i64()),
            &column(events, |e| e.seq.as_i64()),
            &column(events, |e| e.prev.as_i64()),
            &column(events, |e| e.message_seq.as_i64()),
            &column(events, |e| e.id.as_i64()),
            &column(events, |e| e.ts_ms as i64),
            &column(events, |e| e.actor.as_i64()),
            &column(events, |e| e.n as i32),
            &column(events, |e| i16::from(e.kind.number())),
            &column(events, |e| e.uuid),
            &column(events, |e| e.target.map(shared::id::Seq::as_i64)),
            &column(events, |e| e.payload),
            &column(marks, |m| m.chat.as_i64()),
            &column(marks, |m| m.user.as_i64()),
            &column(marks, |m| m.seq.as_i64()),
        ];
        self.client.query_one(&self.statements.fold, params).await?.try_get(0)
    }

    async fn refused(&self, rows: &[Refused<'_>]) -> Result<(), tokio_postgres::Error> {
        let params: &[&(dyn ToSql + Sync)] = &[
            &column(rows, |r| r.chat.as_i64()),
            &column(rows, |r| r.seq.as_i64()),
            &column(rows, |r| r.id.as_i64()),
            &column(rows, |r| r.ts_ms as i64),
            &column(rows, |r| r.actor.as_i64()),
            &self.partition,
            &column(rows, |r| r.uuid),
            &column(rows, |r| r.code.as_str()),
            &column(rows, |r| r.payload),
        ];
        self.unless_empty(rows, &self.statements.refused, params).await
    }

    async fn dead_letters(&self, rows: &[DeadLetter<'_>]) -> Result<(), tokio_postgres::Error> {
        let params: &[&(dyn ToSql + Sync)] = &[
            &self.partition,
            &column(rows, |d| d.seq.as_i64()),
            &column(rows, |d| d.id.as_i64()),
            &column(rows, |d| d.ts_ms as i64),
            &column(rows, |d| d.reason.clone()),
            &column(rows, |d| d.payload),
        ];
        self.unless_empty(rows, &self.statements.dead_letters, params).await
    }

    async fn chats(&self, rows: &[NewChat]) -> Result<(), tokio_postgres::Error> {
        let params: &[&(dyn ToSql + Sync)] = &[
            &column(rows, |c| c.chat.as_i64()),
            &column(rows, |c| c.created_seq.as_i64()),
            &column(rows, |c| c.created_ms as i64),
            &column(rows, |c| c.member_count as i32),
            &column(rows, |c| i16::from(c.chat_type.number())),
            &column(rows, |c| c.history.as_str()),
            &column(rows, |c| c.title.clone()),
            &self.partition,
        ];
        self.unless_empty(rows, &self.statements.chats, params).await
    }

    async fn chat_changes(&self, rows: &[ChatChange]) -> Result<(), tokio_postgres::Error> {
        let params: &[&(dyn ToSql + Sync)] = &[
            &column(rows, |c| c.chat.as_i64()),
            &column(rows, |c| c.title.clone()),
            &column(rows, |c| c.history.as_str()),
            &column(rows, |c| c.member_count as i32),
        ];
        self.unless_empty(rows, &self.statements.chat_changes, params).await
    }

    async fn closed(&self, rows: &[Closed]) -> Result<(), tokio_postgres::Error> {
        let params: &[&(dyn ToSql + Sync)] = &[
            &column(rows, |c| c.chat.as_i64()),
            &column(rows, |c| c.user.as_i64()),
            &column(rows, |c| c.to.as_i64()),
            &column(rows, |c| c.gone),
        ];
        self.unless_empty(rows, &self.statements.closed, params).await
    }

    async fn opened(&self, rows: &[Opened]) -> Result<(), tokio_postgres::Error> {
        let joined = |o: &Opened| match o.origin {
            Origin::Joined { seq, ts_ms, own_seq } => Some((seq.as_i64(), ts_ms as i64, own_seq.as_i64())),
            Origin::Continues { .. } => None,
        };
        let base = |o: &Opened| match o.origin {
            Origin::Joined { .. } => None,
            Origin::Continues { to } => Some(to.as_i64()),
        };
        let params: &[&(dyn ToSql + Sync)] = &[
            &column(rows, |o| o.chat.as_i64()),
            &column(rows, |o| o.user.as_i64()),
            &column(rows, |o| o.from.as_i64()),
            &column(rows, |o| o.to.map(shared::id::Seq::as_i64)),
            &column(rows, |o| joined(o).map(|(seq, ..)| seq)),
            &column(rows, |o| joined(o).map(|(_, ts, _)| ts)),
            &column(rows, |o| joined(o).map(|(.., own)| own)),
            &column(rows, |o| role_number(o.role)),
            &column(rows, |o| o.gone),
            &column(rows, base),
        ];
        self.unless_empty(rows, &self.statements.opened, params).await
    }

    async fn overlay(&self, rows: &Rows<'_>) -> Result<(), tokio_postgres::Error> {
        let revisions = rows.overlay.revisions();
        let (off, on) = (rows.overlay.taken_off(), rows.overlay.put_on());
        let revise: &[&(dyn ToSql + Sync)] =
            &[&revisions.chats, &revisions.seqs, &revisions.edited, &revisions.deleted, &revisions.payloads];
        let take_off: &[&(dyn ToSql + Sync)] = &[&off.chats, &off.seqs, &off.emoji, &off.users];
        let put_on: &[&(dyn ToSql + Sync)] = &[&on.chats, &on.seqs, &on.emoji, &on.users, &on.at];
        tokio::try_join!(
            biased;
            self.unless_empty(&revisions.seqs, &self.statements.revisions, revise),
            self.unless_empty(&off.seqs, &self.statements.reactions_off, take_off),
            self.unless_empty(&on.seqs, &self.statements.reactions_on, put_on),
        )
        .map(drop)
    }

    async fn unless_empty<T>(
        &self,
        rows: &[T],
        statement: &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<(), tokio_postgres::Error> {
        if rows.is_empty() {
            return Ok(());
        }
        self.client.execute(statement, params).await.map(drop)
    }
}

fn column<T, U>(rows: &[T], value: impl Fn(&T) -> U) -> Vec<U> {
    rows.iter().map(value).collect()
}
