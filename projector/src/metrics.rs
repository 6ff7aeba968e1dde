//! The metrics of a projector.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram, histogram::exponential_buckets},
    registry::{Metric, Registry},
};

/// The metrics of one projector; those of all its partitions together.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub events: Counter,
    pub batches: Counter,
    pub refused: Counter,
    pub duplicates: Counter,
    pub dead_letters: Counter,
    pub unbelievable_ids: Counter,
    pub epoch_bumps: Counter,
    pub tail_recreations: Counter,
    pub checkpoint_seq: Gauge<u64, AtomicU64>,
    pub lag_events: Gauge<u64, AtomicU64>,
    pub lag_seconds: Gauge<f64, AtomicU64>,
    pub active: Gauge<i64, AtomicI64>,
    pub stopped: Gauge<i64, AtomicI64>,
    pub batch_seconds: Histogram,
}

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        let to = registry.sub_registry_with_prefix("projector");
        // From a millisecond, which an almost empty batch takes, doubling to some seconds.
        let batch_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 13));
        Self {
            events: add(to, "events", "Entries of the log that were folded"),
            batches: add(to, "batches", "Transactions"),
            refused: add(to, "refused", "Commands that the fold refused"),
            duplicates: add(to, "duplicate_batches", "Batches that held a command which was stored before"),
            dead_letters: add(to, "dead_letters", "Entries that no decoder can read"),
            unbelievable_ids: add(
                to,
                "unbelievable_ids",
                "Chats of the log whose ids no gateway can have been given",
            ),
            epoch_bumps: add(to, "epoch_bumps", "Losses of the log's tail that were found here"),
            tail_recreations: add(to, "tail_recreations", "Consumers after the first"),
            checkpoint_seq: add(to, "checkpoint_seq", "The last event folded"),
            lag_events: add(to, "lag_events", "Events of the log that are not folded"),
            lag_seconds: add(to, "lag_seconds", "Age of the last event folded, while others wait"),
            active: add(to, "active", "Partitions that this process projects"),
            stopped: add(to, "stopped", "Partitions that stand still until somebody helps"),
            batch_seconds: register(
                to,
                "batch_seconds",
                "From the first entry of a batch to its commit",
                batch_seconds,
            ),
        }
    }
}

/// Makes a metric and registers it.
fn add<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    register(registry, name, help, M::default())
}

fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}
