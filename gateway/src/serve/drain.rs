//! The end of a gateway: it becomes unready, tells its clients, answers commands in flight, and closes all sessions.
//!
//! The closes are spread over half of the grace period, so that the devices do not all reconnect elsewhere at once.
//! Invariant: a session is closed after its commands are answered, or at the end of the grace period.

use std::{sync::Arc, time::Duration};

use shared::frame;
use tokio_util::task::TaskTracker;

use crate::{
    hub::Hub,
    session::{Session, close::Close, wire},
};

/// Sessions are looked at this often for unanswered commands.
const POLL: Duration = Duration::from_millis(20);

/// Runs the whole drain; returns when every session is closed or the grace period is over.
pub(super) async fn run(hub: &Hub, tracker: &TaskTracker, drain_ms: u64) {
    hub.begin_drain();
    let grace = Duration::from_millis(drain_ms);
    let end = tokio::time::Instant::now() + grace;
    let sessions: Vec<Arc<Session>> = hub.sessions();
    tracing::info!(sessions = sessions.len(), grace_ms = grace.as_millis() as u64, "draining");
    let drain: frame::ServerFrame = frame::Drain { within_ms: drain_ms }.into();
    for session in &sessions {
        session.push_control(wire::encode(&drain, session.identity.encoding), hub.clock.now_ms());
    }
    // The other half of the grace period is for clients that are slow to answer the close.
    let step = grace / 2 / u32::try_from(sessions.len().max(1)).unwrap_or(u32::MAX);
    let start = tokio::time::Instant::now();
    for (index, session) in sessions.iter().enumerate() {
        tokio::time::sleep_until(start + step * u32::try_from(index).unwrap_or(u32::MAX)).await;
        close_answered(hub, session, end).await;
    }
    // Sessions that were attached while the drain went on: they were starting when it began.
    let late: Vec<Arc<Session>> = hub.sessions();
    for session in late {
        session.close(Close::Draining, hub.clock.now_ms());
    }
    tracker.close();
    if tokio::time::timeout_at(end, tracker.wait()).await.is_err() {
        tracing::warn!("the grace period is over; sessions are dropped");
    }
}

/// A reader that takes nothing for so long is not waited for: it would not get its answers, and the others wait for it.
const STALLED_MS: u64 = 1_000;

/// Closes a session once its commands are answered.
async fn close_answered(hub: &Hub, session: &Session, end: tokio::time::Instant) {
    let stalled = || {
        let since = session.outbox().stalled_since_ms();
        since.is_some_and(|since| hub.clock.now_ms().saturating_sub(since) > STALLED_MS)
    };
    while session.inflight() > 0 && !stalled() && tokio::time::Instant::now() + POLL < end {
        tokio::time::sleep(POLL).await;
    }
    session.close(Close::Draining, hub.clock.now_ms());
}
