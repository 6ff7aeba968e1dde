//! Settings; `projector --help` is their reference.

use std::{net::SocketAddr, time::Duration};

use clap::Args;

/// Everything the projector can be told.
#[derive(Debug, Clone, clap::Parser)]
#[command(about = "Folds the log into Postgres", version)]
pub struct Config {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Where /healthz, /readyz and /metrics are served; port 0 takes any
    #[arg(long, env = "MT_PROJECTOR_ADDR", default_value = "127.0.0.1:8081")]
    pub addr: SocketAddr,

    #[command(flatten)]
    pub projector: ProjectorSettings,

    #[command(flatten)]
    pub nats: streams::NatsSettings,

    #[command(flatten)]
    pub sql: sql::SqlSettings,

    #[command(flatten)]
    pub otel: otel::OtelSettings,
}

/// What to do; without one, project until stopped.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Fold the log once more beside the live projection, and compare; fails if they differ
    Verify,
    /// Fold the log once more beside the live projection, and put the result in its place, without downtime
    Rebuild,
}

/// The lock's session in Postgres ends after five seconds without a statement.
const MOST_INTERVAL_MS: u64 = 4_000;

/// How events are folded.
#[derive(Debug, Clone, Args)]
pub struct ProjectorSettings {
    /// The most events of one transaction
    #[arg(long, env = "MT_PROJECTOR_BATCH", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch: u32,

    /// The least time between two transactions while no read waits for one: a quiet projector writes at once, a busy one
    /// gathers
    #[arg(long, env = "MT_PROJECTOR_INTERVAL_MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(..=MOST_INTERVAL_MS))]
    pub interval_ms: u64,

    /// The most members, over all chats, that are kept in memory between batches (eight bytes each)
    #[arg(long, env = "MT_PROJECTOR_CACHE_MEMBERS", default_value_t = 2_000_000)]
    pub cache_members: usize,
}

impl ProjectorSettings {
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }
}
