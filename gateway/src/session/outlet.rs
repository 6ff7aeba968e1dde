//! The place where the hub hands frames to the connection's task: the outbox, and the wake-ups around it.
//!
//! Several parties use it, perhaps on several threads. The hub queues frames and asks for the close; the connection's
//! task writes them; a catch-up and a fetch wait until little is left. Invariants: a party that waits is woken once its
//! condition holds; a wait ends when the session closes or ends; nothing is queued once a close was asked for, which is
//! looked at under the outbox' lock, so that nothing follows the close frame. The model checker looks at every order of
//! their steps (`wakeups.rs`), so the locks and atomics come from `sync`, which the checker replaces by its own.

use std::task::{Poll, Waker};

use super::{
    outbox::{Bounds, Outbox, Queued},
    sync::{AtomicBool, AtomicU16, AtomicU64, AtomicWaker, Mutex, MutexGuard, Ordering},
};

#[derive(Debug)]
pub(super) struct Outlet {
    waker: AtomicWaker,
    outbox: Mutex<Outbox>,
    bounds: Bounds,
    /// Durable events were queued since the last `Cursor`.
    dirty: AtomicBool,
    /// The close code that was asked for; zero: none.
    closing: AtomicU16,
    /// When the close was asked for; the peer gets a while to read why.
    closing_since_ms: AtomicU64,
    /// The connection is gone, or its peer had its time to read the close: the task ends.
    ended: AtomicBool,
}

impl Outlet {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            waker: AtomicWaker::new(),
            outbox: Mutex::new(Outbox::default()),
            bounds,
            dirty: AtomicBool::new(false),
            closing: AtomicU16::new(0),
            closing_since_ms: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// Wakes this waker whenever there is something to write or the session is to end.
    pub(super) fn wake(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// What is to be written. Only the connection's own task takes frames out.
    pub(super) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock()
    }

    /// Queues a frame, unless a close was asked for.
    pub(super) fn push(&self, frame: Queued, now_ms: u64) {
        let mut outbox = self.outbox.lock();
        if self.closing().is_none() {
            outbox.push(frame, now_ms);
            drop(outbox);
            self.waker.wake();
        }
    }

    /// Queues a live durable event. `false`: there is no room.
    #[must_use]
    pub(super) fn push_durable(&self, frame: Queued, now_ms: u64) -> bool {
        let mut outbox = self.outbox.lock();
        if self.closing().is_some() {
            // There is room enough for what nobody is sent.
            return true;
        }
        if !outbox.has_room(self.bounds, frame.bytes.len()) {
            return false;
        }
        outbox.push(frame, now_ms);
        drop(outbox);
        self.mark_dirty();
        self.waker.wake();
        true
    }

    /// Queues a frame only while the reader keeps up. `false`: it does not.
    pub(super) fn push_if_calm(&self, frame: Queued, now_ms: u64) -> bool {
        let mut outbox = self.outbox.lock();
        if self.closing().is_some() {
            return false;
        }
        let calm = outbox.bytes() < self.bounds.bytes / 4 && outbox.has_room(self.bounds, frame.bytes.len());
        if calm {
            outbox.push(frame, now_ms);
            drop(outbox);
            self.waker.wake();
        }
        calm
    }

    /// Whether so much waits to be written that nothing more is read.
    pub(super) fn is_choked(&self) -> bool {
        self.outbox.lock().is_over(self.bounds)
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    pub(super) fn mark_dirty(&self) {
        self.dirty.store(true, Ordering::Release);
    }

    /// Notes that a cursor covers all that is queued. Returns whether an event was queued since the last one.
    pub(super) fn cover(&self) -> bool {
        self.dirty.swap(false, Ordering::AcqRel)
    }

    /// Resolves once at most `low` bytes wait, or the session closes or ends, or the wait is `over`. One task waits at a
    /// time.
    pub(super) async fn drained(&self, low: usize, over: impl Fn() -> bool) {
        std::future::poll_fn(|cx| {
            let mut outbox = self.outbox.lock();
            if outbox.bytes() <= low || self.closing().is_some() || self.is_ended() || over() {
                return Poll::Ready(());
            }
            outbox.wait_drained(cx.waker());
            Poll::Pending
        })
        .await;
    }

    /// Lets the task that waits for [`Outlet::drained`] look whether its wait is over.
    pub(super) fn recheck(&self) {
        self.outbox.lock().wake_if_drained(usize::MAX);
    }

    /// Asks the connection's task to close with this code; the first reason stays.
    pub(super) fn close(&self, code: u16, now_ms: u64) {
        // The time first: whoever sees the code measures from it how long the peer has had.
        if self.closing().is_none() {
            self.closing_since_ms.store(now_ms, Ordering::Release);
        }
        let first = self.closing.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if first {
            self.outbox.lock().wake_if_drained(usize::MAX);
            self.waker.wake();
        }
    }

    /// The close code that was asked for.
    pub(super) fn closing(&self) -> Option<u16> {
        Some(self.closing.load(Ordering::Acquire)).filter(|code| *code != 0)
    }

    pub(super) fn closing_since_ms(&self) -> u64 {
        self.closing_since_ms.load(Ordering::Acquire)
    }

    /// Ends the connection's task without waiting for the peer any longer, and wakes those who wait for the outbox.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.outbox.lock().wake_if_drained(usize::MAX);
        self.waker.wake();
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}
