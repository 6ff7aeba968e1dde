//! Redis as the gateway uses it: one multiplexed client, a key prefix, and a circuit breaker.
//!
//! Nothing in Redis is the only copy of something that must last, and every caller knows what to do when Redis is
//! [`Down`]. Invariant: while Redis is away, [`Redis::run`] tries it once a second and then waits at most
//! `ANSWER_WITHIN`; in between it fails at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fred::{
    clients::Client,
    interfaces::{ClientLike, KeysInterface},
    prelude::{Builder, Config, Error, ErrorKind, FredResult},
    types::config::ReconnectPolicy,
};
use tokio::time::timeout;

use super::clock::Clock;

/// How long a caller waits that can do without the answer. A healthy Redis answers in well under a millisecond.
const ANSWER_WITHIN: Duration = Duration::from_millis(80);
/// How long a caller waits that would have to refuse its client without the answer.
const INSIST_FOR: Duration = Duration::from_secs(1);
/// How long the circuit stays open after a failure: so long no command is sent.
const OPEN_MS: u64 = 1_000;
/// The first wait before a reconnect. Each further one doubles it, up to [`RECONNECT_MAX_MS`].
const RECONNECT_MIN_MS: u32 = 100;
const RECONNECT_MAX_MS: u32 = 1_000;
/// Commands that may wait inside the client. If more would wait, Redis does not answer any more.
const QUEUE: usize = 65_536;

#[derive(Debug, Clone, clap::Args)]
pub struct RedisSettings {
    /// Where Redis is.
    #[arg(
        long = "redis-url",
        env = "MT_REDIS_URL",
        default_value = "redis://127.0.0.1:6379",
        hide_env_values = true
    )]
    pub url: String,
    /// What all our keys begin with.
    #[arg(long = "redis-prefix", env = "MT_REDIS_PREFIX", default_value = "mt:")]
    pub prefix: String,
}

/// Redis did not answer in time, or answered with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("redis does not answer")]
pub struct Down;

/// The setting is no Redis URL.
#[derive(Debug, thiserror::Error)]
#[error("MT_REDIS_URL: {0}")]
pub struct InvalidUrl(#[source] Error);

/// The client. Clones share one connection and one circuit breaker.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    client: Client,
    prefix: String,
    clock: Clock,
    /// Until this time of `clock` the circuit is open.
    open_until_ms: AtomicU64,
}

impl Redis {
    /// Starts a task that connects, and reconnects for ever.
    ///
    /// # Errors
    /// [`InvalidUrl`]. A Redis that is down is no error.
    pub fn connect(settings: &RedisSettings) -> Result<Self, InvalidUrl> {
        let mut config = Config::from_url(&settings.url).map_err(InvalidUrl)?;
        // A gateway starts also while Redis is away, and connects when it comes back.
        config.fail_fast = false;
        let client = Builder::from_config(config)
            .with_connection_config(|connection| {
                connection.connection_timeout = Duration::from_secs(1);
                connection.internal_command_timeout = Duration::from_secs(1);
                connection.max_command_attempts = 1;
                connection.max_command_buffer_len = QUEUE;
                connection.unresponsive.max_timeout = Some(Duration::from_secs(2));
                connection.unresponsive.interval = Duration::from_millis(500);
                connection.tcp.nodelay = Some(true);
            })
            .with_performance_config(|performance| performance.default_command_timeout = INSIST_FOR)
            .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_MIN_MS, RECONNECT_MAX_MS, 2))
            .build()
            .map_err(InvalidUrl)?;
        let _task = client.connect();
        Ok(Self(Arc::new(Inner {
            client,
            prefix: settings.prefix.clone(),
            clock: Clock::start(),
            open_until_ms: AtomicU64::new(0),
        })))
    }

    /// The full name of a key.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.0.prefix)
    }

    /// Runs commands for a caller that can do without their answer.
    ///
    /// # Errors
    /// [`Down`], without a wait while the circuit is open or there is no connection.
    pub async fn run<T>(&self, commands: impl AsyncFnOnce(&Client) -> FredResult<T>) -> Result<T, Down> {
        // Nothing is learned by waiting for a connection. Commands before the first one, at the start of the process, would
        // open the circuit just when it is made.
        if self.is_open() || !self.0.client.is_connected() {
            return Err(Down);
        }
        let answer = self.within(ANSWER_WITHIN, commands).await;
        answer.inspect_err(|error| self.fail(error)).map_err(|_| Down)
    }

    /// Runs commands for a caller that would have to refuse its client without their answer. It waits longer than
    /// [`Redis::run`], and tries even while the circuit is open.
    ///
    /// # Errors
    /// [`Down`].
    pub async fn insist<T>(&self, commands: impl AsyncFnOnce(&Client) -> FredResult<T>) -> Result<T, Down> {
        self.within(INSIST_FOR, commands).await.map_err(|_| Down)
    }

    async fn within<T>(
        &self,
        limit: Duration,
        commands: impl AsyncFnOnce(&Client) -> FredResult<T>,
    ) -> FredResult<T> {
        let late = |_elapsed| Error::new(ErrorKind::Timeout, "no answer in time");
        timeout(limit, commands(&self.0.client)).await.map_err(late)?
    }

    /// Whether Redis answers, for `/readyz`.
    ///
    /// # Errors
    /// [`Down`].
    pub async fn ping(&self) -> Result<(), Down> {
        self.insist(async |client| client.exists::<i64, _>(self.key("ping")).await).await.map(|_| ())
    }

    fn is_open(&self) -> bool {
        self.0.clock.now_ms() < self.0.open_until_ms.load(Ordering::Relaxed)
    }

    fn fail(&self, error: &Error) {
        let until = self.0.clock.now_ms() + OPEN_MS;
        let before = self.0.open_until_ms.swap(until, Ordering::Relaxed);
        if before < until - OPEN_MS {
            tracing::warn!(%error, "redis does not answer; doing without it for a second");
        }
    }
}
