//! The two clocks of the gateway: monotonic milliseconds for intervals, Unix milliseconds for points in time that
//! others read, such as the end of a token.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Counts milliseconds from the gateway's start, on tokio's clock: a test that moves tokio's timers moves this one as
/// well. Copies count from the same start.
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

/// The present time in Unix milliseconds. It can go back when the system's clock is set.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
