//! The end of token families: in Postgres, in this gateway, and by a signal in all other gateways.
//!
//! Invariant: every gateway refuses a family within one interval of the poll after it was revoked in Postgres, even if
//! the signal was lost.

use std::{sync::Arc, time::Duration};

use shared::id::UserId;
use sql::tokens::RevokedFamily;
use streams::{
    Nats,
    signal::{self, Signal},
};
use tokio::time::{MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use super::revocation::{self, LONGEST_ACCESS_TTL_S, OVERLAP_MS, RedisCopy, Revocations, Revoked, Source};
use crate::infra::{clock::unix_ms, redis::Redis};

/// After this time without an answer of Postgres, Redis is asked instead.
const READ_WITHIN: Duration = Duration::from_millis(500);
/// How often ended families are looked for. The scan takes some hundred milliseconds among a million families.
const TIDY_INTERVAL: Duration = Duration::from_secs(3_600);
/// Families that one statement deletes. Each has up to a few hundred used tokens.
const TIDY_BATCH: u32 = 500;
/// How long an ended family is kept: as long as its last access token can live.
const KEPT_MS: u64 = LONGEST_ACCESS_TTL_S * 1_000;

/// Ends token families and learns which have ended.
pub struct Families {
    db: sql::Db,
    nats: Nats,
    copy: RedisCopy,
    revocations: Arc<Revocations>,
}

impl Families {
    pub fn new(db: sql::Db, nats: Nats, redis: Redis, revocations: Arc<Revocations>) -> Self {
        Self { db, nats, copy: RedisCopy::new(redis), revocations }
    }

    /// Revokes a family of the user and tells all gateways. `false` if the user has no such family, or it has ended.
    ///
    /// # Errors
    /// Those of Postgres.
    pub async fn end(&self, user: UserId, family: Uuid) -> Result<bool, sql::Error> {
        let ended = self.db.revoke_family(user, family, unix_ms()).await?;
        if let Some(family) = &ended {
            self.announce(family).await;
        }
        Ok(ended.is_some())
    }

    /// Tells all gateways of a family that is already revoked in Postgres.
    pub async fn announce(&self, family: &RevokedFamily) {
        let RevokedFamily { did, user, access_until_ms: until_ms } = *family;
        let revoked = Revoked::new(Some(user), did, unix_ms(), until_ms);
        self.revocations.note(&revoked);
        if let Err(error) = self.nats.signal(&Signal::Revoked(signal::Revoked { user, did, until_ms })) {
            tracing::debug!(%error, "a revocation was not signalled; the others will read it");
        }
        self.copy.put(&revoked).await;
    }

    /// Reads the revocations from Postgres again and again, since a signal may be lost.
    pub async fn keep_reading(self: Arc<Self>, every: Duration) {
        let revocations = self.revocations.clone();
        revocation::keep_reading(revocations, &*self, every).await;
    }

    /// Deletes families whose last refresh token expired long ago, now and then. Every gateway does this; a statement
    /// skips the rows that another gateway is deleting.
    pub async fn tidy(self: Arc<Self>) {
        let mut ticks = interval(TIDY_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let before = unix_ms().saturating_sub(KEPT_MS);
            // If Postgres fails, the next tick deletes the rest.
            while self
                .db
                .forget_families(before, TIDY_BATCH)
                .await
                .is_ok_and(|gone| gone == u64::from(TIDY_BATCH))
            {}
        }
    }
}

/// Reads revocations from Postgres, or from the copy in Redis while Postgres is away.
impl Source for &Families {
    async fn since(&self, since: u64) -> Option<Vec<Revoked>> {
        let now = unix_ms();
        match timeout(READ_WITHIN, self.db.revoked_since(since, now.saturating_sub(OVERLAP_MS))).await {
            Ok(Ok(families)) => {
                let revoked =
                    |it: RevokedFamily| Revoked::new(Some(it.user), it.did, now, it.access_until_ms);
                Some(families.into_iter().map(revoked).collect())
            }
            Ok(Err(_)) | Err(_) => self.copy.since(since).await,
        }
    }
}
