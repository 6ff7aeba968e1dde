//! Time as the gateway's parts share it: monotonic milliseconds for intervals, Unix milliseconds for tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Reads tokio's clock, so that a test that moves tokio's timers moves this one as well.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Milliseconds since the gateway started; never goes back.
    pub fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

/// Unix milliseconds.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
