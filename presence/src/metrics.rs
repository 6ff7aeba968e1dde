//! The service's metrics.

use prometheus_client::{metrics::counter::Counter, registry::Registry};

/// Cheap to clone: all counters are shared.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub reports_total: Counter,
    pub gaps_total: Counter,
    pub swept_total: Counter,
    pub announced_total: Counter,
    pub marks_total: Counter,
    pub receipts_total: Counter,
}

impl Metrics {
    /// Registers all in `registry`. Names stand without `_total`, which the encoder appends.
    pub fn new(registry: &mut Registry) -> Self {
        Self {
            reports_total: counter(registry, "presence_reports", "Reports of gateways"),
            gaps_total: counter(registry, "presence_report_gaps", "Reports that were missing"),
            swept_total: counter(registry, "presence_swept", "Sessions and gateways taken off for silence"),
            announced_total: counter(registry, "presence_announced", "Changes of users announced"),
            marks_total: counter(
                registry,
                "presence_marks",
                "Read and delivered marks taken from the stream",
            ),
            receipts_total: counter(registry, "presence_receipts", "Receipts announced"),
        }
    }
}

/// Makes a counter and registers it.
fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}
