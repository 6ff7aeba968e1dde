//! Who hashes next: turns for a bounded number of hashes at a time, and two lanes of callers that wait for one.
//!
//! Logins from places that the account knows go first, so that strangers who try passwords keep no owner out.
//! Invariants: at most `parallel` turns are out at a time; a lane holds at most `places` callers, in the order in which
//! they came; nobody waits longer than `patience`; of `STRANGERS_SHARE` turns one goes to a stranger who waits, so
//! that owners on a new device are served too; a caller that goes away frees its place.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{sync::oneshot, time::timeout};

/// While both lanes wait, each fourth turn is a stranger's.
const STRANGERS_SHARE: u32 = 4;
/// What a hash is taken to last before the first one was measured: that of bcrypt's cost 12.
const FIRST_GUESS: Duration = Duration::from_millis(300);
/// The longest wait that a refused caller is told. The queue moves on much sooner.
const LONGEST_TOLD: Duration = Duration::from_secs(30);

/// Which callers a caller waits with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The account was opened from this place before.
    Known,
    /// Anybody else, and new accounts.
    Stranger,
}

/// There is no place in the lane, or no turn came in time. After this time there should be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy(pub Duration);

/// The bounds of a queue.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub parallel: usize,
    pub places: usize,
    pub patience: Duration,
}

/// The turns and those who wait for one. Clones share them.
#[derive(Clone)]
pub struct Queue(Arc<Inner>);

struct Inner {
    bounds: Bounds,
    state: Mutex<State>,
    /// How many callers wait.
    waiting: Gauge,
}

struct State {
    free: usize,
    known: VecDeque<oneshot::Sender<Turn>>,
    strangers: VecDeque<oneshot::Sender<Turn>>,
    /// Turns that known callers got since the last stranger's.
    known_in_a_row: u32,
    /// How long a turn lasts, as a moving average.
    lasts: Duration,
}

/// The right to hash. Dropped, it goes to the next caller.
pub struct Turn {
    queue: Queue,
    /// When its caller took it; `None` if nobody has yet.
    since: Option<Instant>,
}

impl Queue {
    pub fn new(bounds: Bounds, waiting: Gauge) -> Self {
        let state = State {
            free: bounds.parallel,
            known: VecDeque::new(),
            strangers: VecDeque::new(),
            known_in_a_row: 0,
            lasts: FIRST_GUESS,
        };
        Self(Arc::new(Inner { bounds, state: Mutex::new(state), waiting }))
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn turn(&self, lane: Lane) -> Result<Turn, Busy> {
        let coming = {
            let mut state = self.0.state.lock();
            if state.free > 0 {
                state.free -= 1;
                return Ok(self.begin());
            }
            state.line_up(lane, &self.0.bounds)?
        };
        self.0.waiting.inc();
        let _counted = Waiting(&self.0.waiting);
        match timeout(self.0.bounds.patience, coming).await {
            Ok(Ok(mut turn)) => {
                turn.since = Some(Instant::now());
                Ok(turn)
            }
            Ok(Err(_)) | Err(_) => Err(Busy(self.0.state.lock().wait_of(lane, &self.0.bounds))),
        }
    }

    /// A turn, if one is free at this moment.
    pub fn turn_if_idle(&self) -> Option<Turn> {
        let mut state = self.0.state.lock();
        state.free = state.free.checked_sub(1)?;
        Some(self.begin())
    }

    fn begin(&self) -> Turn {
        Turn { queue: self.clone(), since: Some(Instant::now()) }
    }
}

impl State {
    fn lane(&mut self, lane: Lane) -> &mut VecDeque<oneshot::Sender<Turn>> {
        match lane {
            Lane::Known => &mut self.known,
            Lane::Stranger => &mut self.strangers,
        }
    }

    fn line_up(&mut self, lane: Lane, bounds: &Bounds) -> Result<oneshot::Receiver<Turn>, Busy> {
        let callers = self.lane(lane);
        callers.retain(|caller| !caller.is_closed());
        if callers.len() >= bounds.places {
            return Err(Busy(self.wait_of(lane, bounds)));
        }
        let (caller, coming) = oneshot::channel();
        callers.push_back(caller);
        Ok(coming)
    }

    /// How long a caller who came last would wait.
    fn wait_of(&mut self, lane: Lane, bounds: &Bounds) -> Duration {
        let callers = self.lane(lane);
        callers.retain(|caller| !caller.is_closed());
        let ahead = callers.len() + 1;
        let rounds = u32::try_from(ahead.div_ceil(bounds.parallel.max(1))).unwrap_or(u32::MAX);
        self.lasts.saturating_mul(rounds).min(LONGEST_TOLD)
    }

    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        if self.known_in_a_row + 1 >= STRANGERS_SHARE
            && let Some(caller) = first(&mut self.strangers)
        {
            self.known_in_a_row = 0;
            return Some(caller);
        }
        if let Some(caller) = first(&mut self.known) {
            self.known_in_a_row = self.known_in_a_row.saturating_add(1);
            return Some(caller);
        }
        self.known_in_a_row = 0;
        first(&mut self.strangers)
    }
}

