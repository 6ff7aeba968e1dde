//! What an appender counts, and since when the log owes it a verdict.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Counters since the start, and a gauge.
#[derive(Debug)]
pub struct AppendStats {
    /// Events sent whose acknowledgement has not come.
    pub in_flight: AtomicUsize,
    /// Events acknowledged, duplicates included.
    pub acked: AtomicU64,
    /// Of these, those the log had already.
    pub duplicates: AtomicU64,
    /// Attempts after the first.
    pub retries: AtomicU64,
    /// Connections made.
    pub connects: AtomicU64,
    zero: Instant,
    /// Milliseconds after `zero`; 0: the log owes nothing.
    owed_since_ms: AtomicU64,
}

/// How long the log may owe a verdict. A refusal that says nothing about the event ("there is no leader") is no verdict,
/// so a server that is cut off from the others is found out although it answers.
pub(super) const VERDICT_PATIENCE: Duration = Duration::from_secs(2);

/// The same on a server that was asked because another owed one already: somewhere among the servers is the leader, or
/// will be, and it is to be met soon.
pub(super) const NEXT_PATIENCE: Duration = Duration::from_secs(1);

impl Default for AppendStats {
    fn default() -> Self {
        Self {
            in_flight: AtomicUsize::new(0),
            acked: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            zero: Instant::now(),
            owed_since_ms: AtomicU64::new(0),
        }
    }
}

impl AppendStats {
    /// An append was sent.
    pub(super) fn sent(&self) {
        if self.owed_since_ms.load(Relaxed) == 0 {
            self.owed_since_ms.store(self.now_ms(), Relaxed);
        }
    }

    /// The log has said what became of an append. `others` still wait.
    pub(super) fn judged(&self, others: bool) {
        self.owed_since_ms.store(if others { self.now_ms() } else { 0 }, Relaxed);
    }

    /// For how long the log has owed a verdict, over all connections.
    pub(super) fn owed_for(&self) -> Duration {
        match self.owed_since_ms.load(Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(self.now_ms().saturating_sub(since)),
        }
    }

    /// Whether the log has not said for seconds what became of an append: it may not take writes any more.
    pub fn is_overdue(&self) -> bool {
        self.owed_for() > VERDICT_PATIENCE
    }

    /// Never zero.
    fn now_ms(&self) -> u64 {
        self.zero.elapsed().as_millis() as u64 + 1
    }
}
