//! Settings, and the handle through which an installation's NATS is reached.
//!
//! [`Nats`] never fails to start because NATS is down: its client connects when it can and reconnects for ever.
//! Requests made meanwhile fail within their timeout.

use std::{fmt, io, sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectOptions, Event, ReconnectToServer, ServerAddr, connection::State, jetstream,
};
use tokio::{sync::watch, time::timeout};

use crate::{
    subject::{InvalidPrefix, Layout},
    target::{Credentials, Target},
};

/// How long a request to NATS may take. Usually it takes under a millisecond; two seconds are how long a linearizable
/// read is willing to wait.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How often an idle connection is probed. A cut connection is noticed within two of these.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How NATS is reached and how the log is kept.
#[derive(Clone, PartialEq, Eq, clap::Args)]
pub struct NatsSettings {
    /// NATS servers, separated by commas; `tls://` for TLS, `nats://user:password@host:port` for credentials.
    #[arg(
        long = "nats-url",
        env = "MT_NATS_URL",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    pub nats_url: String,
    /// Put before the names of all streams and subjects, so that installations can share a server.
    #[arg(long, env = "MT_STREAM_PREFIX", default_value = "")]
    pub stream_prefix: String,
    /// Copies of each stream: 1 in development, 3 in production.
    #[arg(long, env = "MT_REPLICAS", default_value_t = 1)]
    pub replicas: usize,
    /// Size in bytes at which the log of a partition refuses writes; 0: the server's own limit alone.
    #[arg(long, env = "MT_LOG_MAX_BYTES", default_value_t = 0)]
    pub log_max_bytes: u64,
    /// Days that events are kept; 0: for ever.
    #[arg(long, env = "MT_LOG_MAX_AGE_DAYS", default_value_t = 0)]
    pub log_max_age_days: u32,
    /// Milliseconds within which the log recognises an event that is appended again. With less than two minutes, more
    /// commands are looked up before they are stored.
    #[arg(long, env = "MT_DUPLICATE_WINDOW_MS", default_value_t = 120_000)]
    pub duplicate_window_ms: u64,
    /// Appends that may await their acknowledgement at once. 256 is where throughput peaks.
    #[arg(long, env = "MT_APPEND_WINDOW", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub append_window: u16,
    /// Milliseconds after which an append without acknowledgement is tried again.
    #[arg(long, env = "MT_APPEND_ACK_TIMEOUT_MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..))]
    pub append_ack_timeout_ms: u64,
}

impl fmt::Debug for NatsSettings {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsSettings")
            .field("stream_prefix", &self.stream_prefix)
            .field("replicas", &self.replicas)
            .field("log_max_bytes", &self.log_max_bytes)
            .finish_non_exhaustive()
    }
}

impl Default for NatsSettings {
    /// What `--help` shows.
    fn default() -> Self {
        Self {
            nats_url: "nats://127.0.0.1:4222".to_owned(),
            stream_prefix: String::new(),
            replicas: 1,
            log_max_bytes: 0,
            log_max_age_days: 0,
            duplicate_window_ms: 120_000,
            append_window: 256,
            append_ack_timeout_ms: 2_000,
        }
    }
}

