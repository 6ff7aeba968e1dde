//! Settings: parsed and checked once in `main`, handed down. `--help` is the reference.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, Parser};

use crate::redis::RedisSettings;

/// The presence service of Mini-Telegram.
#[derive(Debug, Clone, Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(flatten)]
    pub settings: Settings,
}

/// Everything that can be set.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "MT_PRESENCE_ADDR", default_value = "127.0.0.1:8082")]
    pub presence_addr: SocketAddr,
    #[command(flatten)]
    pub nats: streams::NatsSettings,
    #[command(flatten)]
    pub sql: sql::SqlSettings,
    #[command(flatten)]
    pub redis: RedisSettings,
    #[command(flatten)]
    pub otel: otel::OtelSettings,
    #[command(flatten)]
    pub timing: Timing,
}

/// How patient the service is.
#[derive(Debug, Clone, Args)]
pub struct Timing {
    /// A user who is back within this time was never away.
    #[arg(long, env = "MT_PRESENCE_HYSTERESIS_MS", default_value_t = 5_000)]
    pub hysteresis_ms: u64,
    /// A gateway that was not heard for this long is dead. Together with the hysteresis it must stay below 15 s.
    #[arg(long, env = "MT_PRESENCE_SILENCE_MS", default_value_t = 6_000, value_parser = clap::value_parser!(u64).range(100..))]
    pub silence_ms: u64,
    /// Marks of the same member that arrive within this time are one.
    #[arg(long, env = "MT_RECEIPTS_WINDOW_MS", default_value_t = 50)]
    pub receipts_window_ms: u64,
}

impl Timing {
    pub const fn silence(&self) -> Duration {
        Duration::from_millis(self.silence_ms)
    }

    pub const fn receipts_window(&self) -> Duration {
        Duration::from_millis(self.receipts_window_ms)
    }
}
