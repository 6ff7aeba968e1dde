//! What naps need of tokio, tried with the version in use: when it calls the hook, and on which thread.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

use super::{Nap, Rest, WhileBusy, Work, builder, rest};

/// No test waits longer than this for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// With one worker there is no other that could run a task while it naps.
fn one_worker(policy: Arc<impl Nap>) -> Runtime {
    builder(policy).worker_threads(1).build().unwrap()
}

/// Runs `task` on a worker of the runtime.
fn on_worker<T: Send + 'static>(runtime: &Runtime, task: impl Future<Output = T> + Send + 'static) -> T {
    runtime.block_on(runtime.spawn(task)).unwrap()
}

/// Another policy, watched.
struct Watched<N> {
    policy: N,
    asked: AtomicUsize,
    threads: Mutex<HashSet<ThreadId>>,
    /// When the naps end, at the earliest.
    naps: Mutex<Vec<Instant>>,
}

impl<N: Nap> Watched<N> {
    fn new(policy: N) -> Arc<Self> {
        Arc::new(Self {
            policy,
            asked: AtomicUsize::new(0),
            threads: Mutex::default(),
            naps: Mutex::default(),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn naps(&self) -> usize {
        self.naps.lock().unwrap().len()
    }
}

impl<N: Nap> Nap for Watched<N> {
    fn length(&self) -> Duration {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.threads.lock().unwrap().insert(thread::current().id());
        let nap = self.policy.length();
        if !nap.is_zero() {
            self.naps.lock().unwrap().push(Instant::now() + nap);
        }
        nap
    }

    fn napped(&self, time: Duration) {
        self.policy.napped(time);
    }
}

/// Holds the worker at the next time that it runs out of work, until the test releases it.
struct Held {
    armed: AtomicBool,
    came: mpsc::SyncSender<ThreadId>,
    release: Mutex<mpsc::Receiver<()>>,
}

impl Nap for Held {
    fn length(&self) -> Duration {
        if self.armed.swap(false, Ordering::SeqCst) {
            self.came.send(thread::current().id()).unwrap();
            self.release.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        Duration::ZERO
    }
}

#[test]
fn a_worker_that_runs_out_of_work_asks_before_it_waits_and_is_deaf_meanwhile() {
    let (came, arrivals) = mpsc::sync_channel(1);
    let (released, release) = mpsc::channel();
    let held = Arc::new(Held { armed: AtomicBool::new(false), came, release: Mutex::new(release) });
    let runtime = one_worker(held.clone());
    let arm = held.clone();
    on_worker(&runtime, async move { arm.armed.store(true, Ordering::SeqCst) });
    let asking = arrivals.recv_timeout(PATIENCE).expect("the worker has nothing to do, so it asks");

    let (ran, running) = mpsc::channel();
    let is_released = Arc::new(AtomicBool::new(false));
    let seen = is_released.clone();
    runtime.spawn(async move { ran.send((thread::current().id(), seen.load(Ordering::SeqCst))) });
    assert!(running.try_recv().is_err());
    is_released.store(true, Ordering::SeqCst);
    released.send(()).unwrap();
    let (worker, was_released) = running.recv_timeout(PATIENCE).expect("what came meanwhile is found");
    assert_eq!(worker, asking, "a nap is on the worker, not on another thread");
    assert!(was_released, "nothing runs on a worker that naps");
}

#[test]
fn a_worker_that_has_work_is_not_asked() {
    let policy = Watched::new(WhileBusy::default());
    let runtime = one_worker(policy.clone());
    let during = policy.clone();
    let (before, after) = on_worker(&runtime, async move {
        let before = during.asked();
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        (before, during.asked())
    });
    assert_eq!(before, after, "a task that is ready keeps its worker awake");
}

#[test]
fn only_workers_are_asked() {
    let policy = Watched::new(WhileBusy::default());
    let runtime = one_worker(policy.clone());
    let worker = on_worker(&runtime, async { thread::current().id() });
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let blocking = runtime.spawn_blocking(move || sender.send(()));
    runtime.block_on(receiver).unwrap();
    runtime.block_on(blocking).unwrap().unwrap();
    drop(runtime);
    assert_eq!(*policy.threads.lock().unwrap(), HashSet::from([worker]));
}

/// Wakes a task on the worker, and waits for its answer, until `enough` or `most` times.
fn keep_busy(runtime: &Runtime, most: usize, enough: impl Fn() -> bool) {
    let (ask, mut asked) = tokio::sync::mpsc::channel::<()>(1);
    let (answer, mut answers) = tokio::sync::mpsc::channel::<()>(1);
    runtime.spawn(async move {
        while asked.recv().await.is_some() {
            answer.send(()).await.unwrap();
        }
    });
    runtime.block_on(async {
        for _ in 0..most {
            if enough() {
                break;
            }
            ask.send(()).await.unwrap();
            answers.recv().await.unwrap();
        }
    });
}

/// So many wake-ups that a worker is busy by any measure.
const MANY: usize = 20_000;

fn clients_served_with(nap: Duration) -> WhileBusy {
    let policy = WhileBusy::new(nap);
    policy.judged_by(|| Work::Clients);
    policy
}

#[test]
fn a_busy_worker_naps() {
    let policy = Watched::new(clients_served_with(Duration::from_micros(100)));
    let runtime = one_worker(policy.clone());
    keep_busy(&runtime, MANY, || policy.naps() >= 10);
    assert!(policy.naps() >= 10, "{} naps", policy.naps());
}

#[test]
fn a_worker_that_is_not_busy_is_not_delayed() {
    let policy = Watched::new(clients_served_with(Duration::from_secs(1)));
    let runtime = one_worker(policy.clone());
    on_worker(&runtime, async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(policy.asked() > 0);
    assert_eq!(policy.naps(), 0);
}

#[test]
fn an_answer_of_the_log_waits_for_no_nap() {
    let naps = WhileBusy::new(Duration::from_secs(1));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    naps.judged_by(move || {
        count.fetch_add(1, Ordering::SeqCst);
        Work::Answers
    });
    let policy = Watched::new(naps);
    let runtime = one_worker(policy.clone());
    keep_busy(&runtime, MANY, || asked.load(Ordering::SeqCst) >= 10);
    assert!(asked.load(Ordering::SeqCst) >= 10, "the worker was busy");
    assert_eq!(policy.naps(), 0);
}

/// A policy that naps as long as it says, once.
struct Once {
    nap: Duration,
    armed: AtomicBool,
}

impl Nap for Once {
    fn length(&self) -> Duration {
        if self.armed.swap(false, Ordering::SeqCst) { self.nap } else { Duration::ZERO }
    }
}

#[test]
fn a_nap_delays_a_wake_up_by_all_of_its_length() {
    let nap = Duration::from_millis(50);
    let policy = Arc::new(Once { nap, armed: AtomicBool::new(false) });
    let runtime = one_worker(policy.clone());
    let began = Instant::now();
    on_worker(&runtime, async move {
        policy.armed.store(true, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1)).await;
    });
    assert!(began.elapsed() >= nap, "{:?}", began.elapsed());
}

#[test]
fn a_process_at_rest_hears_nothing_before_its_time_but_is_not_deaf_for_long() {
    let policy = Watched::new(Rest::default());
    let runtime = one_worker(policy.clone());
    let resting = policy.clone();
    let rested = runtime.spawn(async move {
        while resting.naps() == 0 {
            resting.policy.until(Instant::now() + 1_000 * rest::LONGEST).await;
        }
    });
    let began = Instant::now();
    while policy.naps() == 0 && began.elapsed() < PATIENCE {
        thread::yield_now();
    }
    let deaf_until = *policy.naps.lock().unwrap().first().expect("the worker naps");
    let heard = on_worker(&runtime, async { Instant::now() });
    assert!(heard >= deaf_until);
    runtime.block_on(rested).unwrap();
    assert!(began.elapsed() < PATIENCE, "though its next transaction is 40 seconds away");
}
