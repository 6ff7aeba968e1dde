//! Linearizable reads of the projection: an answer contains every event that was acked before the request began.
//!
//! A read takes a barrier (the log's last sequence) and repeats its query until the checkpoint that comes with the
//! answer has passed it. It asks the projector to hurry, and hears from it how far it is. Never waits longer than
//! two seconds: then the answer is marked as stale.

use std::{sync::Arc, time::Duration};

use shared::id::Seq;
use sql::Checkpoint;
use streams::{
    Barrier, Nats, Partition,
    signal::{ProjectionWanted, Signal},
};
use tokio::{sync::watch, time::Instant};

use crate::command::Failure;

/// A read's answer, and whether it could not be proven fresh.
#[derive(Debug)]
pub struct Fresh<T> {
    pub value: T,
    pub stale: bool,
}

/// How long a read waits for the projection before its answer is stale.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait for a hint before the query is repeated anyway. Hints are signals, which may be lost.
const HINT_INTERVAL: Duration = Duration::from_millis(250);

/// Runs queries until their answers are fresh.
pub struct Reads {
    barrier: Barrier,
    nats: Nats,
    /// The projection's checkpoint by the last hint. It is never trusted, only a reason to repeat a query.
    hints: watch::Sender<Seq>,
}

impl Reads {
    pub fn new(barrier: Barrier, nats: Nats) -> Arc<Self> {
        Arc::new(Self { barrier, nats, hints: watch::Sender::new(Seq::ZERO) })
    }

    /// The projector says that it has come this far.
    pub fn hint(&self, checkpoint: Seq) {
        self.hints.send_if_modified(|hint| std::mem::replace(hint, checkpoint) != checkpoint);
    }

    /// Runs the query, whose rows and checkpoint are of one snapshot, until the checkpoint has passed a barrier
    /// taken now. If that cannot be had in time, the last answer is marked stale.
    ///
    /// # Errors
    /// The query's.
    pub async fn fresh<T, Q>(&self, query: impl Fn() -> Q + Send) -> Result<Fresh<T>, Failure>
    where
        Q: Future<Output = Result<(Checkpoint, T), sql::Error>> + Send,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut hints = self.hints.subscribe();
        let Ok(target) = self.barrier.last_seq().await else {
            return Ok(Fresh { value: query().await?.1, stale: true });
        };
        loop {
            hints.mark_unchanged();
            let (checkpoint, value) = query().await?;
            if checkpoint.position.seq >= target {
                return Ok(Fresh { value, stale: false });
            }
            if Instant::now() >= deadline {
                return Ok(Fresh { value, stale: true });
            }
            self.want(target);
            let next = deadline.min(Instant::now() + HINT_INTERVAL);
            // The query is repeated when a new hint has reached the target, or when the time is over. An earlier hint
            // does not count: the log may have lost that entry since.
            let hinted =
                async { while hints.changed().await.is_ok() && *hints.borrow_and_update() < target {} };
            let _elapsed = tokio::time::timeout_at(next, hinted).await.is_err();
        }
    }

    /// Asks the projector to write now instead of gathering a larger batch. If the signal is lost, it writes a little
    /// later.
    fn want(&self, seq: Seq) {
        let wanted = ProjectionWanted { partition: Partition::FIRST.get(), seq };
        if let Err(error) = self.nats.signal(&Signal::ProjectionWanted(wanted)) {
            tracing::debug!(%error, "a read waits unsaid");
        }
    }
}

#[cfg(test)]
mod tests;
