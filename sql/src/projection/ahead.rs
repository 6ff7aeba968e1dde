//! Table `ahead`: the commands whose uuid is far later than their own stored time (`shared::window`).

use shared::id::{Seq, UserId};
use tokio_postgres::Client;

use super::{
    events::Lost,
    row::{Write, columns},
    table::{Table, Transaction},
};
use crate::Error;

pub(super) const TABLES: &[Table] = &[Table::compared("ahead")];

/// A command, valid or not, whose uuid is ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AheadCommand {
    pub seq: Seq,
    pub user: UserId,
    /// The time in the uuid.
    pub until_ms: u64,
}

columns!(AheadCommand {
    seq: "bigint" = |command| command.seq.as_i64(),
    user_id: "bigint" = |command| command.user.as_i64(),
    until_ts: "bigint" = |command| command.until_ms as i64,
});

const LOSE: &str = "DELETE FROM ahead WHERE seq > $2 AND partition = $1";

pub(super) struct Group {
    insert: Write,
}

impl Group {
    pub(super) async fn prepare(client: &Client, partition: i16) -> Result<Self, tokio_postgres::Error> {
        Ok(Self { insert: Write::insert::<AheadCommand>(client, "ahead", partition).await? })
    }

    pub(super) async fn write(
        &self,
        client: &Client,
        rows: &[AheadCommand],
    ) -> Result<(), tokio_postgres::Error> {
        self.insert.run(client, rows).await
    }

    pub(super) async fn take_back(transaction: &Transaction<'_>, lost: &Lost) -> Result<(), Error> {
        transaction.execute(LOSE, &[&lost.partition, &lost.cut]).await?;
        Ok(())
    }
}
