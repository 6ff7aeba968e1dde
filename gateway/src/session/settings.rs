//! Bounds and intervals of sessions, and the buckets that limit what a client may send.

use std::{num::NonZeroU32, time::Duration};

use clap::Args;
use governor::{
    Quota, RateLimiter,
    clock::MonotonicClock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

use super::outbox::Bounds;

/// A session's own rate limiter.
pub(super) type Bucket =
    RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<std::time::Instant>>;

/// Bounds and intervals of WebSocket sessions.
#[derive(Debug, Clone, Args)]
pub struct SessionSettings {
    /// The largest frame that a client may send.
    #[arg(long, env = "MT_FRAME_BYTES", default_value_t = 65_536)]
    pub frame_bytes: usize,
    /// Commands of a session that may wait for their answer.
    #[arg(long, env = "MT_INFLIGHT", default_value_t = 64)]
    pub inflight: u32,
    /// Durable commands per second and session.
    #[arg(long, env = "MT_COMMANDS_PER_S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub commands_per_s: u32,
    /// Durable commands in a burst.
    #[arg(long, env = "MT_COMMANDS_BURST", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub commands_burst: u32,
    /// Reads, typing and presence per second and session; the excess is dropped.
    #[arg(long, env = "MT_SIGNALS_PER_S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub signals_per_s: u32,
    /// Sessions of one user, on all gateways together.
    #[arg(long, env = "MT_SESSIONS_PER_USER", default_value_t = 20)]
    pub per_user: usize,
    /// What may wait for a slow reader before it must read the log instead.
    #[arg(long, env = "MT_OUTBOX_BYTES", default_value_t = 262_144)]
    pub outbox_bytes: usize,
    /// The same in frames.
    #[arg(long, env = "MT_OUTBOX_FRAMES", default_value_t = 1_024)]
    pub outbox_frames: usize,
    /// Between two heartbeats; twice this in silence closes.
    #[arg(long, env = "MT_HEARTBEAT_MS", default_value_t = 25_000)]
    pub heartbeat_ms: u64,
    /// A reader without progress for this long is closed; over HTTP as well.
    #[arg(long, env = "MT_STALL_MS", default_value_t = 30_000)]
    pub stall_ms: u64,
    /// A reader that has not taken the whole of a frame for this long is closed, whatever progress it makes; over HTTP
    /// one that has not taken all that waits.
    #[arg(long, env = "MT_WRITE_MS", default_value_t = 60_000)]
    pub write_ms: u64,
    /// How long a closed session may take to read the close.
    #[arg(long, env = "MT_LINGER_MS", default_value_t = 10_000)]
    pub linger_ms: u64,
    /// How long before its token ends a session is told.
    #[arg(long, env = "MT_EXPIRY_NOTICE_MS", default_value_t = 60_000)]
    pub expiry_notice_ms: u64,
    /// How long the memberships of a user without sessions are remembered.
    #[arg(long, env = "MT_MEMORY_MS", default_value_t = 60_000)]
    pub memory_ms: u64,
    /// The grace period of a shutdown: the closes are spread over it.
    #[arg(long, env = "MT_DRAIN_MS", default_value_t = 20_000)]
    pub drain_ms: u64,
}

/// The intervals of the sweep; all are settings.
#[derive(Debug, Clone, Copy)]
pub struct Intervals {
    pub tick: Duration,
    /// Between two pings; twice this in silence closes the session.
    pub heartbeat_ms: u64,
    /// A reader that takes nothing for this long is closed.
    pub stall_ms: u64,
    /// A reader that takes longer than this for one frame is closed.
    pub write_ms: u64,
    /// How long a closed session may take to read the close.
    pub linger_ms: u64,
    /// How long before the token's end the session is told.
    pub expiry_notice_ms: u64,
    /// How long a user without sessions is remembered.
    pub memory_ms: u64,
}

/// How often the sweep goes through all sessions. A `Cursor` follows its event within twice this.
const TICK: Duration = Duration::from_millis(400);
const SHORTEST_TICK: Duration = Duration::from_millis(20);

impl SessionSettings {
    pub fn bounds(&self) -> Bounds {
        Bounds { bytes: self.outbox_bytes, frames: self.outbox_frames }
    }

    pub fn intervals(&self) -> Intervals {
        // Short intervals, as tests set them, need a finer timer.
        let shortest = self.heartbeat_ms.min(self.stall_ms).min(self.linger_ms);
        Intervals {
            tick: Duration::from_millis(shortest / 4).clamp(SHORTEST_TICK, TICK),
            heartbeat_ms: self.heartbeat_ms,
            stall_ms: self.stall_ms,
            write_ms: self.write_ms,
            linger_ms: self.linger_ms,
            expiry_notice_ms: self.expiry_notice_ms,
            memory_ms: self.memory_ms,
        }
    }

    /// How long a closed session may take to read the close.
    pub const fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }

    /// A full bucket for the durable commands of one session.
    pub(super) fn durable_bucket(&self) -> Bucket {
        bucket(self.commands_per_s, self.commands_burst)
    }

    /// A full bucket for the reads, typing and presence of one session.
    pub(super) fn ephemeral_bucket(&self) -> Bucket {
        bucket(self.signals_per_s, self.signals_per_s.saturating_mul(3))
    }
}

fn bucket(per_second: u32, burst: u32) -> Bucket {
    let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst));
    Bucket::direct_with_clock(quota, MonotonicClock)
}