/// The first caller of a lane that has not gone away. Those before it have left their places.
fn first(lane: &mut VecDeque<oneshot::Sender<Turn>>) -> Option<oneshot::Sender<Turn>> {
    while let Some(caller) = lane.pop_front() {
        if !caller.is_closed() {
            return Some(caller);
        }
    }
    None
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.queue.0.state.lock();
            // A turn that nobody took says nothing about how long a hash lasts.
            if let Some(since) = self.since {
                state.lasts = (state.lasts * 7 + since.elapsed()) / 8;
            }
            let next = state.next();
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        // If the caller has gone away just now, the turn comes back and is dropped, which passes it on.
        drop(next.map(|caller| caller.send(Turn { queue: self.queue.clone(), since: None })));
    }
}

/// Counts a caller in the gauge until its turn has come, or it goes away.
struct Waiting<'a>(&'a Gauge);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

    use super::*;

    fn queue(places: usize, patience: Duration) -> Queue {
        Queue::new(Bounds { parallel: 1, places, patience }, Gauge::default())
    }

    const LONG: Duration = Duration::from_secs(60);

    /// Lines callers up behind a turn that is out, and returns the order in which they are served.
    async fn served(callers: &[Lane]) -> Vec<Lane> {
        let queue = queue(callers.len(), LONG);
        let first = queue.turn(Lane::Stranger).await.ok().unwrap();
        let (log, mut order) = tokio::sync::mpsc::channel(callers.len());
        for (at, lane) in callers.iter().enumerate() {
            let (waiter, log, lane) = (queue.clone(), log.clone(), *lane);
            tokio::spawn(async move {
                let turn = waiter.turn(lane).await.ok().unwrap();
                log.send(lane).await.unwrap();
                drop(turn);
            });
            while queue.0.waiting.get() <= at as i64 {
                tokio::task::yield_now().await;
            }
        }
        drop((first, log));
        let mut found = Vec::new();
        while let Some(lane) = order.recv().await {
            found.push(lane);
        }
        assert_eq!((queue.0.waiting.get(), queue.0.state.lock().free), (0, 1));
        found
    }

    #[tokio::test]
    async fn known_callers_go_first_and_strangers_are_not_forgotten() {
        use Lane::{Known, Stranger};
        assert_eq!(served(&[Stranger, Stranger, Known]).await, [Known, Stranger, Stranger]);
        let order = served(&[Stranger, Stranger, Known, Known, Known, Known, Known]).await;
        assert_eq!(order, [Known, Known, Known, Stranger, Known, Known, Stranger]);
    }

    #[tokio::test]
    async fn a_full_lane_leaves_the_other_one_its_places() {
        let queue = queue(2, LONG);
        let turn = queue.turn(Lane::Stranger).await.ok().unwrap();
        let waiting: Vec<_> =
            (0..2).map(|_| queue.0.state.lock().line_up(Lane::Stranger, &queue.0.bounds).unwrap()).collect();
        let refused = queue.turn(Lane::Stranger).await.err().unwrap();
        assert!(refused.0 > FIRST_GUESS, "three would hash first: {refused:?}");
        assert!(queue.0.state.lock().line_up(Lane::Known, &queue.0.bounds).is_ok());
        // Those who have gone away leave their places.
        drop(waiting);
        assert!(queue.0.state.lock().line_up(Lane::Stranger, &queue.0.bounds).is_ok());
        drop(turn);
        assert_eq!(queue.0.state.lock().free, 1, "nobody was there to take the turn");
    }

    #[tokio::test]
    async fn callers_who_have_gone_away_make_no_turn_seem_short() {
        let queue = queue(1_000, LONG);
        let turn = queue.turn(Lane::Stranger).await.ok().unwrap();
        let line_up = || queue.0.state.lock().line_up(Lane::Stranger, &queue.0.bounds).unwrap();
        // The last of them goes away only after the turn was sent.
        let (gone, mut late): (Vec<_>, _) = ((0..500).map(|_| line_up()).collect(), line_up());
        queue.0.state.lock().strangers.iter().for_each(|caller| assert!(!caller.is_closed()));
        drop(gone);
        drop(turn);
        assert_eq!(queue.0.state.lock().free, 0, "the last one has it");
        let taken = late.try_recv().ok().unwrap();
        let told = queue.0.state.lock().wait_of(Lane::Stranger, &queue.0.bounds);
        assert!(told > FIRST_GUESS / 2, "{told:?}");
        drop(taken);
        assert_eq!(queue.0.state.lock().free, 1);
        assert!(queue.0.state.lock().wait_of(Lane::Stranger, &queue.0.bounds) > FIRST_GUESS / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_is_said() {
        let queue = queue(8, Duration::from_secs(3));
        let _turn = queue.turn(Lane::Known).await.ok().unwrap();
        let begun = tokio::time::Instant::now();
        assert!(queue.turn(Lane::Known).await.is_err());
        assert_eq!(begun.elapsed().as_secs(), 3);
        assert!(queue.turn_if_idle().is_none());
    }
}
