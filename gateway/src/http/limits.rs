//! Rate limits, most of which all gateways share. Those are counted in Redis by the generic cell rate algorithm (GCRA), and in
//! this process while Redis is away.
//!
//! Invariants: a limit that is set to 0 is off. While Redis is away, requests are neither all admitted nor all
//! refused: this process's own counts take over as soon as [`crate::infra::redis`] gives up. Keys hold ids, addresses
//! and hashes, never an e-mail.

pub mod known;
mod local;

use std::{net::IpAddr, time::Duration};

use fred::{interfaces::LuaInterface, types::scripts::Script};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use shared::fold::MAX_MEMBERS;

use self::local::Local;
use crate::{
    http::answer::problem::Problem,
    infra::{addresses::network, metrics, redis::Redis},
};

const GCRA: &str = include_str!("limits/gcra.lua");

#[derive(Debug, Clone, clap::Args)]
pub struct LimitSettings {
    /// Calls to the auth endpoints a minute and client address; 0: no limit.
    #[arg(long, env = "MT_LIMIT_AUTH_PER_MIN", default_value_t = 5)]
    pub limit_auth_per_min: u32,
    /// Failed logins a minute and account; 0: no limit.
    #[arg(long, env = "MT_LIMIT_LOGIN_FAILURES_PER_MIN", default_value_t = 5)]
    pub limit_login_failures_per_min: u32,
    /// WebSocket connects a minute and user; 0: no limit.
    #[arg(long, env = "MT_LIMIT_CONNECTS_PER_MIN", default_value_t = 20)]
    pub limit_connects_per_min: u32,
    /// WebSocket connects with a valid cursor a minute and user; 0: no limit.
    #[arg(long, env = "MT_LIMIT_RESUMES_PER_MIN", default_value_t = 120)]
    pub limit_resumes_per_min: u32,
    /// Look-ups of users a minute and user; 0: no limit.
    #[arg(long, env = "MT_LIMIT_LOOKUPS_PER_MIN", default_value_t = 60)]
    pub limit_lookups_per_min: u32,
    /// Look-ups of users a minute and client address, whoever makes them; 0: no limit.
    #[arg(long, env = "MT_LIMIT_LOOKUPS_PER_ADDRESS_PER_MIN", default_value_t = 600)]
    pub limit_lookups_per_address_per_min: u32,
    /// Requests a minute and user that force their trace to be recorded; 0: no limit.
    #[arg(long, env = "MT_LIMIT_FORCED_TRACES_PER_MIN", default_value_t = 10)]
    pub limit_forced_traces_per_min: u32,
    /// Commands over HTTP a second and user; 0: no limit.
    #[arg(long, env = "MT_LIMIT_HTTP_COMMANDS_PER_S", default_value_t = 20)]
    pub limit_http_commands_per_s: u32,
    /// How many of them may come at once.
    #[arg(long, env = "MT_LIMIT_HTTP_COMMANDS_BURST", default_value_t = 60)]
    pub limit_http_commands_burst: u32,
    /// Members that a user puts into chats a minute, by creating them or adding to them; 0: no limit.
    #[arg(long, env = "MT_LIMIT_MEMBER_ROWS_PER_MIN", default_value_t = 20_000)]
    pub limit_member_rows_per_min: u32,
    /// Reads over HTTP a second and user, at each gateway; 0: no limit.
    #[arg(long, env = "MT_LIMIT_READS_PER_S", default_value_t = 50)]
    pub limit_reads_per_s: u32,
    /// How many of them may come at once.
    #[arg(long, env = "MT_LIMIT_READS_BURST", default_value_t = 250)]
    pub limit_reads_burst: u32,
}

/// Each is a row of the projection, and reads wait until the rows before them are written: some 100 ms for these. It is
/// the largest group.
const MOST_MEMBER_ROWS_AT_ONCE: u32 = MAX_MEMBERS as u32;

