//! Revocations: token families whose access tokens are refused before they expire.
//!
//! An access token is verified without asking anybody, and is valid for its whole life. So each gateway remembers the
//! families that were revoked within the longest such life. It learns of a revocation by a signal. Signals may be lost,
//! so it also reads Postgres every half second, or the copy in Redis while Postgres is away. Invariant: a family that
//! was noted is refused until none of its access tokens can be valid any more.

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

/// Each reading goes back this much further than the reading before it reached: the clocks of gateways differ, and a
/// transaction becomes visible some time after its timestamp.
const OVERLAP_MS: u64 = 10_000;

/// A family and when it was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// `None` if it was read from Postgres, which does not say; the sockets are then found by the family.
    pub user: Option<UserId>,
    pub family: Uuid,
    /// Unix ms.
    pub ts: u64,
}

/// Called for each family when this gateway learns that it was revoked, to close its sockets.
pub type OnRevoked = Box<dyn Fn(Option<UserId>, Uuid) + Send + Sync>;

/// The revoked families that this gateway knows. All requests share them; the lock is held for nanoseconds.
pub struct Revocations {
    /// When each family may be forgotten, Unix ms.
    known: RwLock<HashMap<Uuid, u64>>,
    remember: Duration,
    on_revoked: OnRevoked,
    /// Whether the revocations from before this gateway's start have been read.
    primed: AtomicBool,
}

impl Revocations {
    /// `longest_token` is the longest life of an access token.
    pub fn new(longest_token: Duration, on_revoked: OnRevoked) -> Self {
        // A little longer, since the clock of the gateway that issued a token may run ahead of this one.
        let remember = longest_token + Duration::from_millis(OVERLAP_MS);
        Self { known: RwLock::default(), remember, on_revoked, primed: AtomicBool::new(false) }
    }

    /// Whether the gateway knows the revocations from before its start. Until then it is not ready.
    pub fn is_primed(&self) -> bool {
        self.primed.load(Ordering::Acquire)
    }

    pub fn is_revoked(&self, family: Uuid) -> bool {
        self.known.read().contains_key(&family)
    }

    /// Remembers a revocation. If it is new here, the family's sockets are closed.
    pub fn note(&self, revoked: &Revoked) {
        let until = revoked.ts.saturating_add(self.remember.as_millis() as u64);
        let new = until > unix_ms() && self.known.write().insert(revoked.family, until).is_none();
        if new {
            (self.on_revoked)(revoked.user, revoked.family);
        }
    }

    /// Revocations before this time don't matter any more, Unix ms.
    fn horizon(&self) -> u64 {
        unix_ms().saturating_sub(self.remember.as_millis() as u64)
    }

    fn forget(&self) {
        let now = unix_ms();
        self.known.write().retain(|_, until| *until > now);
    }
}

/// Where revocations are read from.
pub trait Source: Send + Sync {
    /// The revocations since `since` (Unix ms), or `None` if they can't be read now.
    fn since(&self, since: u64) -> impl Future<Output = Option<Vec<Revoked>>> + Send;
}

/// Reads revocations for ever, once in `every`. Each reading asks only for those that are newer than the last reading.
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

/// The copy of revocations in Redis: a set sorted by time.
#[derive(Clone)]
pub struct RedisCopy {
    redis: Redis,
    remember_ms: u64,
}

impl RedisCopy {
    pub fn new(redis: Redis, longest_token: Duration) -> Self {
        Self { redis, remember_ms: longest_token.as_millis() as u64 + OVERLAP_MS }
    }

    /// Adds a revocation, and removes those that don't matter any more. A logout succeeds even if Redis is away.
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

    /// The revocations since `since`, or `None` while Redis is away.
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
