//! The signals that concern no session's screen: how far the projector is, which logins have ended, whether the log was
//! cut.
//!
//! Signals may be lost: each of these is found by a poll as well, only later.

use std::{sync::Arc, time::Duration};

use shared::id::UserId;
use streams::signal::{Signal, SignalKind};

use crate::{auth::revocation::Revoked, http::services::Services, infra::clock::unix_ms};

const KINDS: [SignalKind; 3] = [SignalKind::Watermark, SignalKind::Revoked, SignalKind::EpochChanged];
/// Before a subscription that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Receives signals for ever.
pub(super) async fn receive(http: Arc<Services>) {
    let mut signals = loop {
        match http.nats.signals(&KINDS).await {
            Ok(signals) => break signals,
            Err(error) => {
                tracing::warn!(%error, "can't subscribe to signals");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    loop {
        match signals.next().await {
            Signal::Watermark(watermark) => http.reads.hint(watermark.position.seq),
            Signal::Revoked(revoked) => {
                let user: Option<UserId> = Some(revoked.user);
                let revoked = Revoked { user, family: revoked.did, ts: unix_ms() };
                http.auth.revocations.note(&revoked);
            }
            // Whoever declared the cut has recorded it already. Without the database the poll finds it later.
            Signal::EpochChanged(_) => drop(http.sockets.epochs.learn().await),
            // Not among the kinds that were subscribed to.
            Signal::Presence(_)
            | Signal::Typing(_)
            | Signal::Receipts(_)
            | Signal::SnapshotWanted(_)
            | Signal::ProjectionWanted(_)
            | Signal::Connections(_)
            | Signal::Snapshot(_) => {}
        }
    }
}
