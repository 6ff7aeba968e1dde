//! Settings: parsed and checked once in `main`, handed down. `--help` is the reference.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, Parser, Subcommand};

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
    Provision(crate::serve::provision::ProvisionArgs),
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
    pub redis: crate::infra::redis::RedisSettings,
    #[command(flatten)]
    pub otel: otel::OtelSettings,
    #[command(flatten)]
    pub auth: crate::auth::AuthSettings,
    #[command(flatten)]
    pub limits: crate::http::limits::LimitSettings,
    #[command(flatten)]
    pub http: crate::http::HttpSettings,
    #[command(flatten)]
    pub origin: crate::http::request::origin::OriginSettings,
    #[command(flatten)]
    pub presence: crate::presence::PresenceSettings,
    #[command(flatten)]
    pub chat: crate::submit::capacity::ChatSettings,
    #[command(flatten)]
    pub session: crate::session::settings::SessionSettings,
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
