//! One session as data: its identity, its outbox, its lane, its commands. It has no socket.
//!
//! The hub queues events into the outbox. The connection's task (room `socket`) writes them, and is woken when there
//! are more. This room never reads or writes a connection, so a hub full of sessions is tested without TCP.
//! Invariants:
//! - the lane changes only under the hub's lock;
//! - live events and best-effort frames stay within the outbox's bounds;
//! - once a close was asked for nothing more is queued, so the close frame is the last one;
//! - an idle session keeps no timer and no queue: one sweep serves all sessions ([`due`]).

pub mod close;
pub mod due;
pub mod flood;
pub mod outbox;
mod outlet;
pub mod queue;
pub mod reply;
pub mod settings;
#[cfg(test)]
pub(crate) mod stage;
mod sync;
#[cfg(test)]
mod wakeups;
pub mod wire;

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    task::Waker,
    time::Instant,
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use shared::id::{Seq, UserId};
use uuid::Uuid;

use self::{
    close::Close,
    flood::{Idle, Refusals},
    outbox::{Outbox, Queued},
    outlet::Outlet,
    queue::CommandQueues,
    settings::{Bucket, SessionSettings},
    wire::Encoding,
};
use crate::command::Actor;

/// Where the session's events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Lane {
    /// It is not attached to the hub yet, and gets no events.
    Starting = 0,
    /// The hub queues each new event as it applies it.
    Live = 1,
    /// It is behind: a catch-up queues older events until it has reached the hub's position.
    CatchUp = 2,
}

/// Who the session is; fixed for its life.
#[derive(Debug, Clone)]
pub struct Identity {
    pub user: UserId,
    /// The token family, which revocation concerns.
    pub family: Uuid,
    pub device: Box<str>,
    pub encoding: Encoding,
}

#[derive(Debug)]
pub struct Session {
    pub id: Uuid,
    pub identity: Identity,
    outlet: Outlet,
    lane: AtomicU8,
    /// When the last `Cursor` or `Live` was queued.
    cursor_ms: AtomicU64,
    /// Whether the token's end has been announced.
    expiry_announced: AtomicBool,
    /// When the client was last heard, and last pinged; ms of the gateway's clock.
    heard_ms: AtomicU64,
    pinged_ms: AtomicU64,
    /// When the client had last been heard as the session's place was renewed; zero: it has none yet.
    seat_ms: AtomicU64,
    /// Unix ms.
    token_expires_ms: AtomicU64,
    /// Commands that have yet to be answered.
    inflight: AtomicU32,
    /// When the session resumed from a cursor; ms of the gateway's clock, zero: it did not.
    resumed_ms: AtomicU64,
    /// How many catch-ups have begun. Only the last one may feed the session.
    catch_ups: AtomicU32,
    /// In catch-up: every event up to this sequence has been queued.
    fed: AtomicU64,
    /// How many events catch-ups have queued since the last `Live`.
    replayed: AtomicU32,
    /// Refused frames in the current window, for the two flooding rules.
    refusals: Mutex<Refusals>,
    durable_bucket: Bucket,
    ephemeral_bucket: Bucket,
    /// `None` while no command is under way.
    queues: Mutex<Option<Box<CommandQueues>>>,
}

/// A step that would leave events out: it begins where the session does not stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a step from {from} was offered to a session at {at}")]
pub struct NotAdjacent {
    pub at: Seq,
    pub from: Seq,
}

impl Session {
    /// A session that has yet to be attached. `token_expires_ms` is Unix time, `now_ms` the gateway's clock.
    pub fn new(identity: Identity, token_expires_ms: u64, settings: &SessionSettings, now_ms: u64) -> Self {
        Self {
            id: Uuid::now_v7(),
            identity,
            outlet: Outlet::new(settings.bounds()),
            lane: AtomicU8::new(Lane::Starting as u8),
            cursor_ms: AtomicU64::new(0),
            expiry_announced: AtomicBool::new(false),
            heard_ms: AtomicU64::new(now_ms),
            pinged_ms: AtomicU64::new(now_ms),
            seat_ms: AtomicU64::new(0),
            token_expires_ms: AtomicU64::new(token_expires_ms),
            inflight: AtomicU32::new(0),
            resumed_ms: AtomicU64::new(0),
            catch_ups: AtomicU32::new(0),
            fed: AtomicU64::new(0),
            replayed: AtomicU32::new(0),
            refusals: Mutex::new(Refusals::default()),
            durable_bucket: settings.durable_bucket(),
            ephemeral_bucket: settings.ephemeral_bucket(),
            queues: Mutex::new(None),
        }
    }

    pub fn user(&self) -> UserId {
        self.identity.user
    }

    /// The session as the author of commands.
    pub fn actor(&self) -> Actor {
        Actor { user: self.identity.user, device: self.identity.device.to_string() }
    }

    /// Sets the waker of the connection's task: it is woken when there is something to write or the session is to
    /// end.
    pub fn wake(&self, waker: &Waker) {
        self.outlet.wake(waker);
    }

