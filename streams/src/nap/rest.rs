//! The projector's naps: between two transactions its workers sleep, so that the process is deaf.
//!
//! A projector handles events at its next transaction. Until then it has no use for them, and NATS would wake it dozens
//! of times. If several partitions share a process, the last one to rest decides for all: the transactions of the
//! others may take that much longer.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::Nap;

/// However far away the next transaction is, the process is deaf for this long at most: reads that wait for the
/// projection, health checks and signals wait for half of it on average.
pub(super) const LONGEST: Duration = Duration::from_millis(40);

/// Until when the workers nap.
#[derive(Debug)]
pub struct Rest {
    zero: Instant,
    /// Nanoseconds after `zero`.
    until: AtomicU64,
}

impl Default for Rest {
    fn default() -> Self {
        Self { zero: Instant::now(), until: AtomicU64::default() }
    }
}

impl Rest {
    /// The caller has nothing to do before `at`. Returns then, or earlier: when the process has been deaf for as
    /// long as it may be. Tasks that were woken in the meantime run first.
    pub async fn until(&self, at: Instant) {
        let until = at.min(Instant::now() + LONGEST);
        let since_zero = until.saturating_duration_since(self.zero).as_nanos();
        self.until.store(u64::try_from(since_zero).unwrap_or(u64::MAX), Ordering::Relaxed);
        tokio::time::sleep_until(until.into()).await;
        tokio::task::yield_now().await;
    }
}

impl Nap for Rest {
    fn length(&self) -> Duration {
        Duration::from_nanos(self.until.load(Ordering::Relaxed)).saturating_sub(self.zero.elapsed())
    }
}
