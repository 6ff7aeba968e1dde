//! Settings of the database, the same for every service.

use std::time::Duration;

use clap::Args;

/// How to reach Postgres.
#[derive(Debug, Clone, Args)]
pub struct SqlSettings {
    /// The database, `postgres://user:password@host:port/name`
    #[arg(
        long,
        env = "MT_POSTGRES_URL",
        default_value = "postgres://postgres@127.0.0.1:5432/minitelegram",
        hide_env_values = true
    )]
    pub postgres_url: String,

    /// The most connections of one process
    #[arg(long, env = "MT_POSTGRES_POOL", default_value_t = 16)]
    pub postgres_pool: usize,

    /// A query that takes longer is cancelled
    #[arg(long, env = "MT_POSTGRES_TIMEOUT_MS", default_value_t = 5_000)]
    pub postgres_timeout_ms: u64,
}

impl SqlSettings {
    /// The time after which the server cancels a statement.
    pub const fn statement_timeout(&self) -> Duration {
        Duration::from_millis(self.postgres_timeout_ms)
    }
}
