//! The hub: one partition's live state on this gateway, and the fan-out of its events to local sessions.
//!
//! Owns the ring, the states of the chats that local devices want, the local users and their sessions, and the
//! commands that wait for the log's verdict. One mutex guards it all; it is held for microseconds and never
//! across an await. Invariants:
//! - entries are applied in the log's order, each exactly once;
//! - every chat of a local user is loaded, or that user's sessions are held back until it is;
//! - a session in the live lane has been queued every event up to the hub's position that it is entitled to.

pub mod apply;
pub mod attach;
pub mod chat;
pub mod cut;
pub mod install;
pub mod look;
pub mod replay;
pub mod ring;
pub mod user;
pub mod verdict;
pub mod wire;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};
use shared::{
    cursor::{Cursor, Sealer},
    id::{ChatId, Position, Seq, UserId},
};
use slab::Slab;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

pub use self::wire::Encoding;
use self::{chat::Chat, ring::Ring, user::User, verdict::Waiter};
use crate::{
    clock::Clock,
    metrics::Metrics,
    session::{Session, close::Close},
};

/// A local user's place in [`State::users`].
pub type Slot = u32;

/// How long a catch-up that is held waits before it looks again in any case.
const INSTALL_POLL: Duration = Duration::from_millis(50);

pub struct Hub {
    state: Mutex<State>,
    /// The last sequence applied, for those who wait for it.
    passed: watch::Sender<Seq>,
    /// See [`Hub::expect`].
    expected: AtomicU64,
    open: AtomicBool,
    /// See [`Hub::serves`].
    served_ms: AtomicU64,
    installed: Notify,
    pub clock: Clock,
    pub sealer: Sealer,
    pub metrics: Arc<Metrics>,
}

/// What the mutex guards.
pub struct State {
    pub epoch: u32,
    pub ring: Ring,
    /// When entries were last applied; ms of the gateway's clock.
    pub applied_ms: u64,
    pub chats: HashMap<ChatId, Chat, FixedState>,
    pub users: Slab<User>,
    pub slots: HashMap<UserId, Slot, FixedState>,
    /// The ring's entries that change who is a member of something, ascending.
    pub membership: VecDeque<Seq>,
    /// Commands that are stored and wait for their verdict.
    pub waiters: BTreeMap<Seq, Vec<Waiter>>,
    /// Sessions that left the live lane and need a catch-up, collected for whoever holds no lock.
    pub behind: Vec<Arc<Session>>,
    /// Chats that a local user may have joined and that must be loaded.
    pub wanted: Vec<ChatId>,
}

impl Hub {
    /// An empty hub; it takes entries once it knows where to [`Hub::begin`].
    pub fn new(ring_bytes: usize, clock: Clock, sealer: Sealer, metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::new(State::new(ring_bytes)),
            passed: watch::Sender::new(Seq::ZERO),
            expected: AtomicU64::new(0),
            open: AtomicBool::new(false),
            served_ms: AtomicU64::new(0),
            installed: Notify::new(),
            clock,
            sealer,
            metrics,
        }
    }

    /// Sets where the first entry continues. Before the first session.
    pub fn begin(&self, floor: Position, epoch: u32) {
        let mut state = self.lock();
        state.epoch = epoch;
        state.ring.skip_to(floor);
        drop(state);
        self.announce(floor.seq);
    }

    /// The ring holds the recent past: sessions and commands may come.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// A client sent something, or is about to get something.
    pub fn serves(&self, now_ms: u64) {
        self.served_ms.store(now_ms, Ordering::Relaxed);
    }

    /// When a client was last served; ms of the gateway's clock.
    pub fn served_ms(&self) -> u64 {
        self.served_ms.load(Ordering::Relaxed)
    }

    /// Sets the gauges.
    pub fn measure(&self) {
        let state = self.lock();
        self.metrics.ring_bytes.set(state.ring.bytes() as i64);
        self.metrics.chats_loaded.set(state.chats.len() as i64);
    }

    /// The log is known to hold an entry at `seq`.
    pub fn expect(&self, seq: Seq) {
        self.expected.fetch_max(seq.get(), Ordering::AcqRel);
    }

    /// The highest sequence that the log is known to hold.
    pub fn expected(&self) -> Seq {
        Seq(self.expected.load(Ordering::Acquire))
    }

    /// Resolves when a chat's state has been installed, or soon anyway.
    pub async fn installed(&self) {
        let waited = tokio::time::timeout(INSTALL_POLL, self.installed.notified()).await;
        // Either is a reason to look again.
        drop(waited);
    }

    /// Closes the sessions of a token family.
    pub fn revoke(&self, user: UserId, did: Uuid) {
        let now_ms = self.clock.now_ms();
        let state = self.lock();
        let sessions = state.user(user).map(|user| user.sessions.as_slice()).unwrap_or_default();
        for session in sessions.iter().filter(|session| session.identity.did == did) {
            session.close(Close::Revoked, now_ms);
        }
    }

    /// How many sessions a user has here.
    pub fn sessions_of(&self, user: UserId) -> usize {
        self.lock().user(user).map_or(0, |user| user.sessions.len())
    }

    /// Short sections only, and never across an await.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Tells those who wait how far the tail has come.
    pub fn announce(&self, seq: Seq) {
        self.passed.send_if_modified(|passed| std::mem::replace(passed, seq) != seq);
    }

    /// The last sequence applied.
    pub fn position(&self) -> Seq {
        *self.passed.borrow()
    }

    /// Resolves once the tail has passed `seq`.
    pub async fn passed(&self, seq: Seq) {
        let mut passed = self.passed.subscribe();
        // The sender lives as long as the hub, so waiting can only succeed.
        let _closed = passed.wait_for(|at| *at >= seq).await.is_err();
    }

    /// Seals a position of the current epoch for a user.
    pub fn seal(&self, state: &State, user: UserId, position: Position) -> String {
        self.sealer.seal(user, Cursor { epoch: state.epoch, position })
    }
}

impl State {
    fn new(ring_bytes: usize) -> Self {
        Self {
            epoch: 0,
            ring: Ring::new(Position::default(), ring_bytes),
            applied_ms: 0,
            chats: HashMap::default(),
            users: Slab::new(),
            slots: HashMap::default(),
            membership: VecDeque::new(),
            waiters: BTreeMap::new(),
            behind: Vec::new(),
            wanted: Vec::new(),
        }
    }

    pub fn user(&self, user: UserId) -> Option<&User> {
        self.users.get(*self.slots.get(&user)? as usize)
    }

    pub fn user_mut(&mut self, user: UserId) -> Option<&mut User> {
        self.users.get_mut(*self.slots.get(&user)? as usize)
    }

    /// A chat whose state is loaded.
    pub fn loaded(&self, chat: ChatId) -> Option<&Chat> {
        self.chats.get(&chat).filter(|chat| chat.loaded)
    }

    /// All local sessions.
    pub fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.users.iter().flat_map(|(_, user)| &user.sessions)
    }
}
