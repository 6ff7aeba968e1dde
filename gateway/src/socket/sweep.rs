//! The one timer of all sessions.
//!
//! Each tick does for every session what has become due (`session/due.rs`: pings, the ends of tokens, closes), queues
//! the cursors that are owed, answers commands that waited too long, and from time to time forgets users without
//! sessions. Never holds the hub's lock for longer than a batch of cursors takes.

use std::sync::Arc;

use crate::{
    hub::Hub,
    infra::{clock::unix_ms, pages::Pages},
    session::{
        Session,
        due::{Now, Pings},
        settings::Intervals,
    },
};

/// How many times per memory interval users and chats are looked through for those to forget: each time goes through
/// all of them.
const FORGETS_PER_MEMORY: u64 = 4;
/// How many sessions get their cursors in one hold of the hub's lock, which takes about 50 µs.
const CURSOR_BATCH: usize = 32;

/// The timer's state between two ticks.
pub struct Sweep {
    hub: Arc<Hub>,
    pages: Arc<Pages>,
    intervals: Intervals,
    forgot_ms: u64,
}

impl Sweep {
    pub const fn new(hub: Arc<Hub>, pages: Arc<Pages>, intervals: Intervals) -> Self {
        Self { hub, pages, intervals, forgot_ms: 0 }
    }

    /// Does what has become due since the last tick.
    pub fn tick(&mut self) {
        let now_ms = self.hub.clock.now_ms();
        let pings = Pings::new(now_ms);
        let pages_short = self.pages.are_short();
        let now = Now { mono_ms: now_ms, unix_ms: unix_ms(), pages_short };
        let mut queued_bytes = 0;
        let mut dirty: Vec<Arc<Session>> = Vec::new();
        let sessions = self.hub.sessions();
        self.hub.metrics.sessions_attached.set(sessions.len() as i64);
        for session in sessions {
            session.sweep(&self.intervals, now, &pings);
            queued_bytes += session.queued_bytes();
            if session.is_dirty() {
                dirty.push(session);
            }
        }
        for batch in dirty.chunks(CURSOR_BATCH) {
            self.hub.send_cursors(batch, now_ms);
        }
        self.hub.expire_waiters(now_ms);
        self.hub.metrics.queued_bytes.set(i64::try_from(queued_bytes).unwrap_or(i64::MAX));
        self.hub.measure();
        if now_ms.saturating_sub(self.forgot_ms) > self.intervals.memory_ms / FORGETS_PER_MEMORY {
            self.hub.forget_idle(now_ms.saturating_sub(self.intervals.memory_ms));
            self.forgot_ms = now_ms;
        }
    }
}

#[cfg(test)]
mod tests;
