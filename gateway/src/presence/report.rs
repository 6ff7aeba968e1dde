//! Reports this gateway's sessions to the presence service: each second those that came and went, and now and then a
//! snapshot of all.
//!
//! Reports are numbered. So presence notices when one was lost, and asks for a snapshot. An empty report is the
//! gateway's heartbeat. Invariant: a snapshot begins right after a report, so it includes all changes up to that report.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use streams::signal::{Connection, Connections, Signal, Snapshot};
use uuid::Uuid;

use super::Presence;
use crate::session::Session;

/// Connections in one signal: some 50 KB, a twentieth of what NATS takes.
const PER_SIGNAL: usize = 400;

/// What is still to be reported.
pub(super) struct Reporter {
    /// Names this process: a gateway that restarts gets another id.
    gateway: Uuid,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    next_report: u64,
    /// The last change of each session since the last report.
    changes: HashMap<Uuid, Change>,
    /// Sessions whose user does not look at the client, as the client says. They are few.
    away: HashSet<Uuid>,
    snapshot_wanted: bool,
    snapshot_at_ms: u64,
}

enum Change {
    Came(Arc<Session>),
    Went(Arc<Session>),
}

impl Default for Reporter {
    fn default() -> Self {
        let pending = Pending { snapshot_wanted: true, ..Pending::default() };
        Self { gateway: Uuid::new_v4(), pending: Mutex::new(pending) }
    }
}

impl Reporter {
    pub(super) fn came(&self, session: &Arc<Session>) {
        self.pending.lock().changes.insert(session.id, Change::Came(session.clone()));
    }

    pub(super) fn went(&self, session: &Arc<Session>) {
        let mut pending = self.pending.lock();
        pending.away.remove(&session.id);
        pending.changes.insert(session.id, Change::Went(session.clone()));
    }

    pub(super) fn set_away(&self, session: &Arc<Session>, away: bool) {
        let mut pending = self.pending.lock();
        let changed = if away { pending.away.insert(session.id) } else { pending.away.remove(&session.id) };
        if changed {
            pending.changes.insert(session.id, Change::Came(session.clone()));
        }
    }

    /// How many sessions are away.
    pub(super) fn away(&self) -> usize {
        self.pending.lock().away.len()
    }

    /// Presence asks for a snapshot: of this gateway, or of all if none is named.
    pub(super) fn want_snapshot(&self, gateway: Option<Uuid>) {
        if gateway.is_none_or(|gateway| gateway == self.gateway) {
            self.pending.lock().snapshot_wanted = true;
        }
    }

    /// Sends the changes since the last report, in as many signals as they need; at least one.
    pub(super) fn report(&self, presence: &Presence) {
        let mut pending = self.pending.lock();
        loop {
            let part: Vec<Uuid> = pending.changes.keys().take(PER_SIGNAL).copied().collect();
            let signal = Signal::Connections(pending.connections(self.gateway, &part));
            if !presence.signal(&signal) {
                // The changes are kept for the next report.
                return;
            }
            pending.next_report += 1;
            for session in part {
                pending.changes.remove(&session);
            }
            if pending.changes.is_empty() {
                pending.changes = HashMap::new();
                return;
            }
        }
    }

    /// Whether a snapshot must be sent now. The next one is then due after the interval.
    pub(super) fn snapshot_is_due(&self, presence: &Presence) -> bool {
        let mut pending = self.pending.lock();
        let now_ms = presence.clock.now_ms();
        let due = pending.snapshot_wanted || now_ms >= pending.snapshot_at_ms;
        if due {
            pending.snapshot_wanted = false;
            pending.snapshot_at_ms = now_ms + presence.settings.presence_snapshot_ms;
        }
        // A snapshot names the last report that it includes, so the first report must come before it.
        due && pending.next_report > 0
    }
}

impl Pending {
    fn connections(&self, gateway: Uuid, part: &[Uuid]) -> Connections {
        let mut report =
            Connections { gateway, report: self.next_report, came: Vec::new(), went: Vec::new() };
        for change in part.iter().filter_map(|session| self.changes.get(session)) {
            match change {
                Change::Came(session) => report.came.push(self.connection(session)),
                Change::Went(session) => report.went.push(self.connection(session)),
            }
        }
        report
    }

    fn connection(&self, session: &Session) -> Connection {
        Connection {
            user: session.user(),
            session: session.id,
            device: session.identity.device.to_string(),
            since_ms: since_ms(session.id),
            away: self.away.contains(&session.id),
        }
    }
}

/// When the session began, which its id, a uuid v7, holds.
fn since_ms(session: Uuid) -> u64 {
    let (seconds, nanos) = session.get_timestamp().map_or((0, 0), |at| at.to_unix());
    seconds * 1_000 + u64::from(nanos) / 1_000_000
}

/// Sends all sessions, in parts.
pub(super) async fn snapshot(presence: &Presence) {
    let sessions: Vec<Arc<Session>> = presence.hub.sessions();
    let reporter = &presence.reporter;
    let report = reporter.pending.lock().next_report.saturating_sub(1);
    let parts = sessions.chunks(PER_SIGNAL).len().max(1);
    for part in 0..parts {
        let signal = {
            let pending = reporter.pending.lock();
            let chunk = sessions.chunks(PER_SIGNAL).nth(part).unwrap_or_default();
            Signal::Snapshot(Snapshot {
                gateway: reporter.gateway,
                report,
                part: u32::try_from(part).unwrap_or(u32::MAX),
                parts: u32::try_from(parts).unwrap_or(u32::MAX),
                connections: chunk.iter().map(|session| pending.connection(session)).collect(),
            })
        };
        if !presence.signal(&signal) {
            reporter.pending.lock().snapshot_wanted = true;
            return;
        }
        tokio::task::yield_now().await;
    }
}
