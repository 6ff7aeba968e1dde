//! Table `dead_letters`: entries that no decoder can read. Void for everyone, kept for the operator.

use shared::id::{EventId, Seq};
use tokio_postgres::Client;

use super::{
    events::Lost,
    row::{Write, columns},
    table::{Table, Transaction},
};
use crate::Error;

pub(super) const TABLES: &[Table] = &[Table::compared("dead_letters")];

/// An entry that no decoder can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    pub seq: Seq,
    pub id: EventId,
    pub ts_ms: u64,
    pub reason: String,
    pub payload: &'a [u8],
}

columns!(DeadLetter<'_> {
    seq: "bigint" = |letter| letter.seq.as_i64(),
    id: "bigint" = |letter| letter.id.as_i64(),
    ts: "bigint" = |letter| letter.ts_ms as i64,
    reason: "text" = |letter| letter.reason.as_str(),
    payload: "bytea" = |letter| letter.payload,
});

const LOSE: &str = "DELETE FROM dead_letters WHERE seq > $2 AND partition = $1";

pub(super) struct Group {
    insert: Write,
}

impl Group {
    pub(super) async fn prepare(client: &Client, partition: i16) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { insert: Write::insert::<DeadLetter<'_>>(client, "dead_letters", partition).await? })
    }

    pub(super) async fn write(
        &self,
        client: &Client,
        rows: &[DeadLetter<'_>],
    ) -> Result<(), tokio_postgres::Error> {
        self.insert.run(client, rows).await
    }

    pub(super) async fn take_back(transaction: &Transaction<'_>, lost: &Lost) -> Result<(), Error> {
        transaction.execute(LOSE, &[&lost.partition, &lost.cut]).await?;
        Ok(())
    }
}
