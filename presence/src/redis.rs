//! The connection to Redis: made when Redis is there, made again for ever.

use std::time::Duration;

use fred::{
    clients::Client,
    interfaces::ClientLike,
    prelude::{Builder, Config, Error, FredResult},
    types::{config::ReconnectPolicy, scripts::Script},
};

/// Reconnects are tried this often at first and then ever less often.
const RECONNECT_MIN_MS: u32 = 100;
const RECONNECT_MAX_MS: u32 = 1_000;
/// A script runs for a millisecond; a Redis that needs this long does not answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, clap::Args)]
pub struct RedisSettings {
    /// Where Redis is.
    #[arg(long, env = "MT_REDIS_URL", default_value = "redis://127.0.0.1:6379", hide_env_values = true)]
    pub redis_url: String,
    /// What all our keys begin with.
    #[arg(long, env = "MT_REDIS_PREFIX", default_value = "mt:")]
    pub redis_prefix: String,
}

/// The setting is no Redis URL.
#[derive(Debug, thiserror::Error)]
#[error("MT_REDIS_URL: {0}")]
pub struct InvalidUrl(#[source] Error);

/// Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    prefix: String,
}

impl Redis {
    /// Starts to connect, for ever, in the background.
    ///
    /// # Errors
    /// [`InvalidUrl`]; a Redis that is down is none.
    pub fn connect(settings: &RedisSettings) -> Result<Self, InvalidUrl> {
        let mut config = Config::from_url(&settings.redis_url).map_err(InvalidUrl)?;
        config.fail_fast = false;
        let client = Builder::from_config(config)
            .with_connection_config(|connection| {
                connection.connection_timeout = Duration::from_secs(1);
                connection.internal_command_timeout = Duration::from_secs(1);
                connection.unresponsive.max_timeout = Some(Duration::from_secs(2));
                connection.unresponsive.interval = Duration::from_millis(500);
                connection.tcp.nodelay = Some(true);
            })
            .with_performance_config(|performance| performance.default_command_timeout = ANSWER_WITHIN)
            .set_policy(ReconnectPolicy::new_exponential(0, RECONNECT_MIN_MS, RECONNECT_MAX_MS, 2))
            .build()
            .map_err(InvalidUrl)?;
        let _task = client.connect();
        Ok(Self { client, prefix: settings.redis_prefix.clone() })
    }

    /// Runs a script, whose one key is the installation's prefix.
    ///
    /// # Errors
    /// Redis's, or that it did not answer in time; the script may have run.
    pub async fn run<R>(&self, script: &Script, args: Vec<String>) -> FredResult<R>
    where
        R: fred::types::FromValue,
    {
        script.evalsha_with_reload(&self.client, self.prefix.clone(), args).await
    }

    /// Whether Redis answers.
    ///
    /// # Errors
    /// That it does not.
    pub async fn ping(&self) -> FredResult<()> {
        self.client.ping::<String>(None).await.map(drop)
    }
}
