//! Moderation of wake-ups, as network cards moderate interrupts: a busy worker naps before it waits for events.
//!
//! At thousands of messages a second each of them finds a worker that has just gone to sleep, and waking it costs the
//! kernel (here, in NATS, and in every client on the same machine) more than the message does. A worker that ran out
//! of work while it is busy therefore sleeps a little first, deaf to everything; what comes meanwhile is found in one
//! go and travels together: commands to the log in one write, and their events back in one read. Two things are never
//! made to wait: what comes while the workers are not busy, and the log's answers to what was sent to it. And a gateway
//! that is kept busy by other gateways' events alone naps longer.

use std::{
    cell::Cell,
    io,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};

/// How long a worker is watched before it is called busy, or no longer busy.
const WINDOW: Duration = Duration::from_millis(10);

/// A worker that runs out of work as often as this in a [`WINDOW`] is busy.
const BUSY_PARKS: u32 = 8;

/// How many naps long a nap is while nobody is served: who is served once in a while waits this much longer each time.
const LONG_NAP: u32 = 4;
/// And no longer than this, whatever the setting: far below what anybody notices.
const LONGEST_NAP: Duration = Duration::from_millis(10);

/// Whom a busy gateway works for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// The log owes an answer to somebody here.
    Answers,
    /// Clients here send or receive.
    Clients,
    /// All that comes is events that nobody here wants.
    Nobody,
}

type Judge = Box<dyn Fn() -> Work + Send + Sync>;

/// When the workers nap.
#[derive(Default)]
pub struct Wakeups {
    work: OnceLock<Judge>,
}

impl Wakeups {
    /// The runtime of a gateway, whose busy workers nap for `nap`; zero: never.
    ///
    /// # Errors
    /// If threads can't be started.
    pub fn runtime(self: &Arc<Self>, nap: Duration) -> io::Result<Runtime> {
        let mut builder = Builder::new_multi_thread();
        builder.enable_all();
        if !nap.is_zero() {
            let wakeups = Arc::clone(self);
            builder.on_thread_park(move || {
                let began = Instant::now();
                if !WORKER.with(|worker| worker.parks(began)) {
                    return;
                }
                match wakeups.work() {
                    Work::Answers => return,
                    Work::Clients => thread::sleep(nap),
                    Work::Nobody => thread::sleep((nap * LONG_NAP).min(LONGEST_NAP.max(nap))),
                }
                WORKER.with(|worker| worker.napped(began.elapsed()));
            });
        }
        builder.build()
    }

    /// Naps are as `judge` says, which is asked before each; none before this.
    pub fn judged_by(&self, judge: impl Fn() -> Work + Send + Sync + 'static) {
        // Set once, by the one gateway of the process.
        drop(self.work.set(Box::new(judge)));
    }

    fn work(&self) -> Work {
        self.work.get().map_or(Work::Answers, |judge| judge())
    }
}

thread_local! {
    static WORKER: Worker = const { Worker::new() };
}

/// How busy a worker is.
struct Worker {
    /// The begin of the window; none before the first.
    since: Cell<Option<Instant>>,
    parks: Cell<u32>,
    busy: Cell<bool>,
}

impl Worker {
    const fn new() -> Self {
        Self { since: Cell::new(None), parks: Cell::new(0), busy: Cell::new(false) }
    }

    /// A nap is in no window: it would make a busy worker look less so.
    fn napped(&self, time: Duration) {
        self.since.set(self.since.get().map(|since| since + time));
    }

    /// Notes that the worker ran out of work. Whether it is busy.
    fn parks(&self, now: Instant) -> bool {
        let since = self.since.get().unwrap_or(now);
        let elapsed = now.saturating_duration_since(since);
        self.parks.set(self.parks.get() + 1);
        if elapsed >= WINDOW {
            // A window that ends late was quiet.
            self.busy.set(self.parks.get() >= BUSY_PARKS && elapsed < 2 * WINDOW);
            self.parks.set(0);
            self.since.set(Some(now));
        } else {
            self.since.set(Some(since));
        }
        self.busy.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parks every `every`, for `count` times, from `start` on, and naps for `nap` each time that it is busy: whether it
    /// is at the end, and when that is.
    fn park(worker: &Worker, start: Instant, every: Duration, count: u32, nap: Duration) -> (bool, Instant) {
        let (mut now, mut busy) = (start, false);
        for _ in 0..count {
            now += every;
            busy = worker.parks(now);
            if busy {
                now += nap;
                worker.napped(nap);
            }
        }
        (busy, now)
    }

    #[test]
    fn a_worker_is_busy_while_it_runs_out_of_work_all_the_time() {
        for nap in [0, 100, 1_200, 10_000].map(Duration::from_micros) {
            let worker = Worker::new();
            let (busy, now) = park(&worker, Instant::now(), Duration::from_millis(2), 100, nap);
            assert!(!busy, "500 wake-ups a second are no load");
            let (busy, now) = park(&worker, now, Duration::from_micros(100), 300, nap);
            assert!(busy);
            let (busy, now) = park(&worker, now, Duration::from_micros(900), 300, nap);
            assert!(busy, "whatever it does between its naps");
            let (busy, now) = park(&worker, now, Duration::from_secs(1), 1, nap);
            assert!(!busy, "after a pause it is awake at once");
            let (busy, _) = park(&worker, now, Duration::from_millis(2), 100, nap);
            assert!(!busy);
        }
    }
}
