//! A second projection beside the live one: to verify the live one by folding the log again, or to replace it.
//!
//! A shadow is a schema with the projection's tables alone, without the tables that are not folded from the log
//! (accounts, claims, read marks). Invariant: at the moment of the exchange both projections are at the same event, so
//! that the live projector goes on as if nothing had happened.

use std::time::Duration;

use deadpool_postgres::Transaction;

use crate::{
    Checkpoint, Db, Error,
    migrations::PROJECTION,
    projection::{Compared, Writer, tables},
};

/// The schema of a shadow.
const SCHEMA: &str = "shadow";
/// The schema that the old tables move to before they are dropped.
const RETIRED: &str = "retired";
/// The contents of a table in one number that does not depend on the order of rows.
const FINGERPRINT: &str =
    "SELECT coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text, count(*) FROM";
/// How long dropping a schema may take: a large one has many files.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// The contents of a table, to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    pub table: &'static str,
    pub rows: i64,
    pub hash: String,
}

impl Db {
    /// An empty shadow and its writer. One that is there is dropped.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn create_shadow(&self, partition: i16) -> Result<Writer, Error> {
        self.drop_shadow().await?;
        self.run(async |client| {
            let transaction = client.transaction().await?;
            let schema = format!("CREATE SCHEMA {SCHEMA}; SET LOCAL search_path = {SCHEMA}");
            transaction.batch_execute(&schema).await?;
            for tables in PROJECTION {
                transaction.batch_execute(tables).await?;
            }
            Ok(transaction.commit().await?)
        })
        .await?;
        Writer::connect_to(self, partition, SCHEMA).await
    }

    /// Removes the shadow, if there is one.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn drop_shadow(&self) -> Result<(), Error> {
        self.run_within(PATIENCE, async |client| {
            let drop = format!(
                "SET statement_timeout = 0; DROP SCHEMA IF EXISTS {SCHEMA}, {RETIRED} CASCADE; RESET statement_timeout"
            );
            Ok(client.batch_execute(&drop).await?)
        })
        .await
    }

    /// The live projection as of one moment: `work` gets its checkpoint and brings the shadow to it, and then both
    /// are compared. Returns the tables that differ: live and shadow.
    ///
    /// # Errors
    /// [`Error`], or that of `work`
    pub async fn compare_with_shadow<E: From<Error>>(
        &self,
        partition: i16,
        work: impl AsyncFnOnce(Checkpoint) -> Result<(), E>,
    ) -> Result<Vec<(Fingerprint, Fingerprint)>, E> {
        let mut live = self.client().await?;
        let snapshot = begin(&mut live).await?;
        let checkpoint = checkpoint(&snapshot, "public", partition).await?;
        let theirs = fingerprints(&snapshot, "public").await?;
        work(checkpoint).await?;
        let mut shadow = self.client().await?;
        let snapshot = begin(&mut shadow).await?;
        let ours = fingerprints(&snapshot, SCHEMA).await?;
        Ok(theirs.into_iter().zip(ours).filter(|(live, shadow)| live != shadow).collect())
    }

    /// Puts the shadow in the place of the live projection. `work` gets the live checkpoint, at which the live
    /// projection stands still for the moment, and brings the shadow to it; so it should be near. Returns `false`,
    /// and changes nothing, if the shadow is somewhere else then: the log lost its tail in between.
    ///
    /// # Errors
    /// [`Error`], or that of `work`
    pub async fn exchange_with_shadow<E: From<Error>>(
        &self,
        partition: i16,
        work: impl AsyncFnOnce(Checkpoint) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(Error::from)?;
        // A statement that wants one of these tables waits now, and finds the new ones when we are done.
        let names: Vec<&str> = tables().map(|table| table.name).collect();
        let lock = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", names.join(", "));
        transaction.batch_execute(&lock).await.map_err(Error::from)?;
        let live = checkpoint(&transaction, "public", partition).await?;
        work(live).await?;
        if checkpoint(&transaction, SCHEMA, partition).await?.position != live.position {
            return Ok(false);
        }
        transaction.batch_execute(&exchange()).await.map_err(Error::from)?;
        transaction.commit().await.map_err(Error::from)?;
        Ok(true)
    }
}

/// How often the log lost its tail is no fold of the log: it is taken over.
fn exchange() -> String {
    let mut script = format!(
        "INSERT INTO {SCHEMA}.epochs SELECT * FROM public.epochs;
        UPDATE {SCHEMA}.checkpoints s SET epoch = p.epoch FROM public.checkpoints p WHERE p.partition = s.partition;
        CREATE SCHEMA {RETIRED};"
    );
    for name in tables().map(|table| table.name) {
        script.push_str(&format!(
            "ALTER TABLE public.{name} SET SCHEMA {RETIRED}; ALTER TABLE {SCHEMA}.{name} SET SCHEMA public;"
        ));
    }
    script
}

async fn begin(client: &mut deadpool_postgres::Object) -> Result<Transaction<'_>, Error> {
    let transaction = client.transaction().await?;
    let settings =
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0;
        SET LOCAL enable_seqscan = on";
    transaction.batch_execute(settings).await?;
    Ok(transaction)
}

async fn checkpoint(
    transaction: &Transaction<'_>,
    schema: &str,
    partition: i16,
) -> Result<Checkpoint, Error> {
    let statement = format!("SELECT epoch, seq, id FROM {schema}.checkpoints WHERE partition = $1");
    let row = transaction.query_one(&statement, &[&partition]).await?;
    Ok(Checkpoint::from_columns(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
}

async fn fingerprints(transaction: &Transaction<'_>, schema: &str) -> Result<Vec<Fingerprint>, Error> {
    let mut fingerprints = Vec::new();
    for table in tables() {
        let name = table.name;
        let rows = match table.compared {
            Compared::Nothing => continue,
            Compared::Rows => format!("{schema}.{name} t"),
            Compared::Columns(columns) => format!("(SELECT {columns} FROM {schema}.{name}) t"),
        };
        let row = transaction.query_one(&format!("{FINGERPRINT} {rows}"), &[]).await?;
        fingerprints.push(Fingerprint { table: name, hash: row.try_get(0)?, rows: row.try_get(1)? });
    }
    Ok(fingerprints)
}
