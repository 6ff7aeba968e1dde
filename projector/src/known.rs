//! The projection as the tail's memory of the log, to find a cut.

use shared::id::Seq;
use sql::Db;
use streams::{Known, Partition, Unavailable, tail::Recall};

/// The rows of a partition.
pub struct Projected {
    pub db: Db,
    pub partition: Partition,
}

impl Known for Projected {
    fn at_or_below(&self, seq: Seq) -> Recall<'_> {
        Box::pin(async move {
            let known = self.db.known_at_or_below(self.partition.as_i16(), seq).await;
            known.map_err(Unavailable::new)
        })
    }
}
