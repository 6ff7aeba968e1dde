//! The counts and latencies of a run.
//!
//! A latency counts from the intended time of the send, so that a stall counts for every send that it held up. Only
//! sends that were intended within the window count, so that the warm-up and the end of a run do not.

use std::ops::Range;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::latency::histogram;

/// One second of a run.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Seconds since the swarm began.
    pub at_s: f64,
    pub live: u32,
    pub sent: u64,
    pub acked: u64,
    pub delivered: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub ack_p99_ms: f64,
}

/// Frames and system calls.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub sent: u64,
    /// Messages that came to devices other than the sender's.
    pub delivered: u64,
    /// Messages that came back to their sender.
    pub echoes: u64,
    /// Durable events other than messages.
    pub events: u64,
    pub acks: u64,
    pub cursors: u64,
    pub receipts: u64,
    pub presence: u64,
    pub typing: u64,
    /// Events that came again in a replay because the cursor was older than what the device had.
    pub repeated: u64,
    pub temporary_errors: u64,
    pub connects: u64,
    pub refused_connects: u64,
    /// Connections that the server ended.
    pub closed: u64,
    pub lagged: u64,
    pub reads: u64,
    pub writes: u64,
    pub bytes_in: u64,
    pub signals_out: u64,
}

#[derive(Debug)]
pub struct Tally {
    pub counts: Counts,
    /// Live deliveries.
    pub delivery: Histogram<u64>,
    /// Deliveries that had to wait for a resume.
    pub replayed: Histogram<u64>,
    pub ack: Histogram<u64>,
    /// The time from the order to come back until `Live`.
    pub resume: Histogram<u64>,
    /// The delay of the generator itself.
    pub late: Histogram<u64>,
    pub rows: Vec<Row>,
    pub window: Range<u64>,
    second: Second,
}

#[derive(Debug)]
struct Second {
    delivery: Histogram<u64>,
    ack: Histogram<u64>,
    before: Counts,
}

impl Default for Tally {
    fn default() -> Self {
        let second = Second { delivery: histogram(), ack: histogram(), before: Counts::default() };
        Self {
            counts: Counts::default(),
            delivery: histogram(),
            replayed: histogram(),
            ack: histogram(),
            resume: histogram(),
            late: histogram(),
            rows: Vec::new(),
            window: 0..0,
            second,
        }
    }
}

fn us(since_ns: u64, now_ns: u64) -> u64 {
    now_ns.saturating_sub(since_ns) / 1_000
}

impl Tally {
    pub fn delivered(&mut self, intended_ns: u64, now_ns: u64, live: bool) {
        self.counts.delivered += 1;
        let us = us(intended_ns, now_ns);
        self.second.delivery.saturating_record(us);
        if self.window.contains(&intended_ns) {
            let histogram = if live { &mut self.delivery } else { &mut self.replayed };
            histogram.saturating_record(us);
        }
    }

    pub fn acked(&mut self, intended_ns: u64, now_ns: u64) {
        let us = us(intended_ns, now_ns);
        self.second.ack.saturating_record(us);
        if self.window.contains(&intended_ns) {
            self.ack.saturating_record(us);
        }
    }

    pub fn scheduled(&mut self, intended_ns: u64, now_ns: u64) {
        if self.window.contains(&intended_ns) {
            self.late.saturating_record(us(intended_ns, now_ns));
        }
    }

    /// Forgets the latencies, as before another step.
    pub fn start_over(&mut self) {
        for histogram in [&mut self.delivery, &mut self.replayed, &mut self.ack, &mut self.late] {
            histogram.clear();
        }
    }

    /// Ends a second.
    pub fn roll(&mut self, at_s: f64, live: u32) -> Row {
        let Second { delivery, ack, before } = &mut self.second;
        let ms =
            |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        let row = Row {
            at_s,
            live,
            sent: self.counts.sent - before.sent,
            acked: self.counts.acks - before.acks,
            delivered: self.counts.delivered - before.delivered,
            p50_ms: ms(delivery, 0.5),
            p99_ms: ms(delivery, 0.99),
            max_ms: ms(delivery, 1.0),
            ack_p99_ms: ms(ack, 0.99),
        };
        *before = self.counts;
        // A clear touches the whole histogram, so an empty one is left alone.
        for histogram in [delivery, ack] {
            if !histogram.is_empty() {
                histogram.clear();
            }
        }
        self.rows.push(row);
        row
    }
}
