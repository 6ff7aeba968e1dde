//! What the projector counts.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// The metrics of one projector; those of all its partitions together.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub events: Counter,
    pub batches: Counter,
    pub refused: Counter,
    pub duplicates: Counter,
    pub dead_letters: Counter,
    pub epoch_bumps: Counter,
    pub tail_recreations: Counter,
    pub checkpoint_seq: Gauge<u64, AtomicU64>,
    pub lag_events: Gauge<u64, AtomicU64>,
    pub lag_seconds: Gauge<f64, AtomicU64>,
    /// Partitions that this process projects.
    pub active: Gauge<i64, AtomicI64>,
    /// Partitions that stand still until somebody helps.
    pub stopped: Gauge<i64, AtomicI64>,
    pub batch_seconds: Histogram,
}

impl Metrics {
    pub fn new(registry: &mut Registry) -> Self {
        // From a millisecond, which an almost empty batch takes, doubling to some seconds.
        let buckets = prometheus_client::metrics::histogram::exponential_buckets(0.001, 2.0, 13);
        let metrics = Self {
            events: Counter::default(),
            batches: Counter::default(),
            refused: Counter::default(),
            duplicates: Counter::default(),
            dead_letters: Counter::default(),
            epoch_bumps: Counter::default(),
            tail_recreations: Counter::default(),
            checkpoint_seq: Gauge::default(),
            lag_events: Gauge::default(),
            lag_seconds: Gauge::default(),
            active: Gauge::default(),
            stopped: Gauge::default(),
            batch_seconds: Histogram::new(buckets),
        };
        let projector = registry.sub_registry_with_prefix("projector");
        projector.register("events", "Entries of the log that were folded", metrics.events.clone());
        projector.register("batches", "Transactions", metrics.batches.clone());
        projector.register("refused", "Commands that the fold refused", metrics.refused.clone());
        projector.register(
            "duplicate_batches",
            "Batches that held a command which was stored before",
            metrics.duplicates.clone(),
        );
        projector.register("dead_letters", "Entries that no decoder can read", metrics.dead_letters.clone());
        projector.register(
            "epoch_bumps",
            "Losses of the log's tail that were found here",
            metrics.epoch_bumps.clone(),
        );
        projector.register("tail_recreations", "Consumers after the first", metrics.tail_recreations.clone());
        projector.register("checkpoint_seq", "The last event folded", metrics.checkpoint_seq.clone());
        projector.register("lag_events", "Events of the log that are not folded", metrics.lag_events.clone());
        projector.register(
            "lag_seconds",
            "Age of the last event folded, while others wait",
            metrics.lag_seconds.clone(),
        );
        projector.register("active", "Partitions that this process projects", metrics.active.clone());
        projector.register(
            "stopped",
            "Partitions that stand still until somebody helps",
            metrics.stopped.clone(),
        );
        projector.register(
            "batch_seconds",
            "From the first entry of a batch to its commit",
            metrics.batch_seconds.clone(),
        );
        metrics
    }
}
