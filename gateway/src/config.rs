//! Settings: parsed and checked once in `main`, handed down. `--help` is the reference.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, Parser, Subcommand};
use governor::Quota;
use shared::fold::MAX_MEMBERS;

use crate::session::{outbox::Bounds, sweep::Intervals};

/// The gateway of Mini-Telegram.
#[derive(Debug, Clone, Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub task: Option<Task>,
    #[command(flatten)]
    pub settings: Settings,
}

/// What else the binary does.
#[derive(Debug, Clone, Subcommand)]
pub enum Task {
    /// Create the signing key and the cursor key if they are missing.
    Keys,
    /// Create accounts and print a token for each: for load tests and operators.
    Provision(crate::provision::ProvisionArgs),
}

/// Everything that can be set.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Where clients connect.
    #[arg(long, env = "MT_HTTP_ADDR", default_value = "0.0.0.0:8080")]
    pub http_addr: SocketAddr,
    /// Serve /metrics here instead of at the clients' address.
    #[arg(long, env = "MT_METRICS_ADDR")]
    pub metrics_addr: Option<SocketAddr>,
    #[command(flatten)]
    pub nats: streams::connect::NatsSettings,
    #[command(flatten)]
    pub sql: sql::SqlSettings,
    #[command(flatten)]
    pub redis: crate::redis::RedisSettings,
    #[command(flatten)]
    pub otel: otel::OtelSettings,
    #[command(flatten)]
    pub auth: crate::auth::AuthSettings,
    #[command(flatten)]
    pub limits: crate::limits::LimitSettings,
    #[command(flatten)]
    pub http: crate::http::HttpSettings,
    #[command(flatten)]
    pub origin: crate::origin::OriginSettings,
    #[command(flatten)]
    pub presence: crate::presence::PresenceSettings,
    #[command(flatten)]
    pub chat: ChatSettings,
    #[command(flatten)]
    pub session: SessionSettings,
    /// Memory for the recent past of the log: what reconnecting devices are served from.
    #[arg(long, env = "MT_RING_BYTES", default_value_t = 8 << 20)]
    pub ring_bytes: usize,
    /// How long a busy worker naps before it waits for events, in microseconds: what comes meanwhile is handled
    /// together, for less CPU and some latency; four times as long while no client is served; 0: never
    #[arg(long, env = "MT_NAP_US", default_value_t = 1_200, value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub nap_us: u64,
}

impl Settings {
    pub fn nap(&self) -> Duration {
        Duration::from_micros(self.nap_us)
    }
}

/// How large groups grow.
#[derive(Debug, Clone, Copy, Args)]
pub struct ChatSettings {
    /// Members of a group; more than 10,000 are never possible.
    #[arg(long, env = "MT_GROUP_MEMBERS", default_value_t = MAX_MEMBERS as u32,
        value_parser = clap::value_parser!(u32).range(1..=MAX_MEMBERS as i64))]
    pub group_members: u32,
    /// Groups that a user can be in.
    #[arg(long, env = "MT_GROUPS_PER_USER", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub groups_per_user: u32,
}

impl ChatSettings {
    pub const fn group_members(self) -> usize {
        self.group_members as usize
    }
}

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
    /// Sessions of one user on this gateway.
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
    /// A reader without progress for this long is closed.
    #[arg(long, env = "MT_STALL_MS", default_value_t = 30_000)]
    pub stall_ms: u64,
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

/// The timer of all sessions: `Cursor` follows within twice this.
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
            linger_ms: self.linger_ms,
            expiry_notice_ms: self.expiry_notice_ms,
            memory_ms: self.memory_ms,
        }
    }

    /// How long a closed session may take to read the close.
    pub const fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }

    pub fn durable_quota(&self) -> Quota {
        quota(self.commands_per_s, self.commands_burst)
    }

    pub fn ephemeral_quota(&self) -> Quota {
        quota(self.signals_per_s, self.signals_per_s.saturating_mul(3))
    }
}

fn quota(per_second: u32, burst: u32) -> Quota {
    use std::num::NonZeroU32;
    let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(at_least_one(per_second)).allow_burst(at_least_one(burst))
}
