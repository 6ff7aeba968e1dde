//! What time makes due for a session: a ping, a notice that its token ends, a close, the end of one that lingers.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use shared::frame;

use super::{
    Session,
    close::Close,
    settings::Intervals,
    wire::{self, Encoding},
};

#[derive(Clone, Copy)]
pub struct Now {
    pub mono_ms: u64,
    pub unix_ms: u64,
}

/// The `Ping` frame of this tick, encoded once for everyone.
pub struct Pings {
    json: Bytes,
    msgpack: Bytes,
}

impl Pings {
    pub fn new(t: u64) -> Self {
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
    pub fn sweep(&self, intervals: &Intervals, now: Now, pings: &Pings) {
        if self.closing().is_some() {
            let since = self.outlet.closing_since_ms();
            if now.mono_ms.saturating_sub(since) > intervals.linger_ms {
                self.end();
            }
            return;
        }
        let stalled = self.outbox().stalled_since_ms();
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
