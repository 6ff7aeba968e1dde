//! What is looked at again and again: the sessions, the end of the log, the cuts on record, idle connections.

use std::{sync::Arc, time::Duration};

use streams::Partition;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    http::services::Services, hub::Hub, session::settings::Intervals, socket::sweep::Sweep, submit::Commands,
};

/// How often the tail is held against the end of the log.
const LOG_INTERVAL: Duration = Duration::from_secs(2);

/// Looks after the sessions.
pub(super) async fn sessions(hub: Arc<Hub>, commands: Arc<Commands>, intervals: Intervals) {
    let metrics = hub.metrics.clone();
    let mut sweep = Sweep::new(hub, intervals);
    let mut ticks = interval(intervals.tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        sweep.tick();
        metrics.append_retries.set(commands.append_retries());
    }
}

/// Holds the tail against the end of the log, watches the log's guard, learns of cuts, and closes the connections to the
/// database that nobody needs.
pub(super) async fn log(hub: Arc<Hub>, http: Arc<Services>) {
    let mut ticks = interval(LOG_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // An unreachable log shows elsewhere: in readiness, and in the appends.
        if let Ok(bounds) = http.nats.bounds(Partition::FIRST).await {
            hub.expect(bounds.last);
            http.sockets.epochs.set_first(bounds.first);
            http.commands.set_full(bounds.is_nearly_full());
        }
        // An unreachable database shows in readiness. A cut that this gateway's own tail finds is looked up at once.
        drop(http.sockets.epochs.learn().await);
        http.db.close_idle();
    }
}
