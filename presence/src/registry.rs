//! The registry of connections in Redis, and what follows from it: every operation is one atomic script.
//!
//! Owns the keys `presence:*` and `announced:*` below the installation's prefix (see `registry/common.lua`); all of
//! them may be lost, the next snapshots rebuild them. Invariants: reports of a gateway take effect in their order and
//! once, however many instances bring them; a change of a user's state leaves exactly one announcement to make, which
//! waits in Redis until an instance has made it. One Redis (with replicas), no cluster: a script touches keys of many
//! users.

use fred::{prelude::FredResult, types::scripts::Script};
use shared::id::UserId;
use streams::signal::{Announced, Connection, Connections, Snapshot};
use uuid::Uuid;

use crate::redis::Redis;

/// A key that is not touched for this long expires: its installation is gone. Longer than an outage of this service
/// may last without the users whom clients believe to be online being forgotten.
const LIFE_S: u64 = 24 * 3_600;
/// Users or sessions that one run of a script goes through: some milliseconds, in which Redis serves no other client.
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

/// The scripts, and the connection that they run on. Cheap to clone.
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

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// Another instance has brought it, or a newer one.
    Known,
    Applied,
    /// Applied, but a report before it is missing: only a snapshot tells what that said.
    NeedsSnapshot,
}

/// What became of a part of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartTaken {
    /// Another instance has brought it, or a newer report or snapshot.
    Known,
    Applied,
    /// Applied, and it was the last part that was missing.
    Whole,
}

/// A user to announce. `text` is the state to announce as Redis holds it: it shows whether that is still what was
/// claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
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

    /// Takes a report of a gateway.
    ///
    /// # Errors
    /// Redis's; trying again is safe.
    pub async fn report(&self, report: &Connections) -> FredResult<Reported> {
        let mut args = self.args(2 + report.came.len() * 3 + report.went.len() * 2);
        args.extend([report.gateway.to_string(), report.report.to_string(), report.came.len().to_string()]);
        for connection in &report.came {
            push_connection(&mut args, report.gateway, connection);
        }
        for connection in &report.went {
            args.extend([connection.user.to_string(), connection.session.simple().to_string()]);
        }
        self.redis.run::<u64>(&self.report, args).await.map(Reported::from)
    }

    /// Takes a part of a snapshot. With the last one, sessions that the snapshot does not hold are taken off.
    ///
    /// # Errors
    /// Redis's; trying again is safe.
    pub async fn snapshot(&self, snapshot: &Snapshot) -> FredResult<PartTaken> {
        let mut args = self.args(4 + snapshot.connections.len() * 3);
        args.extend([snapshot.gateway.to_string(), snapshot.report.to_string()]);
        args.extend([snapshot.part.to_string(), snapshot.parts.to_string()]);
        for connection in &snapshot.connections {
            push_connection(&mut args, snapshot.gateway, connection);
        }
        let taken = self.redis.run::<u64>(&self.snapshot, args).await.map(PartTaken::from)?;
        if taken == PartTaken::Whole {
            self.prune(snapshot.gateway, snapshot.report).await?;
        }
        Ok(taken)
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

    /// Decides the steps down that the hysteresis held back and that are due. After a break in these calls of a third of
    /// `silence_ms`, nothing counts as due for `silence_ms`: so call it many times as often. The same holds for
    /// [`Registry::sweep`].
    ///
    /// # Errors
    /// Redis's; trying again is safe.
    pub async fn decide_due(&self, silence_ms: u64) -> FredResult<()> {
        while self.run_due(silence_ms, STEP).await? == STEP {}
        Ok(())
    }

    /// Decides nothing, but keeps the calls of [`Registry::decide_due`] and [`Registry::sweep`] from having a break.
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

    /// Takes some of the announcements that no instance has in hand.
    ///
    /// # Errors
    /// Redis's; what was claimed comes back after a while.
    pub async fn claim(&self) -> FredResult<Vec<Announcement>> {
        let mut args = self.args(2);
        args.extend([STEP.to_string(), CLAIM_MS.to_string()]);
        let claimed: Vec<(String, String)> = self.redis.run(&self.claim, args).await?;
        let announcements = claimed.into_iter().filter_map(|(user, text)| {
            let announced = Announced::from_redis(&text)?;
            Some(Announcement { user: user.parse().ok()?, announced, text })
        });
        Ok(announcements.collect())
    }

    /// Forgets what was announced, unless the user's state has changed since the claim.
    ///
    /// # Errors
    /// Redis's; the users are then announced again.
    pub async fn done(&self, announced: &[Announcement]) -> FredResult<()> {
        let mut args = self.args(announced.len() * 2);
        args.extend(announced.iter().flat_map(|one| [one.user.to_string(), one.text.clone()]));
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

/// The codes of `registry/report.lua`.
impl From<u64> for Reported {
    fn from(code: u64) -> Self {
        match code {
            0 => Self::Known,
            1 => Self::Applied,
            _ => Self::NeedsSnapshot,
        }
    }
}

/// The codes of `registry/snapshot.lua`.
impl From<u64> for PartTaken {
    fn from(code: u64) -> Self {
        match code {
            0 => Self::Known,
            1 => Self::Applied,
            _ => Self::Whole,
        }
    }
}
