//! Ends token families: in Postgres, in this gateway, and by signal in all others.

use std::{sync::Arc, time::Duration};

use shared::id::UserId;
use streams::signal::{self, Signal};
use tokio::time::timeout;
use uuid::Uuid;

use super::revocation::{self, Copy, Revoked, Source};
use crate::{app::App, clock::unix_ms};

/// Postgres that does not answer must not keep Redis from being asked.
const READ_WITHIN: Duration = Duration::from_millis(500);

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
