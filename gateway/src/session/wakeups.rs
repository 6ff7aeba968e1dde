//! Every order of the steps around the [`outlet`](super::outlet): no frame and no waiter is forgotten.
//!
//! `loom` runs each test once for every order in which the threads can pass their locks and atomics, within a bound of
//! preemptions. A task that waits while its wake-up was lost is a deadlock, which fails the test.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::Poll,
};

use bytes::Bytes;
use loom::{future::block_on, model::Builder, sync::Arc, thread};
use shared::id::Seq;

use self::outlet::Outlet;
use super::outbox::{self, Bounds, Queued};

/// The checker's locks and atomics, with the names that the outlet uses.
mod sync {
    use std::{sync::PoisonError, task::Waker};

    pub(super) use loom::sync::{
        MutexGuard,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    };

    #[derive(Debug)]
    pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// What `futures_util::task::AtomicWaker` promises, by a lock: a wake-up reaches the waker that was registered last,
    /// and what was written before it is seen by whoever registers after it.
    #[derive(Debug)]
    pub(super) struct AtomicWaker(Mutex<Option<Waker>>);

    impl AtomicWaker {
        pub(super) fn new() -> Self {
            Self(Mutex::new(None))
        }

        pub(super) fn register(&self, waker: &Waker) {
            *self.0.lock() = Some(waker.clone());
        }

        pub(super) fn wake(&self) {
            let waker = self.0.lock().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

#[expect(clippy::duplicate_mod, reason = "compiled a second time, with the checker's locks and atomics")]
#[expect(dead_code, reason = "the model does not use all of it")]
#[path = "outlet.rs"]
mod outlet;

const FRAME_BYTES: usize = 10;
/// How often one order may take a thread away from its work. With more of it few bugs are found that were not found
/// before, and it takes much longer.
const PREEMPTIONS: usize = 3;
/// The same for three threads, which have many more orders.
const PREEMPTIONS_OF_THREE: usize = 2;

fn outlet() -> Arc<Outlet> {
    Arc::new(Outlet::new(Bounds { bytes: 1_000, frames: 100 }))
}

fn frame(covers: u64) -> Queued {
    Queued { bytes: Bytes::from_static(&[0; FRAME_BYTES]), covers: Seq(covers), stored_us: 0 }
}

/// Runs the scenario in every order of its threads' steps.
fn explore(preemptions: usize, scenario: impl Fn() + Send + Sync + 'static) {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        RUNS.fetch_add(1, Relaxed);
        scenario();
    });
    println!("{} orders", RUNS.load(Relaxed));
}

/// The connection's task as the socket runs it, until it has written `frames`, is told to close, or is to end.
async fn connection(outlet: &Outlet, frames: usize, bytes_at_a_time: usize) {
    let mut written = 0;
    poll_fn(|cx| {
        outlet.wake(cx.waker());
        if outlet.is_ended() || outlet.closing().is_some() {
            return Poll::Ready(());
        }
        loop {
            let mut outbox = outlet.outbox();
            if outbox.is_empty() {
                break;
            }
            let count = outbox.bytes().min(bytes_at_a_time);
            outbox.advance(count, 0);
            outbox.wake_if_drained(0);
            written += count;
        }
        if written == frames * FRAME_BYTES { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[test]
fn every_frame_that_is_queued_is_written() {
    explore(PREEMPTIONS, || {
        let outlet = outlet();
        let hub = {
            let outlet = outlet.clone();
            thread::spawn(move || {
                outlet.push(frame(1), 0);
                assert!(outlet.push_durable(frame(2), 0));
            })
        };
        block_on(connection(&outlet, 2, FRAME_BYTES + 1));
        hub.join().unwrap();
    });
}

#[test]
fn frames_of_two_threads_are_written() {
    explore(PREEMPTIONS_OF_THREE, || {
        let outlet = outlet();
        let pushes: Vec<_> = (1..=2)
            .map(|seq| {
                let outlet = outlet.clone();
                thread::spawn(move || outlet.push(frame(seq), 0))
            })
            .collect();
        block_on(connection(&outlet, 2, usize::MAX));
        for push in pushes {
            push.join().unwrap();
        }
    });
}

#[test]
fn a_catch_up_that_waits_for_the_outbox_goes_on_when_it_is_written() {
    explore(PREEMPTIONS, || {
        let outlet = outlet();
        outlet.push(frame(1), 0);
        let catch_up = {
            let outlet = outlet.clone();
            thread::spawn(move || {
                block_on(async {
                    outlet.drained(0, || false).await;
                    outlet.push(frame(2), 0);
                    outlet.drained(0, || false).await;
                })
            })
        };
        block_on(connection(&outlet, 2, FRAME_BYTES / 2));
        catch_up.join().unwrap();
    });
}

#[test]
fn a_catch_up_goes_on_when_the_hub_drops_what_waits() {
    explore(PREEMPTIONS, || {
        let outlet = outlet();
        outlet.push(frame(1), 0);
        let catch_up = {
            let outlet = outlet.clone();
            thread::spawn(move || block_on(outlet.drained(0, || false)))
        };
        let (resume, dropped) = outlet.outbox().drop_durable();
        assert_eq!((resume, dropped), (Seq(0), 1));
        catch_up.join().unwrap();
    });
}

#[test]
fn a_close_reaches_the_connection_and_the_catch_up() {
    explore(PREEMPTIONS_OF_THREE, || {
        let outlet = outlet();
        outlet.push(frame(1), 0);
        let catch_up = {
            let outlet = outlet.clone();
            thread::spawn(move || block_on(outlet.drained(0, || false)))
        };
        let sweep = {
            let outlet = outlet.clone();
            thread::spawn(move || outlet.close(4404, 0))
        };
        // The peer takes nothing, so only the close can end the two.
        block_on(poll_fn(|cx| {
            outlet.wake(cx.waker());
            if outlet.closing() == Some(4404) { Poll::Ready(()) } else { Poll::Pending }
        }));
        catch_up.join().unwrap();
        sweep.join().unwrap();
    });
}

#[test]
fn a_connection_that_goes_away_ends_its_catch_up() {
    explore(PREEMPTIONS, || {
        let outlet = outlet();
        outlet.push(frame(1), 0);
        let catch_up = {
            let outlet = outlet.clone();
            thread::spawn(move || block_on(outlet.drained(0, || false)))
        };
        outlet.end();
        catch_up.join().unwrap();
    });
}

#[test]
fn an_end_reaches_a_connection_that_lingers() {
    explore(PREEMPTIONS, || {
        let outlet = outlet();
        let sweep = {
            let outlet = outlet.clone();
            thread::spawn(move || {
                outlet.push(frame(1), 0);
                outlet.end();
            })
        };
        block_on(connection(&outlet, usize::MAX / FRAME_BYTES, usize::MAX));
        sweep.join().unwrap();
    });
}
