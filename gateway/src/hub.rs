//! The hub: one partition's live state on this gateway, and the fan-out of its events to local sessions.
//!
//! It owns the ring (the recent past of the log), the states of the chats of local users, the local users with their
//! sessions, and the commands that wait for a verdict. It never reads the log, the database or a socket: others bring
//! entries and loaded states, and take frames out of the sessions' outboxes. One mutex guards all of it. Applying and
//! feeding hold it for at most some 200 µs at a time. It is never held across an await, nor outside this folder.
//! Invariants:
//! - entries are applied in the log's order, each exactly once;
//! - every chat of a local user is loaded, or the user's sessions are held back until it is;
//! - a session in the live lane has been queued every event up to the hub's position that its user is entitled to.
//!
//! The words: an *entry* is what the log holds at one sequence; an *event* is an entry whose bytes decode. The
//! *verdict* on an event is the fold's: valid, or void; a repeat of a command counts as void. A *cut* is the loss of
//! the log's tail; each begins a new *epoch*, that is, a new history of the log.

pub mod apply;
pub mod attach;
pub mod chat;
pub mod cut;
pub mod facts;
pub mod install;
pub mod judge;
#[cfg(test)]
mod law;
pub mod look;
pub mod marks;
mod people;
pub mod projected;
pub mod replay;
pub mod ring;
pub mod sight;
#[cfg(test)]
pub(crate) mod stage;
pub mod user;
pub mod verdict;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};
use shared::{
    cursor::{Cursor, Sealer},
    id::{ChatId, EventId, Position, Seq, UserId},
};
use slab::Slab;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use self::{chat::Chat, marks::Marks, ring::Ring, user::User, verdict::Waiting};
use crate::{
    infra::{clock::Clock, metrics::Metrics},
    session::Session,
};

/// A local user's place in [`State::users`].
type UserSlot = u32;

/// A catch-up that waits for a chat's state looks again after this time, even if it was not notified.
const INSTALL_POLL: Duration = Duration::from_millis(50);

/// How far the gateway is between its start and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The ring is being filled with the recent past: nobody is served yet.
    Starting = 0,
    Serving = 1,
    /// Sessions are being closed, and no new ones are taken.
    Draining = 2,
}

/// How long a proof of the hub's position holds: an idle tail gets a heartbeat every second, and one may be lost.
const PROOF_MS: u64 = 3_000;

pub struct Hub {
    state: Mutex<State>,
    /// The last sequence applied; a channel, because tasks wait for the tail to pass a sequence.
    passed: watch::Sender<Seq>,
    /// See [`Hub::expect`].
    expected: AtomicU64,
    phase: AtomicU8,
    /// See [`Hub::serves`].
    served_ms: AtomicU64,
    /// See [`Hub::prove`].
    proven_ms: AtomicU64,
    installed: Notify,
    pub clock: Clock,
    pub sealer: Sealer,
    pub metrics: Arc<Metrics>,
}

/// Everything that the hub's mutex guards.
struct State {
    epoch: u32,
    ring: Ring,
    /// When entries were last applied; ms of the gateway's clock.
    applied_ms: u64,
    chats: HashMap<ChatId, Chat, FixedState>,
    users: Slab<User>,
    slots: HashMap<UserId, UserSlot, FixedState>,
    /// The sessions that are to be attached again, since the hub has forgotten their users. A revocation finds them here.
    away: HashMap<Uuid, Arc<Session>, FixedState>,
    /// The entries in the ring that add or remove members of any chat, ascending.
    membership: VecDeque<Seq>,
    marks: Marks,
    /// Commands that the log has stored and that wait for their verdict, by sequence.
    waiters: BTreeMap<Seq, Vec<Waiting>>,
    /// See [`FollowUps::behind`].
    behind: Vec<Arc<Session>>,
    /// See [`FollowUps::wanted`].
    wanted: Vec<ChatId>,
}

/// Work that applying entries has found and that is done without the lock.
#[derive(Debug, Default)]
pub struct FollowUps {
    /// Sessions that left the live lane and need a catch-up.
    pub behind: Vec<Arc<Session>>,
    /// Chats that a local user may have joined and that must be loaded.
    pub wanted: Vec<ChatId>,
}

