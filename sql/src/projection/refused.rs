//! Table `refused`: void commands, so that a retry gets its refusal again.

use shared::{
    code::Code,
    id::{ChatId, EventId, Seq, UserId},
};
use tokio_postgres::Client;
use uuid::Uuid;

use super::{
    events::Lost,
    row::{Write, columns},
    table::{Table, Transaction},
};
use crate::Error;

pub(super) const TABLES: &[Table] = &[Table::compared("refused")];

/// A void command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused<'a> {
    pub chat: ChatId,
    pub seq: Seq,
    pub id: EventId,
    pub ts_ms: u64,
    pub actor: UserId,
    pub uuid: Uuid,
    pub code: Code,
    pub payload: &'a [u8],
}

columns!(Refused<'_> {
    chat_id: "bigint" = |refused| refused.chat.as_i64(),
    seq: "bigint" = |refused| refused.seq.as_i64(),
    id: "bigint" = |refused| refused.id.as_i64(),
    ts: "bigint" = |refused| refused.ts_ms as i64,
    actor: "bigint" = |refused| refused.actor.as_i64(),
    uuid: "uuid" = |refused| refused.uuid,
    code: "text" = |refused| refused.code.as_str(),
    payload: "bytea" = |refused| refused.payload,
});

const LOSE: &str = "DELETE FROM refused WHERE seq > $2 AND partition = $1";

pub(super) struct Group {
    insert: Write,
}

impl Group {
    pub(super) async fn prepare(client: &Client, partition: i16) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { insert: Write::insert::<Refused<'_>>(client, "refused", partition).await? })
    }

    pub(super) async fn write(
        &self,
        client: &Client,
        rows: &[Refused<'_>],
    ) -> Result<(), tokio_postgres::Error> {
        self.insert.run(client, rows).await
    }

    pub(super) async fn take_back(transaction: &Transaction<'_>, lost: &Lost) -> Result<(), Error> {
        transaction.execute(LOSE, &[&lost.partition, &lost.cut]).await?;
        Ok(())
    }
}