/// The settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Prefix(#[from] InvalidPrefix),
    #[error("MT_NATS_URL: {0}")]
    Url(#[source] io::Error),
    #[error("MT_NATS_URL: names no server")]
    NoServer,
    #[error("MT_NATS_URL: {0}")]
    Client(#[source] async_nats::ConnectError),
}

/// NATS did not answer in time, or not with what was asked for. Asking again later is safe.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unavailable {
    /// Nothing below failed: an answer is missing, or is not the wanted one.
    #[error("NATS is unavailable: {0}")]
    Because(&'static str),
    /// The failure below; shared, as one failure may answer many callers.
    #[error("NATS is unavailable: {0}")]
    Failed(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl Unavailable {
    /// For the failure of what was asked.
    pub fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Failed(Arc::new(source))
    }
}

/// A cheaply cloned handle to an installation's NATS.
#[derive(Clone)]
pub struct Nats {
    pub(crate) client: Client,
    pub(crate) js: jetstream::Context,
    pub(crate) layout: Layout,
    pub(crate) target: Target,
    pub(crate) settings: Arc<NatsSettings>,
    connected: watch::Receiver<bool>,
}

impl Nats {
    /// Starts to connect; `name` is what the server's monitoring shows. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`SettingsError`] if the settings can't be used; never because the server can't be reached.
    pub async fn connect(settings: &NatsSettings, name: &str) -> Result<Self, SettingsError> {
        let layout = Layout::new(&settings.stream_prefix)?;
        let servers = parse_urls(&settings.nats_url)?;
        let target = Target::new(&servers, name);
        let (connection, connected) = watch::channel(false);
        let client = control_client(&servers, name, connection, target.clone()).await?;
        let js = jetstream::context::ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client.clone());
        Ok(Self { client, js, layout, target, settings: Arc::new(settings.clone()), connected })
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether the connection for requests and signals stands right now.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// For readiness: whether NATS answers a round trip.
    ///
    /// # Errors
    /// [`Unavailable`] if it does not within two seconds.
    pub async fn ping(&self) -> Result<(), Unavailable> {
        if !self.is_connected() {
            return Err(Unavailable::Because("not connected"));
        }
        self.ask(async { self.js.query_account().await.map(drop).map_err(Unavailable::new) }).await
    }

    /// Leaves a server that answers and proves nothing, with all connections of this process.
    pub(crate) async fn leave(&self, server: &str) {
        self.target.leave(server);
        if self.target.is_left(&self.client.server_info().server_id) {
            // A client that has ended needs no other server.
            drop(self.client.force_reconnect().await);
        }
    }

    /// Bounds a request by [`REQUEST_TIMEOUT`] and by the life of the connection: an answer that was lost with the
    /// connection would be awaited for the whole time.
    pub(crate) async fn ask<T>(
        &self,
        request: impl Future<Output = Result<T, Unavailable>>,
    ) -> Result<T, Unavailable> {
        let mut connected = self.connected.clone();
        let asked = async {
            wait_until(&mut connected, true).await;
            tokio::select! {
                answer = request => answer,
                () = wait_until(&mut connected, false) => Err(Unavailable::Because("lost the connection")),
            }
        };
        timeout(REQUEST_TIMEOUT, asked).await.map_err(|_| Unavailable::Because("no answer"))?
    }
}

fn parse_urls(urls: &str) -> Result<Vec<ServerAddr>, SettingsError> {
    let servers: Result<Vec<ServerAddr>, _> =
        urls.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::parse).collect();
    match servers {
        Ok(servers) if servers.is_empty() => Err(SettingsError::NoServer),
        servers => servers.map_err(SettingsError::Url),
    }
}

/// The client for requests, signals and read marks: none of them waits for NATS to come back.
async fn control_client(
    servers: &[ServerAddr],
    name: &str,
    connection: watch::Sender<bool>,
    target: Target,
) -> Result<Client, SettingsError> {
    // The client does not look for credentials in its URLs.
    let options = match servers.first().and_then(Credentials::of) {
        Some(Credentials::Password { user, password }) => {
            ConnectOptions::with_user_and_password(user, password)
        }
        Some(Credentials::Token(token)) => ConnectOptions::with_token(token),
        None => ConnectOptions::new(),
    };
    options
        .name(name)
        .retry_on_initial_connect()
        .ping_interval(PING_INTERVAL)
        .connection_timeout(REQUEST_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        // Enough for a burst of signals while their reader is busy, and a bound on what a stuck reader holds.
        .subscription_capacity(4096)
        .client_capacity(1024)
        .reconnect_delay_callback(reconnect_delay)
        .reconnect_to_server_callback(move |servers, _| {
            let servers = servers.into_iter().map(|server| (server.addr, server.failed_attempts)).collect();
            let chosen = target.choose(servers);
            std::future::ready(chosen.map(|addr| ReconnectToServer { addr, delay: None }))
        })
        .event_callback(move |event| {
            match event {
                Event::Connected => drop(connection.send_replace(true)),
                Event::Disconnected | Event::Closed => drop(connection.send_replace(false)),
                _ => {}
            }
            std::future::ready(())
        })
        .connect(servers)
        .await
        .map_err(SettingsError::Client)
}

async fn wait_until(connected: &mut watch::Receiver<bool>, state: bool) {
    if connected.wait_for(|connected| *connected == state).await.is_err() {
        std::future::pending().await
    }
}

/// Jittered, and capped at a second: gateways shall be back soon after NATS is, but not all at the same moment.
fn reconnect_delay(attempts: usize) -> Duration {
    backoff(u32::try_from(attempts).unwrap_or(u32::MAX))
}

/// The pause before attempt `attempts` (1 is the first, which is at once).
pub(crate) fn backoff(attempts: u32) -> Duration {
    const CAP_MS: u64 = 1_000;
    let ceiling = 10u64.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(CAP_MS);
    match attempts {
        0 | 1 => Duration::ZERO,
        _ => Duration::from_millis(rand::random_range(ceiling / 2..=ceiling)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        nats: NatsSettings,
    }

    #[test]
    fn default_is_what_help_shows() {
        use clap::Parser;
        let parsed = Cli::parse_from(["x"]).nats;
        assert_eq!(parsed, NatsSettings::default());
    }

    #[test]
    fn back_off_starts_at_once_and_is_capped() {
        assert_eq!(backoff(1), Duration::ZERO);
        for attempts in [2, 5, 20, u32::MAX] {
            assert!(backoff(attempts) <= Duration::from_secs(1));
        }
    }

    #[test]
    fn urls_are_checked() {
        assert!(parse_urls("nats://a:1, nats://b").is_ok());
        assert!(parse_urls("").is_err());
        assert!(parse_urls("http://x").is_err());
    }
}
