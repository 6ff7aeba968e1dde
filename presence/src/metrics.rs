//! The service's metrics.

use prometheus_client::{metrics::counter::Counter, registry::Registry};

/// Cheap to clone: all counters are shared.
#[derive(Debug, Clone, Default)]
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
        let new = Self::default();
        let mut counter = |name, help, counter: &Counter| registry.register(name, help, counter.clone());
        counter("presence_reports", "Reports of gateways", &new.reports_total);
        counter("presence_report_gaps", "Reports that were missing", &new.gaps_total);
        counter("presence_swept", "Sessions and gateways taken off for silence", &new.swept_total);
        counter("presence_announced", "Changes of users announced", &new.announced_total);
        counter("presence_marks", "Read and delivered marks taken from the stream", &new.marks_total);
        counter("presence_receipts", "Receipts announced", &new.receipts_total);
        new
    }
}
