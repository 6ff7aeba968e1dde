//! The transaction of a cut: the new epoch is recorded, the checkpoint steps back, and the tables take back what lies
//! above the cut.

use shared::id::Position;

use crate::{
    Error,
    projection::{Transaction, take_back},
};

const SETTINGS: &str = "SET LOCAL statement_timeout = '300s'; SET LOCAL synchronous_commit = on";
const LOCK: &str = "SELECT epoch, seq FROM checkpoints WHERE partition = $1 FOR UPDATE";
const RECORD: &str =
    "INSERT INTO epochs (partition, epoch, cut_seq, cut_id, found_ts) VALUES ($1, $2, $3, $4, $5)";
const NEW_EPOCH: &str = "UPDATE checkpoints SET epoch = $2, updated_ts = $3 WHERE partition = $1";
const STEP_BACK: &str = "UPDATE checkpoints SET seq = $2, id = $3 WHERE partition = $1";
/// Read marks are no part of the projection, but none may lie above the cut: the log gives those sequences again.
const LOWER_READ_MARKS: &str = "
    UPDATE read_marks SET read_seq = least(read_seq, $2), delivered_seq = least(delivered_seq, $2)
    WHERE chat_id = ANY($1) AND (read_seq > $2 OR delivered_seq > $2)";

/// See [`crate::Db::declare_cut`].
pub(super) async fn declare(
    transaction: &Transaction<'_>,
    partition: i16,
    expected: u32,
    cut: Position,
    now_ms: u64,
) -> Result<Option<u32>, Error> {
    transaction.batch_execute(SETTINGS).await?;
    let Some(row) = transaction.query_opt(LOCK, &[&partition]).await? else { return Ok(None) };
    let (epoch, seq): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
    if epoch != expected as i32 {
        return Ok(None);
    }
    let (next, cut_seq, cut_id, now) = (epoch + 1, cut.seq.as_i64(), cut.id.as_i64(), now_ms as i64);
    transaction.execute(RECORD, &[&partition, &next, &cut_seq, &cut_id, &now]).await?;
    transaction.execute(NEW_EPOCH, &[&partition, &next, &now]).await?;
    if seq > cut_seq {
        transaction.execute(STEP_BACK, &[&partition, &cut_seq, &cut_id]).await?;
        let chats = take_back(transaction, partition, cut_seq).await?;
        transaction.execute(LOWER_READ_MARKS, &[&chats, &cut_seq]).await?;
    }
    Ok(Some(next as u32))
}
