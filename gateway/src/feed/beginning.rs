//! Where a gateway begins to read the log when it starts.
//!
//! It begins so far back that the ring will be full when the end of the log is reached; then the gateway is ready.
//! While NATS or Postgres is away it waits for them. Invariant: the projection's checkpoint is an entry of this log,
//! or the cut is declared before the gateway begins.

use std::{sync::Arc, time::Duration};

use shared::id::{Position, Seq};
use sql::epoch::Cut;
use streams::{Nats, Partition, Tail, TailItem, TailSettings, Unavailable, tail::Recall};

use crate::infra::clock::unix_ms;

/// How long to wait before NATS and Postgres are asked again.
const RETRY: Duration = Duration::from_millis(250);

/// Where the gateway begins to read the log, and in which of its histories.
#[derive(Debug)]
pub struct Beginning {
    /// The first entry to read is the one after this.
    pub floor: Position,
    /// All cuts on record; the last one says which epoch is the present one.
    pub cuts: Vec<Cut>,
    /// The end of the log when the gateway started: past it, the gateway is ready.
    pub last: Seq,
    /// The oldest entry that the log keeps.
    pub first: Seq,
}

/// The log or the projection can't be asked at the moment.
#[derive(Debug, thiserror::Error)]
enum Away {
    #[error(transparent)]
    Log(#[from] Unavailable),
    #[error(transparent)]
    Projection(#[from] sql::Error),
}

/// The identities of entries as the projection has them: the hub has none yet.
struct Projection(sql::Db);

impl streams::Known for Projection {
    fn at_or_below(&self, seq: Seq) -> Recall<'_> {
        Box::pin(async move { self.0.known_at_or_below(sql::PARTITION, seq).await.map_err(Unavailable::new) })
    }
}

/// Finds the beginning, however long NATS or Postgres are away.
pub async fn find(nats: &Nats, db: &sql::Db, ring_bytes: usize) -> Beginning {
    loop {
        match try_find(nats, db, ring_bytes).await {
            Ok(beginning) => return beginning,
            Err(error) => tracing::warn!(%error, "waiting for the log and the projection"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn try_find(nats: &Nats, db: &sql::Db, ring_bytes: usize) -> Result<Beginning, Away> {
    let bounds = nats.bounds(Partition::FIRST).await?;
    verify(nats, db).await?;
    let cuts = db.cuts(sql::PARTITION).await?;
    let stored = bounds.last.get().saturating_sub(bounds.first.get().saturating_sub(1));
    let average = bounds.bytes.checked_div(stored).unwrap_or(1).max(1);
    let wanted = (ring_bytes as u64 / average).min(stored);
    let floor = Seq(bounds.last.get() - wanted);
    let id = nats.read_one(Partition::FIRST, floor).await?.map(|entry| entry.id).unwrap_or_default();
    Ok(Beginning { floor: Position { seq: floor, id }, cuts, last: bounds.last, first: bounds.first })
}

/// Makes sure that the log holds the entry at the projection's checkpoint. If it does not, it lost its newest
/// entries, and the cut is declared.
async fn verify(nats: &Nats, db: &sql::Db) -> Result<(), Away> {
    let checkpoint = db.checkpoint(sql::PARTITION).await?;
    let known = Arc::new(Projection(db.clone()));
    let mut probe = Tail::open(nats, Partition::FIRST, checkpoint.position, known, TailSettings::default());
    if let TailItem::LostTail { cut } = probe.next().await {
        let cut = cut.unwrap_or_default();
        db.declare_cut(sql::PARTITION, checkpoint.epoch, cut, unix_ms()).await?;
        tracing::error!(cut = cut.seq.get(), "the log lost its tail before this gateway started");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