/// Declares [`Limit`], [`Limit::ALL`] and the names from one list, so that none of them can lack a limit.
macro_rules! limits {
    ($($(#[$doc:meta])* $limit:ident = $name:literal),* $(,)?) => {
        /// The limits. Each counts one kind of request, separately for each key.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Limit {
            $($(#[$doc])* $limit,)*
        }

        impl Limit {
            /// Every limit, in the order of the discriminants.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$limit),*];

            /// The limit's part of a key in Redis.
            const fn name(self) -> &'static str {
                match self {
                    $(Self::$limit => $name,)*
                }
            }
        }
    };
}

limits! {
    /// The auth endpoints, by [`address_key`].
    AuthPerAddress = "auth",
    /// Failed logins, by account, and by account and address for addresses that the account knows.
    LoginFailuresPerAccount = "fail",
    /// WebSocket connects, by user.
    ConnectPerUser = "ws",
    /// WebSocket connects with a valid cursor, by user.
    ResumePerUser = "resume",
    /// Look-ups of users, by user.
    LookupsPerUser = "lookup",
    /// Look-ups of users, by [`address_key`].
    LookupsPerAddress = "lookup-at",
    /// Requests that force their trace to be recorded, by user.
    ForcedTraces = "trace",
    /// Commands over HTTP, by user.
    HttpCommands = "http",
    /// Members put into chats, by the user who does it.
    MemberRows = "member",
    /// Reads over HTTP, by user.
    Reads = "read",
}

impl Limit {
    /// Whether each gateway counts alone: what the limit protects is a gateway's own, and a question to Redis would make
    /// every read slower.
    const fn is_local(self) -> bool {
        matches!(self, Self::Reads)
    }
}

/// One request every `interval`, and up to `burst` at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    interval: Duration,
    burst: u32,
}

impl Rule {
    fn new(count: u32, per: Duration, burst: u32) -> Option<Self> {
        (count > 0).then(|| Self { interval: per / count, burst: burst.max(1) })
    }

    fn of(limit: Limit, settings: &LimitSettings) -> Option<Self> {
        const MINUTE: Duration = Duration::from_secs(60);
        let per_minute = |count| Self::new(count, MINUTE, count);
        match limit {
            Limit::AuthPerAddress => per_minute(settings.limit_auth_per_min),
            Limit::LoginFailuresPerAccount => per_minute(settings.limit_login_failures_per_min),
            Limit::ConnectPerUser => per_minute(settings.limit_connects_per_min),
            Limit::ResumePerUser => per_minute(settings.limit_resumes_per_min),
            Limit::LookupsPerUser => per_minute(settings.limit_lookups_per_min),
            Limit::LookupsPerAddress => per_minute(settings.limit_lookups_per_address_per_min),
            Limit::ForcedTraces => per_minute(settings.limit_forced_traces_per_min),
            Limit::HttpCommands => Self::new(
                settings.limit_http_commands_per_s,
                Duration::from_secs(1),
                settings.limit_http_commands_burst,
            ),
            Limit::MemberRows => {
                let count = settings.limit_member_rows_per_min;
                Self::new(count, MINUTE, count.min(MOST_MEMBER_ROWS_AT_ONCE))
            }
            Limit::Reads => {
                Self::new(settings.limit_reads_per_s, Duration::from_secs(1), settings.limit_reads_burst)
            }
        }
    }
}

/// The limit is used up; the client may come back after this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter(pub Duration);

impl From<RetryAfter> for Problem {
    fn from(RetryAfter(wait): RetryAfter) -> Self {
        Self::limited(wait)
    }
}

/// What a call does to a key's allowance.
#[derive(Clone, Copy)]
enum Mode {
    /// Counts them if one is allowed.
    Take,
    /// Counts them whether they are allowed or not.
    Owe,
    /// Counts as many of them as are allowed.
    Drain,
    /// Takes them back from the count.
    Give,
}

impl Mode {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Take => "take",
            Self::Owe => "owe",
            Self::Drain => "drain",
            Self::Give => "give",
        }
    }
}

/// Checks requests against the limits. `fallbacks` counts the checks that Redis did not answer.
pub struct Limits {
    redis: Redis,
    script: Script,
    rules: [Option<Rule>; Limit::ALL.len()],
    local: Local,
    fallbacks: Counter,
}

impl Limits {
    pub fn new(settings: &LimitSettings, redis: Redis, registry: &mut Registry) -> Self {
        let fallbacks: Counter = metrics::add(
            registry,
            "gateway_limiter_fallbacks",
            "Checks of a rate limit made in this process because Redis was away",
        );
        let rules = Limit::ALL.map(|limit| Rule::of(limit, settings));
        Self { redis, script: Script::from_lua(GCRA), local: Local::new(&rules), rules, fallbacks }
    }

    /// Counts one request of the key.
    ///
    /// # Errors
    /// [`RetryAfter`] if the limit is reached.
    pub async fn check(&self, limit: Limit, key: &str) -> Result<(), RetryAfter> {
        self.check_all(limit, key, 1).await
    }

    /// Counts as many requests of the key, if one of them is allowed. What is on top of the limit is owed: nothing is
    /// allowed until it is paid off.
    ///
    /// # Errors
    /// [`RetryAfter`] if the limit is reached.
    pub async fn check_all(&self, limit: Limit, key: &str, count: u32) -> Result<(), RetryAfter> {
        self.ask(limit, key, Mode::Take, count).await
    }

    /// Counts as many requests of the key, which were made already: they are owed even if none is allowed.
    pub async fn owe(&self, limit: Limit, key: &str, count: u32) {
        let _never_refused = self.ask(limit, key, Mode::Owe, count).await.is_ok();
    }

    /// Counts as many requests of the key, but no more than it may make now, so that it owes nothing. It is for keys that
    /// several people share.
    pub async fn drain(&self, limit: Limit, key: &str, count: u32) {
        let _never_refused = self.ask(limit, key, Mode::Drain, count).await.is_ok();
    }

    /// Takes one request back from the count, as if [`Limits::check`] had not counted it.
    pub async fn give_back(&self, limit: Limit, key: &str) {
        let _never_refused = self.ask(limit, key, Mode::Give, 1).await.is_ok();
    }

    async fn ask(&self, limit: Limit, key: &str, mode: Mode, count: u32) -> Result<(), RetryAfter> {
        let Some(rule) = self.rules[limit as usize] else { return Ok(()) };
        if limit.is_local() {
            return self.local.ask(limit, key, mode, count);
        }
        let name = self.redis.key(&format!("limit:{}:{key}", limit.name()));
        let args = vec![
            rule.interval.as_micros().to_string(),
            rule.burst.to_string(),
            mode.as_str().to_owned(),
            count.to_string(),
        ];
        let answer = self.redis.run(async |client| {
            match self.script.evalsha::<u64, _, _, _>(client, name.clone(), args.clone()).await {
                Err(error) if error.details().starts_with("NOSCRIPT") => {
                    client.eval::<u64, _, _, _>(GCRA, name, args).await
                }
                answer => answer,
            }
        });
        match answer.await {
            Ok(0) => Ok(()),
            Ok(wait_us) => Err(RetryAfter(Duration::from_micros(wait_us))),
            Err(_down) => {
                self.fallbacks.inc();
                self.local.ask(limit, key, mode, count)
            }
        }
    }
}

/// The key of an address, which is that of its network.
pub fn address_key(address: IpAddr) -> String {
    match network(address) {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("{v6}/64"),
    }
}
