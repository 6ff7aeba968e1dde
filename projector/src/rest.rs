//! Rest between two transactions: the process is deaf for a while.
//!
//! At thousands of events a second NATS writes some every millisecond, and each time the kernel wakes whoever waits for
//! its socket: a projector that reads them only at its next transaction would be woken dozens of times in between, for
//! nothing. A worker that has no other work sleeps through that time instead. Of several partitions in one process the
//! last to rest decides: the others' transactions may take that much longer.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};

/// However far away the next transaction is, the process is deaf for this long at most: reads that wait for the
/// projection, health checks and signals wait for half of it on average.
const LONGEST: Duration = Duration::from_millis(40);

/// Until when the workers may sleep. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rest {
    zero: Instant,
    /// Nanoseconds after `zero`.
    until: Arc<AtomicU64>,
}

impl Default for Rest {
    fn default() -> Self {
        Self { zero: Instant::now(), until: Arc::default() }
    }
}

impl Rest {
    /// The runtime of a process whose workers rest.
    ///
    /// # Errors
    /// If threads can't be started.
    pub fn runtime(&self) -> io::Result<Runtime> {
        let rest = self.clone();
        Builder::new_multi_thread().enable_all().on_thread_park(move || rest.sleep()).build()
    }

    /// There is nothing to do before `at`. Returns then, or once the process has been deaf for as long as it may be, and
    /// behind the tasks that were woken in the meantime.
    pub async fn until(&self, at: Instant) {
        let until = at.min(Instant::now() + LONGEST);
        let since_zero = until.saturating_duration_since(self.zero).as_nanos();
        self.until.store(u64::try_from(since_zero).unwrap_or(u64::MAX), Ordering::Relaxed);
        tokio::time::sleep_until(until.into()).await;
        tokio::task::yield_now().await;
    }

    fn sleep(&self) {
        let until = Duration::from_nanos(self.until.load(Ordering::Relaxed));
        let left = until.saturating_sub(self.zero.elapsed());
        if !left.is_zero() {
            thread::sleep(left);
        }
    }
}
