//! The transaction of a batch.

use shared::id::Position;
use tokio_postgres::types::ToSql;

use super::{fold::Step, groups::Rows, session::Writer};
use crate::{Checkpoint, Error, error::is_command_key};

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
        let step = Step { partition: self.partition, from, to, now_ms };
        let alone = rows.is_only_events();
        let work = async {
            let outcome = if alone {
                self.statements.fold.run(&self.client, &step, rows).await
            } else {
                self.in_a_transaction(&step, rows).await
            };
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

    /// Opens a transaction, writes the rows that are not events, and then folds. Sent in one go: a failed statement
    /// fails those behind it, and nothing is committed before all of their answers are here.
    async fn in_a_transaction(&self, step: &Step, rows: &Rows<'_>) -> Result<i64, tokio_postgres::Error> {
        let statements = &self.statements;
        let lock: &[&(dyn ToSql + Sync)] = &[&self.partition];
        let (.., moved) = tokio::try_join!(
            biased;
            self.client.batch_execute("BEGIN"),
            self.client.execute(&statements.lock, lock),
            statements.groups.write(&self.client, rows),
            statements.fold.run(&self.client, step, rows),
        )?;
        Ok(moved)
    }
}
