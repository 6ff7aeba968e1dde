//! Linearizable reads of the projection: what was acked before the request began is in the answer.

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

/// How long a read waits for the projection.
const PATIENCE: Duration = Duration::from_secs(2);
/// Hints are repeated by the projector this often, so a lost one costs no more.
const HINT_INTERVAL: Duration = Duration::from_millis(250);

/// See the module.
pub struct Reads {
    barrier: Barrier,
    nats: Nats,
    /// The projection's checkpoint as far as hints tell; only ever a reason to look again.
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
            // A hint or the time: either is a reason to look again. What was hinted before is none: the log may have
            // lost that since.
            let hinted =
                async { while hints.changed().await.is_ok() && *hints.borrow_and_update() < target {} };
            let _elapsed = tokio::time::timeout_at(next, hinted).await.is_err();
        }
    }

    /// Asks the projector not to gather any longer. If that is lost, the projection comes in its own time.
    fn want(&self, seq: Seq) {
        let wanted = ProjectionWanted { partition: Partition::FIRST.get(), seq };
        if let Err(error) = self.nats.signal(&Signal::ProjectionWanted(wanted)) {
            tracing::debug!(%error, "a read waits unsaid");
        }
    }
}
