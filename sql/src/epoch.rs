//! Epochs: how often the log of a partition lost its tail, and how the rows of the lost part are taken back.
//!
//! Invariant: the cut is recorded and the rows above it are deleted in one transaction, by compare-and-set of the epoch,
//! so that of several processes that notice a loss exactly one declares it.

mod restore;

use std::time::Duration;

use shared::id::{EventId, Position};

use crate::{Db, Error};

/// A loss of the log's tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The epoch that began with it.
    pub epoch: u32,
    /// The last event that survived.
    pub position: Position,
    pub found_ms: u64,
}

/// A cut may have to take back and fold again a day of a large installation.
const PATIENCE: Duration = Duration::from_secs(300);

const CUTS: &str = "SELECT epoch, cut_seq, cut_id, found_ts FROM epochs WHERE partition = $1 ORDER BY epoch";

impl Db {
    /// Every loss of the partition's tail, oldest first. The current epoch is that of the last, or 0.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn cuts(&self, partition: i16) -> Result<Vec<Cut>, Error> {
        let rows = self.query(CUTS, &[&partition]).await?;
        let cut = |row: &tokio_postgres::Row| {
            let (epoch, found): (i32, i64) = (row.try_get("epoch")?, row.try_get("found_ts")?);
            let (seq, id): (i64, i64) = (row.try_get("cut_seq")?, row.try_get("cut_id")?);
            let position = Position { seq: seq.into(), id: EventId::from_i64(id) };
            Ok(Cut { epoch: epoch.max(0) as u32, position, found_ms: found as u64 })
        };
        rows.iter().map(cut).collect()
    }

    /// Records that the log of the partition ends at `cut` and goes on differently, and takes back all rows above
    /// it. Returns the new epoch, or `None` if the epoch is not `expected` any more: another process has declared it.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn declare_cut(
        &self,
        partition: i16,
        expected: u32,
        cut: Position,
        now_ms: u64,
    ) -> Result<Option<u32>, Error> {
        self.run_within(PATIENCE, async |client| {
            let transaction = client.transaction().await?;
            let declared = restore::declare(&transaction, partition, expected, cut, now_ms).await?;
            if declared.is_some() {
                transaction.commit().await?;
            }
            Ok(declared)
        })
        .await
    }
}
