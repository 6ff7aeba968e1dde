//! The one timer of all sessions: heartbeats, token expiry, slow readers, cursors, and closes that linger.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use shared::frame;

use super::{Session, close::Close};
use crate::{
    app::App,
    clock::unix_ms,
    hub::{Encoding, wire},
};

/// The intervals; all are settings.
#[derive(Debug, Clone, Copy)]
pub struct Intervals {
    pub tick: Duration,
    /// Between two pings; twice this in silence closes the session.
    pub heartbeat_ms: u64,
    /// A reader that takes nothing for this long is closed.
    pub stall_ms: u64,
    /// How long a closed session may take to read the close.
    pub linger_ms: u64,
    /// How long before the token's end the session is told.
    pub expiry_notice_ms: u64,
    /// How long a user without sessions is remembered.
    pub memory_ms: u64,
}

/// Looking for what to forget goes through all users and chats, so it is done a few times per such span.
const FORGETS_PER_MEMORY: u64 = 4;
/// Sessions that get their cursors in one hold of the hub's lock: about 50 µs.
const CURSOR_BATCH: usize = 32;

/// Runs until cancelled.
pub async fn run(app: Arc<App>) {
    let intervals = app.settings.session.intervals();
    let mut ticks = tokio::time::interval(intervals.tick);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut forgot_ms = 0;
    loop {
        tokio::select! {
            () = app.cancel.cancelled() => return,
            _ = ticks.tick() => tick(&app, &intervals),
        }
        let now_ms = app.clock.now_ms();
        if now_ms.saturating_sub(forgot_ms) > intervals.memory_ms / FORGETS_PER_MEMORY {
            app.hub.forget_idle(now_ms.saturating_sub(intervals.memory_ms));
            forgot_ms = now_ms;
        }
    }
}

fn tick(app: &Arc<App>, intervals: &Intervals) {
    let now_ms = app.clock.now_ms();
    let sessions: Vec<Arc<Session>> = app.hub.lock().sessions().cloned().collect();
    let pings = Pings::new(now_ms);
    let now = Now { mono_ms: now_ms, unix_ms: unix_ms() };
    let mut dirty = Vec::new();
    for session in &sessions {
        session.sweep(intervals, now, &pings);
        if session.is_dirty() {
            dirty.push(session.clone());
        }
    }
    for batch in dirty.chunks(CURSOR_BATCH) {
        app.hub.send_cursors(batch, now_ms);
    }
    app.hub.expire_waiters(now_ms);
    app.hub.measure();
    app.metrics.append_retries.set(app.commands.append_retries());
}

#[derive(Clone, Copy)]
struct Now {
    mono_ms: u64,
    unix_ms: u64,
}

/// The `Ping` frame of this tick, encoded once for everyone.
struct Pings {
    json: Bytes,
    msgpack: Bytes,
}

impl Pings {
    fn new(t: u64) -> Self {
        let ping = frame::Ping { t }.into();
        Self {
            json: wire::encode(&ping, Encoding::Json),
            msgpack: wire::encode(&ping, Encoding::MessagePack),
        }
    }

    fn of(&self, encoding: Encoding) -> Bytes {
        match encoding {
            Encoding::Json => self.json.clone(),
            Encoding::MessagePack => self.msgpack.clone(),
        }
    }
}

impl Session {
    fn sweep(&self, intervals: &Intervals, now: Now, pings: &Pings) {
        if self.closing().is_some() {
            let since = self.closing_since_ms.load(Ordering::Acquire);
            if now.mono_ms.saturating_sub(since) > intervals.linger_ms {
                self.end();
            }
            return;
        }
        let stalled = self.outbox.lock().stalled_since_ms();
        if stalled.is_some_and(|since| now.mono_ms.saturating_sub(since) > intervals.stall_ms) {
            return self.close(Close::TooSlow, now.mono_ms);
        }
        self.sweep_token(intervals, now);
        let silent_ms = now.mono_ms.saturating_sub(self.heard_ms.load(Ordering::Acquire));
        if silent_ms > 2 * intervals.heartbeat_ms {
            return self.close(Close::NoHeartbeat, now.mono_ms);
        }
        let pinged = self.pinged_ms.load(Ordering::Acquire);
        if now.mono_ms.saturating_sub(pinged) >= intervals.heartbeat_ms {
            self.pinged_ms.store(now.mono_ms, Ordering::Release);
            self.push_control(wire::CONTROL_PING, now.mono_ms);
            self.push_control(pings.of(self.identity.encoding), now.mono_ms);
        }
    }

    fn sweep_token(&self, intervals: &Intervals, now: Now) {
        let left_ms = self.token_expires_ms().saturating_sub(now.unix_ms);
        if left_ms == 0 {
            self.close(Close::TokenExpired, now.mono_ms);
        } else if left_ms <= intervals.expiry_notice_ms && !self.expiry_announced.swap(true, Ordering::AcqRel)
        {
            let expiring = frame::AuthExpiring { in_ms: left_ms };
            self.push_control(wire::encode(&expiring.into(), self.identity.encoding), now.mono_ms);
        }
    }
}
