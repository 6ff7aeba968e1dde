//! Tasks on one thread, of which chance takes the next step: the same seed, the same schedule.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// SplitMix64.
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From zero to just below `n`.
    pub(super) const fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) const fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// One time in `n`.
    pub(super) const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Set by a wake-up, taken by the next poll.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    name: &'static str,
    work: Work,
    woken: Arc<Woken>,
}

#[derive(Default)]
pub(super) struct Tasks(Vec<Task>);

impl Tasks {
    pub(super) fn add(&mut self, name: &'static str, work: Work) {
        self.0.push(Task { name, work, woken: Arc::new(Woken(AtomicBool::new(true))) });
    }

    /// Polls one of the tasks that were woken. Its name.
    pub(super) fn step(&mut self, random: &mut Random) -> Option<&'static str> {
        let is_woken = |task: &Task| task.woken.0.load(Ordering::Relaxed);
        let woken = self.0.iter().filter(|task| is_woken(task)).count();
        if woken == 0 {
            return None;
        }
        let nth = random.below(woken as u64) as usize;
        let index = (0..self.0.len()).filter(|index| is_woken(&self.0[*index])).nth(nth).unwrap();
        let task = &mut self.0[index];
        task.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(task.woken.clone());
        let name = task.name;
        if let Poll::Ready(()) = task.work.as_mut().poll(&mut Context::from_waker(&waker)) {
            drop(self.0.swap_remove(index));
        }
        Some(name)
    }

    /// The names of the tasks that have not ended.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|task| task.name).collect()
    }
}

/// Lets others go first.
pub(super) async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
