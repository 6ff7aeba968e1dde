//! The gateway's naps: a worker naps while it is busy.
//!
//! The commands that arrive during a nap go to the log in one write, and their events come back in one read. Two things
//! never wait for a nap: anything that arrives while the worker is not busy, and the log's answers to what this gateway
//! sent. A gateway that handles only events which none of its clients want naps longer.

use std::{
    cell::Cell,
    sync::OnceLock,
    time::{Duration, Instant},
};

use super::Nap;

/// How long a worker is watched before it is called busy, or no longer busy.
const WINDOW: Duration = Duration::from_millis(10);

/// Events wake a busy worker again and again, and each time it runs out of work once more. One that does so as often as
/// this in a [`WINDOW`] is busy.
const BUSY_PARKS: u32 = 8;

/// A nap is this many times as long while nobody is served. A client that is served once in a while waits this much
/// longer each time.
const LONG_NAP: u32 = 4;

/// A long nap is no longer than this, whatever the setting: far below what a user notices.
const LONGEST_NAP: Duration = Duration::from_millis(10);

/// Whom a busy gateway works for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// The log owes an answer to a client of this gateway.
    Answers,
    /// Clients of this gateway send or receive.
    Clients,
    /// No client of this gateway wants the events that arrive.
    Nobody,
}

type Judge = Box<dyn Fn() -> Work + Send + Sync>;

/// Naps while the worker is busy; longer ones while nobody is served. By default there are none.
#[derive(Default)]
pub struct WhileBusy {
    nap: Duration,
    work: OnceLock<Judge>,
}

impl WhileBusy {
    /// The naps last `nap`; zero: there are none.
    pub fn new(nap: Duration) -> Self {
        Self { nap, work: OnceLock::new() }
    }

    /// Before each nap `judge` is asked whom the gateway works for. Without a judge there are no naps.
    pub fn judged_by(&self, judge: impl Fn() -> Work + Send + Sync + 'static) {
        // Set once, by the one gateway of the process.
        drop(self.work.set(Box::new(judge)));
    }

    fn work(&self) -> Work {
        self.work.get().map_or(Work::Answers, |judge| judge())
    }
}

impl Nap for WhileBusy {
    fn length(&self) -> Duration {
        if self.nap.is_zero() || !WORKER.with(|worker| worker.parks(Instant::now())) {
            return Duration::ZERO;
        }
        match self.work() {
            Work::Answers => Duration::ZERO,
            Work::Clients => self.nap,
            Work::Nobody => (self.nap * LONG_NAP).min(LONGEST_NAP.max(self.nap)),
        }
    }

    fn napped(&self, time: Duration) {
        WORKER.with(|worker| worker.napped(time));
    }
}

thread_local! {
    static WORKER: Worker = const { Worker::new() };
}

/// How busy a worker is.
struct Worker {
    /// The begin of the window; none before the first.
    since: Cell<Option<Instant>>,
    /// How often the worker ran out of work in the window.
    parks: Cell<u32>,
    busy: Cell<bool>,
}

impl Worker {
    const fn new() -> Self {
        Self { since: Cell::new(None), parks: Cell::new(0), busy: Cell::new(false) }
    }

    /// Takes a nap out of the window, because it would make a busy worker look less busy.
    fn napped(&self, time: Duration) {
        self.since.set(self.since.get().map(|since| since + time));
    }

    /// Notes that the worker ran out of work. Returns whether it is busy.
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

    /// Parks every `every`, for `count` times, from `start` on, and naps for `nap` each time that it is busy. Returns
    /// whether it is busy at the end, and when that is.
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

    #[test]
    fn a_nap_is_as_long_as_the_work_allows() {
        let nap = Duration::from_micros(1_200);
        for (work, expected) in [
            (None, Duration::ZERO),
            (Some(Work::Answers), Duration::ZERO),
            (Some(Work::Clients), nap),
            (Some(Work::Nobody), nap * LONG_NAP),
        ] {
            let naps = WhileBusy::new(nap);
            if let Some(work) = work {
                naps.judged_by(move || work);
            }
            WORKER
                .with(|worker| park(worker, Instant::now(), Duration::from_micros(100), 300, Duration::ZERO));
            assert_eq!(naps.length(), expected, "{work:?}");
        }
    }
}
