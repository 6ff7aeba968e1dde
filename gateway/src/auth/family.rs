//! Token families, one per login on a device: how they end, in Postgres, in this gateway, and by signal in all others.
//!
//! Invariant: a family that has ended in Postgres is refused by every gateway within the interval of the poll, whatever
//! became of the signal.

use std::{sync::Arc, time::Duration};

use shared::id::UserId;
use streams::{
    Nats,
    signal::{self, Signal},
};
use tokio::time::{MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use super::revocation::{self, RedisCopy, Revocations, Revoked, Source};
use crate::infra::{clock::unix_ms, redis::Redis};

/// Postgres that does not answer must not keep Redis from being asked.
const READ_WITHIN: Duration = Duration::from_millis(500);
/// How often ended families are looked for: a scan of some hundred milliseconds where there are a million.
const TIDY_INTERVAL: Duration = Duration::from_secs(3_600);
/// Families that one statement forgets, each with a few hundred used tokens.
const TIDY_BATCH: u32 = 500;
/// How long an ended family is kept: the longest life that an access token of it can be given.
const KEPT_MS: u64 = 24 * 3_600 * 1_000;

/// Ends token families and learns which have ended.
pub struct Families {
    db: sql::Db,
    nats: Nats,
    copy: RedisCopy,
    revocations: Arc<Revocations>,
}

impl Families {
    /// `longest_token` is the longest life of an access token.
    pub fn new(
        db: sql::Db,
        nats: Nats,
        redis: Redis,
        revocations: Arc<Revocations>,
        longest_token: Duration,
    ) -> Self {
        Self { db, nats, copy: RedisCopy::new(redis, longest_token), revocations }
    }

    /// Revokes a family of the user; `false` if there is none that lives.
    ///
    /// # Errors
    /// Postgres'.
    pub async fn end(&self, user: UserId, family: Uuid) -> Result<bool, sql::Error> {
        let ended = self.db.revoke_family(user, family, unix_ms()).await?;
        if ended {
            self.announce(user, family).await;
        }
        Ok(ended)
    }

    /// Tells everybody of a family that is revoked in Postgres already.
    pub async fn announce(&self, user: UserId, family: Uuid) {
        let revoked = Revoked { user: Some(user), family, ts: unix_ms() };
        self.revocations.note(&revoked);
        if let Err(error) = self.nats.signal(&Signal::Revoked(signal::Revoked { user, did: family })) {
            tracing::debug!(%error, "a revocation was not signalled; the others will read it");
        }
        self.copy.put(&revoked).await;
    }

    /// Reads again for ever what a lost signal may have told.
    pub async fn keep_reading(self: Arc<Self>, every: Duration) {
        let revocations = self.revocations.clone();
        revocation::keep_reading(revocations, &*self, every).await;
    }

    /// Forgets, now and then, the logins whose last refresh token has ended. Every gateway does; they skip each other's.
    pub async fn tidy(self: Arc<Self>) {
        let mut ticks = interval(TIDY_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let before = unix_ms().saturating_sub(KEPT_MS);
            // When Postgres is away, the next tick forgets what is left.
            while self
                .db
                .forget_families(before, TIDY_BATCH)
                .await
                .is_ok_and(|gone| gone == u64::from(TIDY_BATCH))
            {}
        }
    }
}

/// Postgres, or the copy in Redis while it is away.
impl Source for &Families {
    async fn since(&self, since: u64) -> Option<Vec<Revoked>> {
        match timeout(READ_WITHIN, self.db.revoked_since(since)).await {
            Ok(Ok(families)) => {
                let revoked = |family| Revoked { user: None, family, ts: unix_ms() };
                Some(families.into_iter().map(revoked).collect())
            }
            Ok(Err(_)) | Err(_) => self.copy.since(since).await,
        }
    }
}
