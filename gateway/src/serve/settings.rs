//! The settings of the gateway, from arguments and environment variables. They are parsed and checked once, in `main`,
//! and each room is handed its own part. `--help` is their reference.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, Parser, Subcommand};
use otel::OtelSettings;
use sql::SqlSettings;
use streams::connect::NatsSettings;

use super::provision::ProvisionArgs;
use crate::{
    auth::AuthSettings,
    http::{HttpSettings, limits::LimitSettings, request::origin::OriginSettings},
    infra::redis::RedisSettings,
    presence::PresenceSettings,
    session::settings::SessionSettings,
    submit::capacity::ChatSettings,
};

/// The gateway of Mini-Telegram.
#[derive(Debug, Clone, Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub task: Option<Task>,
    #[command(flatten)]
    pub settings: Settings,
}

/// The tasks of the program other than to serve.
#[derive(Debug, Clone, Subcommand)]
pub enum Task {
    /// Create the signing key and the cursor key if they are missing.
    Keys,
    /// Create accounts and print a token for each: for load tests and operators.
    Provision(ProvisionArgs),
}

/// All settings of a gateway that serves.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Where clients connect.
    #[arg(long, env = "MT_HTTP_ADDR", default_value = "0.0.0.0:8080")]
    pub http_addr: SocketAddr,
    /// Serve /metrics here instead of at the clients' address.
    #[arg(long, env = "MT_METRICS_ADDR")]
    pub metrics_addr: Option<SocketAddr>,
    #[command(flatten)]
    pub nats: NatsSettings,
    #[command(flatten)]
    pub sql: SqlSettings,
    #[command(flatten)]
    pub redis: RedisSettings,
    #[command(flatten)]
    pub otel: OtelSettings,
    #[command(flatten)]
    pub auth: AuthSettings,
    #[command(flatten)]
    pub limits: LimitSettings,
    #[command(flatten)]
    pub http: HttpSettings,
    #[command(flatten)]
    pub origin: OriginSettings,
    #[command(flatten)]
    pub presence: PresenceSettings,
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
    /// [`Settings::nap_us`] as a duration.
    pub fn nap(&self) -> Duration {
        Duration::from_micros(self.nap_us)
    }
}
