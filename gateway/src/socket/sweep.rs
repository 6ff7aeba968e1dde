//! What one timer does for all sessions: heartbeats, token expiry, slow readers, cursors, and closes that linger.

use std::sync::Arc;

use crate::{
    hub::Hub,
    infra::clock::unix_ms,
    session::{
        Session,
        due::{Now, Pings},
        settings::Intervals,
    },
};

/// Looking for what to forget goes through all users and chats, so it is done a few times per such span.
const FORGETS_PER_MEMORY: u64 = 4;
/// Sessions that get their cursors in one hold of the hub's lock: about 50 µs.
const CURSOR_BATCH: usize = 32;

/// Looks after all sessions of a hub, a tick at a time.
pub struct Sweep {
    hub: Arc<Hub>,
    intervals: Intervals,
    forgot_ms: u64,
}

impl Sweep {
    pub const fn new(hub: Arc<Hub>, intervals: Intervals) -> Self {
        Self { hub, intervals, forgot_ms: 0 }
    }

    /// Does what has become due since the last tick.
    pub fn tick(&mut self) {
        let now_ms = self.hub.clock.now_ms();
        let pings = Pings::new(now_ms);
        let now = Now { mono_ms: now_ms, unix_ms: unix_ms() };
        let mut dirty: Vec<Arc<Session>> = Vec::new();
        for session in self.hub.sessions() {
            session.sweep(&self.intervals, now, &pings);
            if session.is_dirty() {
                dirty.push(session);
            }
        }
        for batch in dirty.chunks(CURSOR_BATCH) {
            self.hub.send_cursors(batch, now_ms);
        }
        self.hub.expire_waiters(now_ms);
        self.hub.measure();
        if now_ms.saturating_sub(self.forgot_ms) > self.intervals.memory_ms / FORGETS_PER_MEMORY {
            self.hub.forget_idle(now_ms.saturating_sub(self.intervals.memory_ms));
            self.forgot_ms = now_ms;
        }
    }
}
