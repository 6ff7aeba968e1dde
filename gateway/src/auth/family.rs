//! Ends token families: in Postgres, in this gateway, and by signal in all others; forgets those that ended long ago.

use std::{sync::Arc, time::Duration};

use shared::id::UserId;
use streams::signal::{self, Signal};
use tokio::time::{MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use super::revocation::{self, Copy, Revoked, Source};
use crate::{app::App, clock::unix_ms};

/// Postgres that does not answer must not keep Redis from being asked.
const READ_WITHIN: Duration = Duration::from_millis(500);
/// How often ended families are looked for: a scan of some hundred milliseconds where there are a million.
const TIDY_INTERVAL: Duration = Duration::from_secs(3_600);
/// Families that one statement forgets, each with a few hundred used tokens.
const TIDY_BATCH: u32 = 500;
/// How long an ended family is kept: the longest life that an access token of it can be given.
const KEPT_MS: u64 = 24 * 3_600 * 1_000;

/// Revokes a family of the user; `false` if there is none that lives.
///
/// # Errors
/// Postgres'.
pub async fn end(app: &App, user: UserId, did: Uuid) -> Result<bool, sql::Error> {
    let now = unix_ms();
    let ended = app.db.revoke_family(user, did, now).await?;
    if ended {
        announce(app, user, did).await;
    }
    Ok(ended)
}

/// Tells everybody of a family that is revoked in Postgres already.
pub async fn announce(app: &App, user: UserId, did: Uuid) {
    let revoked = Revoked { user: Some(user), did, ts: unix_ms() };
    app.revocations.note(&revoked);
    if let Err(error) = app.nats.signal(&Signal::Revoked(signal::Revoked { user, did })) {
        tracing::debug!(%error, "a revocation was not signalled; the others will read it");
    }
    copy(app).put(&revoked).await;
}

/// Reads again for ever what the signals, which [`crate::presence`] receives, may have missed.
pub async fn run(app: Arc<App>) {
    let every = Duration::from_millis(app.settings.auth.revocation_poll_ms);
    revocation::keep_reading(app.revocations.clone(), Stored(app.clone()), every).await;
}

/// Forgets, now and then, the logins whose last refresh token has ended. Every gateway does; they skip each other's.
pub async fn tidy(app: Arc<App>) {
    let mut ticks = interval(TIDY_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let before = unix_ms().saturating_sub(KEPT_MS);
        // The next time comes for what is left when Postgres is away.
        while app.db.forget_families(before, TIDY_BATCH).await.is_ok_and(|gone| gone == u64::from(TIDY_BATCH))
        {
        }
    }
}

fn copy(app: &App) -> Copy {
    Copy::new(app.redis.clone(), Duration::from_secs(app.tokens.ttl_s()))
}

/// Postgres, or the copy in Redis while it is away.
struct Stored(Arc<App>);

impl Source for Stored {
    async fn since(&self, since: u64) -> Option<Vec<Revoked>> {
        match timeout(READ_WITHIN, self.0.db.revoked_since(since)).await {
            Ok(Ok(dids)) => Some(dids.into_iter().map(|did| self.revoked(did)).collect()),
            Ok(Err(_)) | Err(_) => copy(&self.0).since(since).await,
        }
    }
}

impl Stored {
    /// The user matters only to close sockets: it is looked up in the sessions of this gateway.
    fn revoked(&self, did: Uuid) -> Revoked {
        let known = self.0.revocations.is_revoked(did);
        let state = (!known).then(|| self.0.hub.lock());
        let user = state.and_then(|state| {
            let session = state.sessions().find(|session| session.identity.did == did);
            session.map(|session| session.identity.user)
        });
        Revoked { user, did, ts: unix_ms() }
    }
}
