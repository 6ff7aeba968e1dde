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
    infra::{addresses::AddressSettings, pages::PageSettings, redis::RedisSettings},
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
    /// What the kernel may hold of a client's connection that it has not sent yet (TCP_NOTSENT_LOWAT); 0: as much as it
    /// likes, which is megabytes for a client that does not read.
    #[arg(long, env = "MT_UNSENT_BYTES", default_value_t = 16_384)]
    pub unsent_bytes: u32,
    /// What it may hold in all (SO_SNDBUF). Unset, it finds out how much each link needs.
    #[arg(long, env = "MT_SEND_BUFFER_BYTES")]
    pub send_buffer_bytes: Option<u32>,
    /// Where operators' probes and scrapers connect: /healthz, /readyz and /metrics, which clients can't keep busy here.
    #[arg(long, env = "MT_OPS_ADDR")]
    pub ops_addr: Option<SocketAddr>,
    /// Whether clients' address serves /metrics as well.
    #[arg(long, env = "MT_PUBLIC_METRICS", default_value_t = true, action = clap::ArgAction::Set)]
    pub public_metrics: bool,
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
    #[command(flatten)]
    pub pages: PageSettings,
    #[command(flatten)]
    pub addresses: AddressSettings,
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
