//! The identities of the log's events as the projection holds them: to find where two histories part.

use shared::id::{EventId, Position, Seq};

use crate::{Db, Error};

// Sequences are dense, so the next remembered event is near, and a short range keeps the brin index's reading short.
const NEAR: &str = "
    SELECT seq, id FROM (
        SELECT seq, id FROM events WHERE seq BETWEEN $2 AND $3 AND partition = $1
        UNION ALL SELECT seq, id FROM refused WHERE seq BETWEEN $2 AND $3 AND partition = $1
        UNION ALL SELECT seq, id FROM dead_letters WHERE seq BETWEEN $2 AND $3 AND partition = $1
        UNION ALL SELECT cut_seq, cut_id FROM epochs WHERE cut_seq BETWEEN $2 AND $3 AND partition = $1 AND cut_seq > 0
    ) known ORDER BY seq DESC LIMIT 1";
/// The widths that are tried, one after the other; the last reaches the log's beginning.
const REACHES: [u64; 4] = [64, 4_096, 262_144, u64::MAX];

impl Db {
    /// The newest event at or below `seq` whose identity the projection holds.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn known_at_or_below(&self, partition: i16, seq: Seq) -> Result<Option<Position>, Error> {
        for reach in REACHES {
            let low = seq.get().saturating_sub(reach) as i64;
            if let Some(row) = self.query_opt(NEAR, &[&partition, &low, &crate::replay::bound(seq)]).await? {
                let (seq, id): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
                return Ok(Some(Position { seq: seq.into(), id: EventId::from_i64(id) }));
            }
            if low == 0 {
                break;
            }
        }
        Ok(None)
    }
}
