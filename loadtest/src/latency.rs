//! Latencies: the time from the moment that a message was meant to be sent until its delivery or its ack.
//!
//! The intended time travels in the body of the message, so that every device of the run can tell it.

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

use crate::clock::now_ns;

/// Marks a body whose latency is measured: `t=<ns of the run's clock>;...`.
const MARK: &str = "t=";

/// A body that carries its intended send time.
pub fn body(intended_ns: u64, text: &str) -> String {
    format!("{MARK}{intended_ns};{text}")
}

fn intended_of(body: &str) -> Option<u64> {
    body.strip_prefix(MARK)?.split_once(';')?.0.parse().ok()
}

/// The latencies of all devices. They count from the intended send time, so that a stall counts for every message that
/// it held up.
#[derive(Debug)]
pub struct Latencies {
    delivery: Mutex<Histogram<u64>>,
    ack: Mutex<Histogram<u64>>,
}

/// Microseconds; three digits up to two minutes.
const HIGHEST_US: u64 = 120_000_000;

impl Default for Latencies {
    fn default() -> Self {
        Self { delivery: Mutex::new(histogram()), ack: Mutex::new(histogram()) }
    }
}

/// An empty histogram of microseconds.
#[expect(clippy::expect_used, reason = "the bounds are constants that hdrhistogram accepts")]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(HIGHEST_US, 3).expect("valid bounds")
}

/// One distribution, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub count: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Latencies {
    /// Records a delivery, if the body says when it was meant to be sent.
    pub fn delivered(&self, body: &str) {
        if let Some(intended_ns) = intended_of(body) {
            self.delivery.lock().saturating_record(elapsed_us(intended_ns));
        }
    }

    /// Records an ack.
    pub fn acked(&self, intended_ns: u64) {
        self.ack.lock().saturating_record(elapsed_us(intended_ns));
    }

    /// Forgets what was recorded so far, as after a warm-up.
    pub fn clear(&self) {
        self.delivery.lock().clear();
        self.ack.lock().clear();
    }

    pub fn delivery(&self) -> Summary {
        summary(&self.delivery.lock())
    }

    pub fn ack(&self) -> Summary {
        summary(&self.ack.lock())
    }
}

fn elapsed_us(since_ns: u64) -> u64 {
    now_ns().saturating_sub(since_ns) / 1_000
}

/// The summary of a histogram of microseconds.
pub fn summary(histogram: &Histogram<u64>) -> Summary {
    let ms = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
    Summary {
        count: histogram.len(),
        p50_ms: ms(0.5),
        p90_ms: ms(0.9),
        p99_ms: ms(0.99),
        p999_ms: ms(0.999),
        max_ms: histogram.max() as f64 / 1_000.0,
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, p50_ms, p90_ms, p99_ms, p999_ms, max_ms } = self;
        write!(
            f,
            "p50 {p50_ms:.2}  p90 {p90_ms:.2}  p99 {p99_ms:.2}  p99.9 {p999_ms:.2}  max {max_ms:.2} ms  ({count})"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_tells_when_it_was_meant_to_be_sent() {
        assert_eq!(intended_of(&body(17, "hello")), Some(17));
        for other in ["hello", "t=;", "t=x;y", "t=1"] {
            assert_eq!(intended_of(other), None, "{other}");
        }
    }
}
