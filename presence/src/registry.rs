//! The registry of connections in Redis, and what follows from it: every operation is one atomic script.
//!
//! Owns the keys `presence:*` and `announced:*` below the installation's prefix (see `registry/common.lua`); all of
//! them may be lost, the next snapshots rebuild them. Invariants: reports of a gateway take effect in their order and
//! once, however many instances bring them; a change of a user's state leaves exactly one piece of news, which waits
//! in Redis until an instance has announced it. One Redis (with replicas), no cluster: a script touches keys of many
//! users.

use fred::{prelude::FredResult, types::scripts::Script};
use shared::id::UserId;
use streams::signal::{Announced, Connection, Connections, Snapshot};
use uuid::Uuid;

use crate::redis::Redis;

/// A key that nobody touches for this long is of an installation that is gone. Longer than any outage of this service
/// that is to be bridged without forgetting whom the clients believe to be online.
const LIFE_S: u64 = 24 * 3_600;
/// Users or sessions that one run of a script goes through: some milliseconds, in which Redis serves nobody else.
const STEP: usize = 200;
/// An instance that claimed news has this long to announce it.
const CLAIM_MS: u64 = 2_000;

macro_rules! script {
    ($name:literal) => {
        Script::from_lua(concat!(
            include_str!("registry/common.lua"),
            include_str!(concat!("registry/", $name, ".lua"))
        ))
    };
}

/// See the module.
#[derive(Clone)]
pub struct Registry {
    redis: Redis,
    hysteresis_ms: u64,
    report: Script,
    snapshot: Script,
    prune: Script,
    sweep: Script,
    due: Script,
    claim: Script,
    done: Script,
}

/// What became of a report or of a part of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Another instance was faster, or something newer was.
    Known,
    Applied,
    /// Of reports: one before it is missing. Of snapshots: this was the last part.
    Notable,
}

/// A user to announce; `text` says what, and proves that it is still what was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    pub user: UserId,
    pub announced: Announced,
    text: String,
}

impl Registry {
    pub fn new(redis: Redis, hysteresis_ms: u64) -> Self {
        Self {
            redis,
            hysteresis_ms,
            report: script!("report"),
            snapshot: script!("snapshot"),
            prune: script!("prune"),
            sweep: script!("sweep"),
            due: script!("due"),
            claim: script!("claim"),
            done: script!("done"),
        }
    }

    /// Takes a report of a gateway. `Notable`: one before it is missing, a snapshot must tell.
    ///
    /// # Errors
    /// Redis's; trying again is safe.
    pub async fn report(&self, report: &Connections) -> FredResult<Applied> {
        let mut args = self.args(2 + report.came.len() * 3 + report.went.len() * 2);
        args.extend([report.gateway.to_string(), report.report.to_string(), report.came.len().to_string()]);
        for connection in &report.came {
            push_connection(&mut args, report.gateway, connection);
        }
        for connection in &report.went {
            args.extend([connection.user.to_string(), connection.session.simple().to_string()]);
        }
        self.redis.run::<u64>(&self.report, args).await.map(Applied::from)
    }

    /// Takes a part of a snapshot; the last one takes off what the snapshot does not know.
    ///
    /// # Errors
    /// Redis's; trying again is safe.
    pub async fn snapshot(&self, snapshot: &Snapshot) -> FredResult<Applied> {
        let mut args = self.args(4 + snapshot.connections.len() * 3);
        args.extend([snapshot.gateway.to_string(), snapshot.report.to_string()]);
        args.extend([snapshot.part.to_string(), snapshot.parts.to_string()]);
        for connection in &snapshot.connections {
            push_connection(&mut args, snapshot.gateway, connection);
        }
        let applied = self.redis.run::<u64>(&self.snapshot, args).await.map(Applied::from)?;
        if applied == Applied::Notable {
            self.prune(snapshot.gateway, snapshot.report).await?;
        }
        Ok(applied)
    }

    async fn prune(&self, gateway: Uuid, report: u64) -> FredResult<()> {
        loop {
            let mut args = self.args(3);
            args.extend([gateway.to_string(), report.to_string(), STEP.to_string()]);
            if self.redis.run::<usize>(&self.prune, args).await? < STEP {
                return Ok(());
            }
        }
    }

    /// Takes off the sessions of gateways that were not heard for `silence_ms`.
    ///
    /// # Errors
    /// Redis's; trying again is safe.
    pub async fn sweep(&self, silence_ms: u64) -> FredResult<usize> {
        let mut swept = 0;
        loop {
            let mut args = self.args(2);
            args.extend([silence_ms.to_string(), STEP.to_string()]);
            match self.redis.run::<usize>(&self.sweep, args).await? {
                0 => return Ok(swept),
                count => swept += count,
            }
        }
    }

    /// Decides what was held back by the hysteresis and is due. After a break in these calls of a third of
    /// `silence_ms`, nothing is for `silence_ms`: so they come many times as often. The same holds for
    /// [`Registry::sweep`].
    ///
    /// # Errors
    /// Redis's; trying again is safe.
    pub async fn decide_due(&self, silence_ms: u64) -> FredResult<()> {
        while self.run_due(silence_ms, STEP).await? == STEP {}
        Ok(())
    }

    /// Decides nothing, and is no break either.
    ///
    /// # Errors
    /// Redis's; trying again is safe.
    pub async fn look(&self, silence_ms: u64) -> FredResult<()> {
        self.run_due(silence_ms, 0).await.map(drop)
    }

    async fn run_due(&self, silence_ms: u64, most: usize) -> FredResult<usize> {
        let mut args = self.args(2);
        args.extend([silence_ms.to_string(), most.to_string()]);
        self.redis.run(&self.due, args).await
    }

    /// Takes some of the news that nobody has in hand.
    ///
    /// # Errors
    /// Redis's; what was claimed comes back after a while.
    pub async fn claim(&self) -> FredResult<Vec<News>> {
        let mut args = self.args(2);
        args.extend([STEP.to_string(), CLAIM_MS.to_string()]);
        let claimed: Vec<(String, String)> = self.redis.run(&self.claim, args).await?;
        let news = claimed.into_iter().filter_map(|(user, text)| {
            let announced = Announced::from_redis(&text)?;
            Some(News { user: user.parse().ok()?, announced, text })
        });
        Ok(news.collect())
    }

    /// The news was announced.
    ///
    /// # Errors
    /// Redis's; the news is then announced again.
    pub async fn done(&self, news: &[News]) -> FredResult<()> {
        let mut args = self.args(news.len() * 2);
        args.extend(news.iter().flat_map(|news| [news.user.to_string(), news.text.clone()]));
        self.redis.run::<u64>(&self.done, args).await.map(drop)
    }

    fn args(&self, more: usize) -> Vec<String> {
        let mut args = Vec::with_capacity(2 + more);
        args.extend([self.hysteresis_ms.to_string(), LIFE_S.to_string()]);
        args
    }
}

fn push_connection(args: &mut Vec<String>, gateway: Uuid, connection: &Connection) {
    let state = if connection.away { 'a' } else { 'o' };
    let value = format!("{state}|{gateway}|{}|{}", connection.since_ms, connection.device);
    args.extend([connection.user.to_string(), connection.session.simple().to_string(), value]);
}

impl From<u64> for Applied {
    fn from(code: u64) -> Self {
        match code {
            0 => Self::Known,
            1 => Self::Applied,
            _ => Self::Notable,
        }
    }
}