impl Hub {
    /// An empty hub. Call [`Hub::begin`] before the first entry.
    pub fn new(ring_bytes: usize, clock: Clock, sealer: Sealer, metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::new(State::new(ring_bytes)),
            passed: watch::Sender::new(Seq::ZERO),
            expected: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Starting as u8),
            served_ms: AtomicU64::new(0),
            proven_ms: AtomicU64::new(0),
            installed: Notify::new(),
            clock,
            sealer,
            metrics,
        }
    }

    /// Sets the position that the first entry follows, and the epoch. Only before the first session.
    pub fn begin(&self, floor: Position, epoch: u32) {
        let mut state = self.lock();
        state.epoch = epoch;
        state.ring.skip_to(floor);
        state.marks.begin_after(floor.seq);
        drop(state);
        self.announce(floor.seq);
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// Lets sessions and commands come, because the ring holds the recent past now.
    pub fn open(&self) {
        let [starting, serving] = [Phase::Starting, Phase::Serving].map(|phase| phase as u8);
        // A gateway that drains before it was open stays closed.
        let _opened =
            self.phase.compare_exchange(starting, serving, Ordering::AcqRel, Ordering::Acquire).is_ok();
    }

    /// Lets no new session begin. Commands of the present sessions still run.
    pub fn begin_drain(&self) {
        self.phase.store(Phase::Draining as u8, Ordering::Release);
    }

    /// Whether commands may come: the ring holds the recent past.
    pub fn is_open(&self) -> bool {
        self.phase() != Phase::Starting
    }

    /// Notes that a client sent something or is about to get something. Naps of the runtime are shorter then.
    pub fn serves(&self, now_ms: u64) {
        self.served_ms.store(now_ms, Ordering::Relaxed);
    }

    /// When a client was last served; ms of the gateway's clock.
    pub fn served_ms(&self) -> u64 {
        self.served_ms.load(Ordering::Relaxed)
    }

    /// The tail has just proven that the hub holds all that the log is known to hold, or has brought it forward.
    pub fn prove(&self) {
        self.proven_ms.store(self.clock.now_ms(), Ordering::Relaxed);
    }

    /// Whether the hub's position was proven lately: a gateway that can't tell where the log is must not take sessions.
    pub fn is_proven(&self) -> bool {
        self.clock.now_ms().saturating_sub(self.proven_ms.load(Ordering::Relaxed)) <= PROOF_MS
    }

    /// Sets the gauges.
    pub fn measure(&self) {
        let state = self.lock();
        self.metrics.ring_bytes.set(state.ring.bytes() as i64);
        self.metrics.chats_loaded.set(state.chats.len() as i64);
    }

    /// Notes that the log holds an entry at `seq`, although the tail may not have read it yet.
    pub fn expect(&self, seq: Seq) {
        self.expected.fetch_max(seq.get(), Ordering::AcqRel);
    }

    /// The highest sequence that the log is known to hold.
    pub fn expected(&self) -> Seq {
        Seq(self.expected.load(Ordering::Acquire))
    }

    /// Resolves when some chat's state is installed, at the latest after `INSTALL_POLL`.
    pub async fn installed(&self) {
        let waited = tokio::time::timeout(INSTALL_POLL, self.installed.notified()).await;
        // Timed out or notified: the caller checks again.
        drop(waited);
    }

    /// Only for short sections, and never across an await.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The epoch that the hub is in.
    pub fn epoch(&self) -> u32 {
        self.lock().epoch
    }

    /// The hub's epoch, and the ring's floor in it.
    pub fn begins(&self) -> (u32, Seq) {
        let state = self.lock();
        (state.epoch, state.ring.floor().seq)
    }

    /// The position of the newest entry, with its identity.
    pub fn tip(&self) -> Position {
        self.lock().ring.position()
    }

    /// The position before the ring's oldest entry. Entries at or below it must be read from elsewhere.
    #[cfg(test)]
    pub fn floor(&self) -> Position {
        self.lock().ring.floor()
    }

    /// The verdict on the entry at `seq`, if the ring has it, and the chat's valid event before a valid one.
    #[cfg(test)]
    pub fn judged(&self, seq: Seq) -> Option<(ring::Verdict, Seq)> {
        self.lock().ring.get(seq).map(|entry| (entry.verdict, entry.prev))
    }

    /// The identity of the entry at `seq`, if the ring has it.
    pub fn id_at(&self, seq: Seq) -> Option<EventId> {
        self.lock().ring.id_at(seq)
    }

    /// The newest position at or below `seq`, if the ring has it.
    pub fn known_at_or_below(&self, seq: Seq) -> Option<Position> {
        let state = self.lock();
        let at = seq.min(state.ring.position().seq);
        state.ring.id_at(at).map(|id| Position { seq: at, id })
    }

    /// Takes the work that applying entries has found since the last call.
    pub fn take_follow_ups(&self) -> FollowUps {
        let mut state = self.lock();
        FollowUps { behind: std::mem::take(&mut state.behind), wanted: std::mem::take(&mut state.wanted) }
    }

    /// Wakes the tasks that wait for the tail to come to `seq`.
    fn announce(&self, seq: Seq) {
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

    /// Makes the cursor that a user's device is sent for a position of the current epoch.
    fn seal(&self, state: &State, user: UserId, position: Position) -> String {
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
            away: HashMap::default(),
            membership: VecDeque::new(),
            marks: Marks::default(),
            waiters: BTreeMap::new(),
            behind: Vec::new(),
            wanted: Vec::new(),
        }
    }

    fn user(&self, user: UserId) -> Option<&User> {
        self.users.get(*self.slots.get(&user)? as usize)
    }

    fn user_mut(&mut self, user: UserId) -> Option<&mut User> {
        self.users.get_mut(*self.slots.get(&user)? as usize)
    }

    /// A chat whose state is loaded.
    fn loaded(&self, chat: ChatId) -> Option<&Chat> {
        self.chats.get(&chat).filter(|chat| chat.loaded)
    }

    /// All local sessions.
    fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.users.iter().flat_map(|(_, user)| &user.sessions)
    }
}
