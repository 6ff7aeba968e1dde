//! The checks of `/readyz`: NATS, Postgres, and whether a partition stands still.

use std::sync::Arc;

use otel::health::Health;
use sql::Db;
use streams::Nats;

use crate::metrics::Metrics;

/// The checks of a projector. A standby is ready: waiting for the lock is its work.
pub fn checks(nats: &Nats, db: &Db, metrics: &Metrics) -> Health {
    let (nats, db, metrics) = (Arc::new(nats.clone()), db.clone(), metrics.clone());
    Health::new()
        .check("nats", move || {
            let nats = nats.clone();
            async move { nats.ping().await }
        })
        .check("postgres", move || {
            let db = db.clone();
            async move { db.ping().await }
        })
        .check_now("projection", move || match metrics.stopped.get() {
            0 => Ok(()),
            count => Err(format!("{count} partitions stand still; the log tells why")),
        })
}
