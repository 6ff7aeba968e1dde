//! The start of a gateway: everything it needs before it may call itself ready.
//!
//! NATS and Postgres may be away while a gateway starts: it waits for them, answers health checks, and is unready.

use std::{sync::Arc, time::Duration};

use shared::id::{Position, Seq};
use sql::epoch::Cut;
use streams::{Nats, Partition, Tail, TailItem, TailSettings, Unavailable, tail::Recall};

use crate::infra::clock::unix_ms;

/// Before something that is away is asked again.
const RETRY: Duration = Duration::from_millis(250);

/// Where the gateway begins to read the log, and in which of its histories.
pub struct Beginning {
    pub floor: Position,
    pub cuts: Vec<Cut>,
    /// The end of the log when the gateway started: past it, the gateway is ready.
    pub last: Seq,
    pub first: Seq,
}

/// Only what the projection remembers.
struct Projection(sql::Db);

impl streams::Known for Projection {
    fn at_or_below(&self, seq: Seq) -> Recall<'_> {
        Box::pin(async move { self.0.known_at_or_below(sql::PARTITION, seq).await.map_err(Unavailable::new) })
    }
}

/// Finds the beginning: the projection is of this log (or the log is cut first), and the ring will be full.
pub async fn find(nats: &Nats, db: &sql::Db, ring_bytes: usize) -> Beginning {
    loop {
        match try_find(nats, db, ring_bytes).await {
            Ok(beginning) => return beginning,
            Err(why) => tracing::warn!(%why, "waiting for the log and the projection"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn try_find(nats: &Nats, db: &sql::Db, ring_bytes: usize) -> Result<Beginning, String> {
    let bounds = nats.bounds(Partition::FIRST).await.map_err(|error| error.to_string())?;
    verify(nats, db).await?;
    let cuts = db.cuts(sql::PARTITION).await.map_err(|error| error.to_string())?;
    let stored = bounds.last.get().saturating_sub(bounds.first.get().saturating_sub(1));
    let average = bounds.bytes.checked_div(stored).unwrap_or(1).max(1);
    let wanted = (ring_bytes as u64 / average).min(stored);
    let floor = Seq(bounds.last.get() - wanted);
    let id = match nats.read_one(Partition::FIRST, floor).await {
        Ok(entry) => entry.map(|entry| entry.id).unwrap_or_default(),
        Err(error) => return Err(error.to_string()),
    };
    Ok(Beginning { floor: Position { seq: floor, id }, cuts, last: bounds.last, first: bounds.first })
}

/// Makes sure that the projection's checkpoint is in the log; declares the cut if the log lost its tail.
async fn verify(nats: &Nats, db: &sql::Db) -> Result<(), String> {
    let checkpoint = db.checkpoint(sql::PARTITION).await.map_err(|error| error.to_string())?;
    let known = Arc::new(Projection(db.clone()));
    let mut probe = Tail::open(nats, Partition::FIRST, checkpoint.position, known, TailSettings::default());
    if let TailItem::LostTail { cut } = probe.next().await {
        let cut = cut.unwrap_or_default();
        let declared = db.declare_cut(sql::PARTITION, checkpoint.epoch, cut, unix_ms()).await;
        declared.map_err(|error| error.to_string())?;
        tracing::error!(cut = cut.seq.get(), "the log lost its tail before this gateway started");
    }
    Ok(())
}
