//! Receives the signals that concern the gateway itself: how far the projector is, which logins have ended, whether
//! the log was cut. (Presence receives its own.)
//!
//! Signals may be lost. Whatever they tell is found by a poll as well, only later.

use std::{sync::Arc, time::Duration};

use streams::signal::{Signal, SignalKind};

use crate::{auth::revocation::Revoked, http::services::Services, infra::clock::unix_ms};

const KINDS: [SignalKind; 3] = [SignalKind::Watermark, SignalKind::Revoked, SignalKind::EpochChanged];
/// How long to wait before a failed subscription is tried again.
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
                let revoked = Revoked::new(Some(revoked.user), revoked.did, unix_ms(), revoked.until_ms);
                http.auth.revocations.note(&revoked);
            }
            // The cut is on record before the signal is sent. If the database can't be asked now, the poll finds it.
            Signal::EpochChanged(_) => drop(http.sockets.epochs.learn().await),
            // Not subscribed to here.
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