    /// The queue of frames to write. Only the connection's task takes frames out.
    pub fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outlet.outbox()
    }

    /// The client has sent something, whatever it was.
    pub fn heard(&self, now_ms: u64) {
        self.heard_ms.store(now_ms, Ordering::Release);
    }

    /// When the client was last heard; ms of the gateway's clock.
    pub fn heard_ms(&self) -> u64 {
        self.heard_ms.load(Ordering::Acquire)
    }

    /// When the client had last been heard as the session's place among those of its user was renewed; zero: it has none.
    pub fn seat_ms(&self) -> u64 {
        self.seat_ms.load(Ordering::Relaxed)
    }

    pub fn set_seat(&self, heard_ms: u64) {
        self.seat_ms.store(heard_ms, Ordering::Relaxed);
    }

    /// Uses up one durable command of the session's allowance.
    ///
    /// # Errors
    /// How many milliseconds to wait if there is none left.
    pub fn spend_durable(&self) -> Result<(), u64> {
        self.durable_bucket
            .check()
            .map_err(|early| early.wait_time_from(Instant::now()).as_millis() as u64 + 1)
    }

    /// Uses up one best-effort frame of the session's allowance. `false`: there is none left, and it is dropped. Many of
    /// those close the session.
    #[must_use]
    pub fn spend_ephemeral(&self, now_ms: u64) -> bool {
        self.spend_or_count(Idle::Dropped, now_ms)
    }

    /// Takes a frame that asks for nothing, or only for a word back, from the same allowance. `false`: there is none left,
    /// and it gets no word. Many of those close the session.
    pub fn spend_idle(&self, now_ms: u64) -> bool {
        self.spend_or_count(Idle::Ignored, now_ms)
    }

    /// Takes a frame from the same allowance that is refused if there is none left. The refusal counts it.
    #[must_use]
    pub fn spend_answered(&self) -> bool {
        self.ephemeral_bucket.check().is_ok()
    }

    fn spend_or_count(&self, frame: Idle, now_ms: u64) -> bool {
        let spent = self.spend_answered();
        if !spent {
            self.count_idle(frame, now_ms);
        }
        spent
    }

    pub fn lane(&self) -> Lane {
        match self.lane.load(Ordering::Acquire) {
            1 => Lane::Live,
            2 => Lane::CatchUp,
            _ => Lane::Starting,
        }
    }

    /// Only under the hub's lock.
    pub fn set_lane(&self, lane: Lane) {
        self.lane.store(lane as u8, Ordering::Release);
    }

    /// When the session resumed from a cursor, if it did; ms of the gateway's clock.
    pub fn resumed_ms(&self) -> Option<u64> {
        Some(self.resumed_ms.load(Ordering::Relaxed)).filter(|ms| *ms != 0)
    }

    pub fn set_resumed(&self, now_ms: u64) {
        self.resumed_ms.store(now_ms.max(1), Ordering::Relaxed);
    }

    /// Begins a catch-up and returns its number. Earlier ones end, as [`Session::is_catch_up`] tells them.
    pub fn next_catch_up(&self) -> u32 {
        let turn = self.catch_ups.fetch_add(1, Ordering::AcqRel) + 1;
        self.outlet.recheck();
        turn
    }

    /// Whether the catch-up with this number is still the last one, which feeds the session.
    pub fn is_catch_up(&self, turn: u32) -> bool {
        self.catch_ups.load(Ordering::Acquire) == turn
    }

    /// The session's position while it is not live: every event of its user up to here has been queued. In the live lane
    /// the hub's own position is that of all sessions.
    pub fn fed(&self) -> Seq {
        Seq(self.fed.load(Ordering::Acquire))
    }

    /// Moves the position from `from` to `to`, since every event of the user in between has been queued. Only under the
    /// hub's lock.
    ///
    /// # Errors
    /// [`NotAdjacent`]: the session does not stand at `from`. Nothing has moved; it must be read to again from where it
    /// stands, or events would be missing.
    pub fn advance(&self, from: Seq, to: Seq) -> Result<(), NotAdjacent> {
        let step = self.fed.compare_exchange(from.get(), to.get(), Ordering::AcqRel, Ordering::Acquire);
        step.map(drop).map_err(|at| NotAdjacent { at: Seq(at), from })
    }

    /// Sets the position of a session that leaves the live lane: it has everything up to `at` and reads the log from
    /// there. Only under the hub's lock.
    pub fn leave_live(&self, at: Seq) {
        self.set_lane(Lane::CatchUp);
        self.fed.store(at.get(), Ordering::Release);
    }

    /// Counts events that a catch-up queued, until [`Session::take_replayed`].
    pub fn count_replayed(&self, events: usize) {
        self.replayed.fetch_add(u32::try_from(events).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// How many events catch-ups have queued since this was last asked.
    pub fn take_replayed(&self) -> u32 {
        self.replayed.swap(0, Ordering::Relaxed)
    }

    /// Sets the position up to which the client has everything.
    pub fn start_at(&self, position: Seq) {
        self.outbox().start_at(position);
        self.fed.store(position.get(), Ordering::Release);
    }

    /// Queues a live durable event. `false`: there is no room, and the session must leave the live lane.
    #[must_use]
    pub fn push_durable(&self, bytes: &Bytes, seq: Seq, stored_us: u64, now_ms: u64) -> bool {
        self.outlet.push_durable(Queued { bytes: bytes.clone(), covers: seq, stored_us }, now_ms)
    }

    /// Queues a `Cursor` or `Live` that covers `seq`, or an event of a catch-up. There is no check for room: a
    /// catch-up waits for the outbox to drain before it queues more.
    pub fn push_covering(&self, bytes: Bytes, seq: Seq, now_ms: u64) {
        self.outlet.push(Queued { bytes, covers: seq, stored_us: 0 }, now_ms);
    }

    /// Queues an answer or a notice. They are bounded in three ways: by the commands in flight, because nothing is read
    /// from a client whose outbox is full ([`Session::is_choked`]), and because fetches wait for it to drain.
    pub fn push_control(&self, bytes: Bytes, now_ms: u64) {
        self.push_covering(bytes, Seq::ZERO, now_ms);
    }

    /// Queues a best-effort frame. `false`: it was dropped, since the outbox is filling up.
    pub fn push_ephemeral(&self, bytes: &Bytes, now_ms: u64) -> bool {
        self.outlet.push_if_calm(Queued { bytes: bytes.clone(), covers: Seq::ZERO, stored_us: 0 }, now_ms)
    }

    /// Whether so much waits to be written that nothing more is to be read from the client.
    pub fn is_choked(&self) -> bool {
        self.outlet.is_choked()
    }

    /// Whether events were queued that no `Cursor` covers yet. The sweep queues one at the latest.
    pub fn is_dirty(&self) -> bool {
        self.outlet.is_dirty()
    }

    /// Whether a `Cursor` is to be written together with the events that are queued. Written later by itself it would
    /// cost a system call. During a catch-up only the sweep sends cursors.
    pub fn cursor_is_due(&self, now_ms: u64) -> bool {
        self.is_dirty()
            && self.lane() == Lane::Live
            && now_ms.saturating_sub(self.cursor_ms.load(Ordering::Relaxed)) >= CURSOR_SPACING_MS
    }

    /// Notes that a `Cursor` or `Live` that covers all queued events is about to be queued. Returns whether there are
    /// events that the last one did not cover.
    pub fn cover(&self, now_ms: u64) -> bool {
        self.cursor_ms.store(now_ms, Ordering::Relaxed);
        self.outlet.cover()
    }

    /// Notes that an event was queued.
    pub fn mark_dirty(&self) {
        self.outlet.mark_dirty();
    }

    /// Drops the queued durable frames. Returns the position from which the log must be read again, and how many
    /// frames were dropped.
    pub fn fall_behind(&self) -> (Seq, usize) {
        self.outbox().drop_durable()
    }

    /// How many bytes wait to be written.
    pub fn queued_bytes(&self) -> usize {
        self.outbox().bytes()
    }

    /// Resolves once at most `low` bytes wait, or the session closes or ends.
    pub async fn drained(&self, low: usize) {
        self.outlet.drained(low, || false).await;
    }

    /// The same for the catch-up with this number. A later one ends the wait.
    pub async fn drained_in(&self, turn: u32, low: usize) {
        self.outlet.drained(low, || !self.is_catch_up(turn)).await;
    }

    /// Asks the connection's task to close with this code. If it was asked before, the first code stays.
    pub fn close(&self, close: Close, now_ms: u64) {
        self.outlet.close(close.code(), now_ms);
    }

    /// The close code that was asked for.
    pub fn closing(&self) -> Option<u16> {
        self.outlet.closing()
    }

    /// Ends the connection's task without waiting for the peer any longer.
    pub fn end(&self) {
        self.outlet.end();
    }

    pub fn is_ended(&self) -> bool {
        self.outlet.is_ended()
    }

    /// Counts a command as in flight. `false`: there are `most` already, and it must be refused.
    #[must_use]
    pub fn begin_command(&self, most: u32) -> bool {
        self.inflight
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < most).then_some(n + 1))
            .is_ok()
    }

    /// A command was answered.
    pub fn end_command(&self) {
        self.inflight.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn inflight(&self) -> u32 {
        self.inflight.load(Ordering::Acquire)
    }

    /// When the access token ends, Unix ms.
    pub fn token_expires_ms(&self) -> u64 {
        self.token_expires_ms.load(Ordering::Acquire)
    }

    /// Sets the end of a fresh token of the same user and device.
    pub fn renew(&self, expires_ms: u64) {
        self.token_expires_ms.store(expires_ms, Ordering::Release);
        self.expiry_announced.store(false, Ordering::Release);
    }

    /// Counts a frame that had no effect, and closes the session if there were too many.
    pub fn count_idle(&self, frame: Idle, now_ms: u64) {
        let close = self.refusals.lock().count(frame, now_ms);
        if let Some(close) = close {
            self.close(close, now_ms);
        }
    }
}

/// The least time between two cursors that are written together with events. A session with many events is not sent a
/// cursor with each, and one that gets an event now and then gets its cursor with the event.
const CURSOR_SPACING_MS: u64 = 100;
