//! The checkpoint: how far the projection of a partition has come, and in which history of the log.

use shared::id::{EventId, Position, Seq};
use tokio_postgres::Row;

use crate::{Db, Error};

/// The partition whose checkpoint reads return.
pub const PARTITION: i16 = 0;

/// The position up to which the rows of an answer are complete. Rows and checkpoint are always from one snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// How often the log lost its tail before this.
    pub epoch: u32,
    pub position: Position,
}

impl Checkpoint {
    /// Reads the columns `c_epoch`, `c_seq`, `c_id`.
    pub(crate) fn of(row: &Row) -> Result<Self, Error> {
        let epoch: i32 = row.try_get("c_epoch")?;
        let (seq, id): (i64, i64) = (row.try_get("c_seq")?, row.try_get("c_id")?);
        Ok(Self::from_columns(epoch, seq, id))
    }

    pub(crate) fn from_columns(epoch: i32, seq: i64, id: i64) -> Self {
        Self { epoch: epoch.max(0) as u32, position: Position { seq: seq.into(), id: EventId::from_i64(id) } }
    }

    /// Whether everything up to `seq` is in the rows.
    pub fn covers(&self, seq: Seq) -> bool {
        self.position.seq >= seq
    }
}

/// The checkpoint as the first item of a `FROM`; everything else is a left join to it, so that there is always a row.
macro_rules! from_checkpoint {
    () => {
        " FROM (SELECT epoch AS c_epoch, seq AS c_seq, id AS c_id FROM checkpoints WHERE partition = 0) c "
    };
}
pub(crate) use from_checkpoint;

/// The checkpoint of a partition, `$1`.
pub(crate) const CHECKPOINT: &str =
    "SELECT epoch AS c_epoch, seq AS c_seq, id AS c_id FROM checkpoints WHERE partition = $1";

impl Db {
    /// How far the projection of the partition has come.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn checkpoint(&self, partition: i16) -> Result<Checkpoint, Error> {
        match self.query_opt(CHECKPOINT, &[&partition]).await? {
            Some(row) => Checkpoint::of(&row),
            None => Ok(Checkpoint::default()),
        }
    }
}
