//! The periodic work of a gateway: it sweeps the sessions, compares its tail with the end of the log, learns of cuts
//! and of the costs of password hashes, and closes idle connections to the database.

use std::{sync::Arc, time::Duration};

use streams::Partition;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    auth::Auth,
    http::services::Services,
    hub::Hub,
    session::settings::Intervals,
    socket::{self, sweep::Sweep},
};

/// How often the tail is compared with the end of the log.
const LOG_INTERVAL: Duration = Duration::from_secs(2);

/// How often the costs of the accounts' hashes are counted. They change at logins, one by one.
const COSTS_INTERVAL: Duration = Duration::from_secs(60);

/// Counts the costs of the accounts' hashes, so that unknown accounts take the same times at a login.
pub(super) async fn password_costs(auth: Arc<Auth>, db: sql::Db) {
    let mut ticks = interval(COSTS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // While the database is away nobody logs in, and the costs stay as they were.
        if let Ok(costs) = db.password_costs().await {
            auth.passwords.follow_costs(costs);
        }
    }
}

/// Sweeps the sessions at each tick, and counts what they hold.
pub(super) async fn sessions(http: Arc<Services>, intervals: Intervals) {
    let metrics = http.hub.metrics.clone();
    let mut sweep = Sweep::new(http.hub.clone(), http.sockets.pages.clone(), intervals);
    let mut ticks = interval(intervals.tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        sweep.tick();
        metrics.append_retries.set(http.commands.append_retries());
        metrics.session_tasks.set(http.sockets.tracker.len() as i64);
        metrics.session_entries.set(http.sockets.presence.entries() as i64);
    }
}

/// Renews the places of sessions at each tick.
pub(super) async fn seats(sockets: Arc<socket::Services>, intervals: Intervals) {
    let mut ticks = interval(intervals.tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        sockets.seats.renew().await;
    }
}

/// Compares the tail with the end of the log, reads the log's clock, notes whether the log is nearly full, learns of cuts, and closes
/// connections to the database that are idle.
pub(super) async fn log(hub: Arc<Hub>, http: Arc<Services>) {
    let mut ticks = interval(LOG_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stored = true;
    loop {
        ticks.tick().await;
        // If the log can't be asked, readiness and the appends show it.
        let asked_ms = hub.clock.now_ms();
        if let Ok(bounds) = http.nats.bounds(Partition::FIRST).await {
            http.sockets.epochs.set_first(bounds.first);
            http.commands.note_log(&bounds, asked_ms);
        }
        // The callers of overdue appends may have given up, and an unready gateway gets no new ones. So it appends by
        // itself, to learn when the log takes writes again.
        http.commands.prove_append().await;
        let stores = http.commands.is_answered();
        hub.metrics.log_stores.set(stores.into());
        if stores != std::mem::replace(&mut stored, stores) {
            tell_of_appends(stores, hub.is_proven());
        }
        // If the database can't be asked, readiness shows it. A cut that this gateway's own tail finds is looked up at
        // once, so this poll is for the cuts that other readers of the log found.
        drop(http.sockets.epochs.learn().await);
        http.db.close_idle();
    }
}

/// Tells the operator that the log has ceased to answer appends, or answers them again.
fn tell_of_appends(stores: bool, is_heard: bool) {
    match (stores, is_heard) {
        (true, _) => tracing::info!("the log answers appends again"),
        // A server whose write failed once refuses all later ones, until it is started anew.
        (false, true) => tracing::error!(
            "the log's server answers and stores nothing: its disk may be full; free space, then restart it"
        ),
        (false, false) => tracing::error!("the log answers no appends"),
    }
}
