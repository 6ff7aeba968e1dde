//! Revocations: token families whose access tokens are refused before they expire.
//!
//! An access token proves itself for its whole life, so each gateway remembers the families that were revoked
//! within the longest such life. It learns of them by a signal, at once, and reads Postgres again every half
//! second, for signals may be lost; while Postgres is away it reads the copy in Redis. Invariant: what was noted
//! once is refused until no token of it can be alive.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fred::interfaces::SortedSetsInterface;
use parking_lot::RwLock;
use shared::id::UserId;
use uuid::Uuid;

use crate::infra::{clock::unix_ms, redis::Redis};

/// What the readers add to the age that they ask for: clocks of gateways differ, and a transaction takes time.
const OVERLAP_MS: u64 = 10_000;

/// A family and when it was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// `None`: Postgres does not say, and whoever closes sockets looks for it.
    pub user: Option<UserId>,
    pub family: Uuid,
    /// Unix ms.
    pub ts: u64,
}

/// Called for each family when this gateway learns that it was revoked, to close its sockets.
pub type OnRevoked = Box<dyn Fn(Option<UserId>, Uuid) + Send + Sync>;

/// The revoked families that this gateway knows of. Shared by all requests; locked for nanoseconds.
pub struct Revocations {
    /// Family → when it may be forgotten, Unix ms.
    known: RwLock<HashMap<Uuid, u64>>,
    remember: Duration,
    on_revoked: OnRevoked,
    /// What was revoked before this gateway started has been read.
    primed: AtomicBool,
}

impl Revocations {
    /// `longest_token` is the longest life of an access token.
    pub fn new(longest_token: Duration, on_revoked: OnRevoked) -> Self {
        // A little longer, so that no clock that runs behind lets a token slip through.
        let remember = longest_token + Duration::from_millis(OVERLAP_MS);
        Self { known: RwLock::default(), remember, on_revoked, primed: AtomicBool::new(false) }
    }

    /// Whether the gateway knows what was revoked before it started: until then it is not ready.
    pub fn is_primed(&self) -> bool {
        self.primed.load(Ordering::Acquire)
    }

    pub fn is_revoked(&self, family: Uuid) -> bool {
        self.known.read().contains_key(&family)
    }

    /// Takes note; the sockets of a family that was not known are closed.
    pub fn note(&self, revoked: &Revoked) {
        let until = revoked.ts.saturating_add(self.remember.as_millis() as u64);
        let new = until > unix_ms() && self.known.write().insert(revoked.family, until).is_none();
        if new {
            (self.on_revoked)(revoked.user, revoked.family);
        }
    }

    /// From when on revocations matter, Unix ms.
    pub fn horizon(&self) -> u64 {
        unix_ms().saturating_sub(self.remember.as_millis() as u64)
    }

    fn forget(&self) {
        let now = unix_ms();
        self.known.write().retain(|_, until| *until > now);
    }
}

/// Where a gateway reads revocations again.
pub trait Source: Send + Sync {
    /// Those since `since` (Unix ms), or `None` if it cannot say.
    fn since(&self, since: u64) -> impl Future<Output = Option<Vec<Revoked>>> + Send;
}

/// Reads revocations again and again, for ever. Each reading asks only for what is newer than the one before.
pub async fn keep_reading(revocations: Arc<Revocations>, source: impl Source, every: Duration) {
    let mut read_until = revocations.horizon();
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = unix_ms();
        let Some(found) = source.since(read_until.saturating_sub(OVERLAP_MS)).await else { continue };
        for revoked in &found {
            revocations.note(revoked);
        }
        read_until = now;
        revocations.primed.store(true, Ordering::Release);
        revocations.forget();
    }
}

/// The copy in Redis: a sorted set by time.
#[derive(Clone)]
pub struct RedisCopy {
    redis: Redis,
    remember_ms: u64,
}

impl RedisCopy {
    pub fn new(redis: Redis, longest_token: Duration) -> Self {
        Self { redis, remember_ms: longest_token.as_millis() as u64 + OVERLAP_MS }
    }

    /// Writes one down, and drops those too old to matter. A Redis that is away does not hinder a logout.
    pub async fn put(&self, revoked: &Revoked) {
        let Some(user) = revoked.user else { return };
        let (key, member) = (self.redis.key("revoked"), format!("{}:{user}", revoked.family));
        let (score, too_old) = (revoked.ts as f64, revoked.ts.saturating_sub(self.remember_ms) as f64);
        let written = self.redis.run(async |client| {
            client.zadd::<(), _, _>(&key, None, None, false, false, (score, member)).await?;
            client.zremrangebyscore::<(), _, _, _>(&key, 0.0, too_old).await
        });
        if written.await.is_err() {
            tracing::debug!("a revocation was not copied to redis");
        }
    }

    /// Those since `since`, or `None` while Redis is away.
    pub async fn since(&self, since: u64) -> Option<Vec<Revoked>> {
        let key = self.redis.key("revoked");
        let range = self.redis.run(async |client| {
            client.zrangebyscore::<Vec<(String, f64)>, _, _, _>(key, since as f64, "+inf", true, None).await
        });
        let rows = range.await.ok()?;
        Some(rows.iter().filter_map(|(member, score)| parse(member, *score)).collect())
    }
}

fn parse(member: &str, score: f64) -> Option<Revoked> {
    let (family, user) = member.split_once(':')?;
    Some(Revoked { family: family.parse().ok()?, user: user.parse().ok(), ts: score as u64 })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

    use parking_lot::Mutex;

    use super::*;

    fn revoked(ts: u64) -> Revoked {
        Revoked { user: UserId::new(7).ok(), family: Uuid::new_v4(), ts }
    }

    #[test]
    fn each_family_is_announced_once_and_old_ones_never() {
        let closed = Arc::new(Mutex::new(Vec::new()));
        let log = closed.clone();
        let revocations =
            Revocations::new(Duration::from_secs(900), Box::new(move |_, family| log.lock().push(family)));
        let (now, old) = (revoked(unix_ms()), revoked(unix_ms() - 1_000_000));
        for it in [&now, &now, &old] {
            revocations.note(it);
        }
        assert!(revocations.is_revoked(now.family));
        assert!(!revocations.is_revoked(old.family), "its tokens have expired by themselves");
        assert_eq!(*closed.lock(), [now.family]);
    }

    #[tokio::test]
    async fn what_no_signal_told_is_read() {
        struct Fake(Arc<Mutex<Vec<Revoked>>>);
        impl Source for Fake {
            async fn since(&self, since: u64) -> Option<Vec<Revoked>> {
                Some(self.0.lock().iter().filter(|it| it.ts >= since).copied().collect())
            }
        }
        let rows = Arc::new(Mutex::new(Vec::new()));
        let revocations = Arc::new(Revocations::new(Duration::from_secs(900), Box::new(|_, _| ())));
        let reading =
            tokio::spawn(keep_reading(revocations.clone(), Fake(rows.clone()), Duration::from_millis(20)));
        let late = revoked(unix_ms());
        rows.lock().push(late);
        let noted = async {
            while !revocations.is_revoked(late.family) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(5), noted).await.is_ok());
        reading.abort();
    }
}
