//! Revocations: token families whose access tokens are refused before they expire.
//!
//! An access token is verified without asking anybody, and is valid for its whole life. So each gateway remembers a
//! revoked family until its last access token has ended, which is on record with the family: how long this gateway's own
//! tokens live says nothing about those that others have issued, or this one before its settings changed. It learns of
//! a revocation by a signal. Signals may be lost, so it also reads Postgres every half second, or the copy in Redis while
//! Postgres is away. Invariant: a family that was noted is refused until none of its access tokens can be valid any
//! more.

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
pub(super) const OVERLAP_MS: u64 = 10_000;

/// The longest life of an access token, whoever issues it.
pub const LONGEST_TOKEN_S: u64 = 7 * 24 * 3_600;
/// Those that a gateway issues at logins and refreshes live no longer than this.
pub const LONGEST_ACCESS_TTL_S: u64 = 24 * 3_600;

/// A family and when it was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// `None` if it is not known; the sockets are then found by the family.
    pub user: Option<UserId>,
    pub family: Uuid,
    /// Unix ms.
    pub ts: u64,
    /// When its last access token ends, Unix ms.
    pub until: u64,
}

impl Revoked {
    /// `until` is when the family's last access token ends, if that is on record.
    pub fn new(user: Option<UserId>, family: Uuid, ts: u64, until: Option<u64>) -> Self {
        Self { user, family, ts, until: until.unwrap_or(ts.saturating_add(LONGEST_TOKEN_S * 1_000)) }
    }
}

/// Called for each family when this gateway learns that it was revoked, to close its sockets.
pub type OnRevoked = Box<dyn Fn(Option<UserId>, Uuid) + Send + Sync>;

/// The revoked families that this gateway knows. All requests share them; the lock is held for nanoseconds.
pub struct Revocations {
    /// When each family may be forgotten, Unix ms.
    known: RwLock<HashMap<Uuid, u64>>,
    on_revoked: OnRevoked,
    /// Whether the revocations from before this gateway's start have been read.
    primed: AtomicBool,
}

impl Revocations {
    pub fn new(on_revoked: OnRevoked) -> Self {
        Self { known: RwLock::default(), on_revoked, primed: AtomicBool::new(false) }
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
        // A little longer, since the clock of the gateway that issued a token may run ahead of this one.
        let until = revoked.until.saturating_add(OVERLAP_MS);
        if until > unix_ms() && self.known.write().insert(revoked.family, until).is_none() {
            (self.on_revoked)(revoked.user, revoked.family);
        }
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

/// Reads revocations for ever, once in `every`. The first reading asks for all of them, each further one only for those
/// that are newer than the last reading.
pub async fn keep_reading(revocations: Arc<Revocations>, source: impl Source, every: Duration) {
    let mut read_until = 0_u64;
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
}

impl RedisCopy {
    pub const fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// Adds a revocation, and removes those that don't matter any more. A logout succeeds even if Redis is away.
    pub async fn put(&self, revoked: &Revoked) {
        let Some(user) = revoked.user else { return };
        let key = self.redis.key("revoked");
        let member = format!("{}:{user}:{}", revoked.family, revoked.until);
        let too_old = revoked.ts.saturating_sub(LONGEST_TOKEN_S * 1_000 + OVERLAP_MS);
        let (score, too_old) = (revoked.ts as f64, too_old as f64);
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
    let mut parts = member.split(':');
    let (family, user) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok());
    let until = parts.next().and_then(|until| until.parse().ok());
    Some(Revoked::new(user, family, score as u64, until))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

    use parking_lot::Mutex;

    use super::*;

    /// Revoked then, with a token that lives for a quarter of an hour more.
    fn revoked(ts: u64) -> Revoked {
        Revoked::new(UserId::new(7).ok(), Uuid::new_v4(), ts, Some(ts + 900_000))
    }

    #[test]
    fn each_family_is_announced_once_and_old_ones_never() {
        let closed = Arc::new(Mutex::new(Vec::new()));
        let log = closed.clone();
        let revocations = Revocations::new(Box::new(move |_, family| log.lock().push(family)));
        let (now, old) = (revoked(unix_ms()), revoked(unix_ms() - 1_000_000));
        for it in [&now, &now, &old] {
            revocations.note(it);
        }
        assert!(revocations.is_revoked(now.family));
        assert!(!revocations.is_revoked(old.family), "its tokens have expired by themselves");
        assert_eq!(*closed.lock(), [now.family]);
    }

    #[test]
    fn a_revocation_lives_as_long_as_the_token_however_long_ago_it_was() {
        let revocations = Revocations::new(Box::new(|_, _| ()));
        let (now, day) = (unix_ms(), 24 * 3_600 * 1_000);
        let long = Revoked::new(None, Uuid::new_v4(), now - day, Some(now + day));
        let unknown = Revoked::new(None, Uuid::new_v4(), now - day, None);
        let over = Revoked::new(None, Uuid::new_v4(), now - 1_000, Some(now - OVERLAP_MS - 1));
        for it in [&long, &unknown, &over] {
            revocations.note(it);
        }
        revocations.forget();
        assert!(revocations.is_revoked(long.family) && revocations.is_revoked(unknown.family));
        assert!(!revocations.is_revoked(over.family));
    }

    #[test]
    fn the_copy_says_until_when() {
        let family = Uuid::new_v4();
        let user = UserId::new(7).ok();
        assert_eq!(parse(&format!("{family}:7:99"), 5.0), Some(Revoked::new(user, family, 5, Some(99))));
        assert_eq!(parse(&format!("{family}:7"), 5.0), Some(Revoked::new(user, family, 5, None)));
        assert_eq!(parse("x:7:99", 5.0), None);
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
        let revocations = Arc::new(Revocations::new(Box::new(|_, _| ())));
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
