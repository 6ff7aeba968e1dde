//! What an appender counts.

use std::sync::atomic::{AtomicU64, AtomicUsize};

/// Counters since the start, and a gauge.
#[derive(Debug, Default)]
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
}
