//! The gateway's metrics. The names are a promise: dashboards and alerts use them.
//!
//! Invariant: each metric is named once, where it is made, and is registered there. A counter is named without the
//! `_total` at its end, which the encoder adds.

pub mod http;

use std::{
    sync::atomic::AtomicU64,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric, Registry},
};

use self::http::HttpMetrics;

/// One label and its value.
pub type Labels = Vec<(&'static str, &'static str)>;
pub type Counters = Family<Labels, Counter>;

/// The metrics of one gateway. Cloning a metric gives another handle on the same value.
#[derive(Debug)]
pub struct Metrics {
    pub http: HttpMetrics,
    pub sent_total: Counter,
    pub delivered_total: Counter,
    pub delivery_seconds: Histogram,
    pub connections: Gauge,
    pub sessions_attached: Gauge,
    pub session_tasks: Gauge,
    pub session_entries: Gauge,
    pub place_fallbacks: Counter,
    pub refused_total: Counters,
    pub closed_total: Counters,
    pub lagging_total: Counter,
    pub refused_steps: Counter,
    /// See [`crate::hub::judge`].
    pub doubtful_total: Counter,
    pub dropped_ephemeral_total: Counter,
    pub queued_bytes: Gauge,
    pub choked_total: Counter,
    pub replay_total: Counters,
    pub append_retries: Gauge,
    pub looked_up_total: Counters,
    pub clock_skew: Gauge<f64, AtomicU64>,
    /// The log's bytes as a share of its bound; 0: it has none.
    pub log_fill: Gauge<f64, AtomicU64>,
    /// 1: appends are answered.
    pub log_stores: Gauge,
    pub tail_recreations: Gauge,
    pub tail_position: Gauge,
    pub epoch: Gauge,
    pub epoch_bumps: Counter,
    pub ring_bytes: Gauge,
    pub chats_loaded: Gauge,
}

impl Metrics {
    /// Registers all in `registry`.
    pub fn new(registry: &mut Registry) -> Self {
        // From 0.25 ms, which is below the target of a millisecond, to 8 s, which is above the bound of 200 ms.
        let delivery_seconds = Histogram::new(exponential_buckets(0.000_25, 2.0, 16));
        Self {
            http: HttpMetrics::new(registry),
            sent_total: add(registry, "gateway_msg_sent", "Commands that the log stored"),
            delivered_total: add(registry, "gateway_events_delivered", "Events queued to sessions"),
            delivery_seconds: register(
                registry,
                "gateway_delivery_duration_seconds",
                "From the append of an event to its write to a socket, once per write",
                delivery_seconds,
            ),
            connections: add(registry, "gateway_ws_connections", "Open WebSocket sessions"),
            sessions_attached: add(
                registry,
                "gateway_sessions_attached",
                "Sessions that events are delivered to; those that close are none any more",
            ),
            session_tasks: add(
                registry,
                "gateway_session_tasks",
                "Tasks of sessions, their commands, reads and catch-ups",
            ),
            session_entries: add(
                registry,
                "gateway_session_entries",
                "What presence holds of sessions: users watched, positions delivered, who is away",
            ),
            place_fallbacks: add(
                registry,
                "gateway_session_place_fallbacks",
                "Sessions let in by this gateway's own count, because Redis was away",
            ),
            refused_total: add(registry, "gateway_commands_refused", "Refused frames by code"),
            closed_total: add(registry, "gateway_ws_closed", "Closed sessions by reason"),
            lagging_total: add(registry, "gateway_ws_lagging", "Sessions that left the live lane"),
            refused_steps: add(
                registry,
                "gateway_position_refused",
                "Steps refused because they did not begin where the session stood",
            ),
            doubtful_total: add(
                registry,
                "gateway_doubtful_entries",
                "Entries about which the projection was asked, because the ring can't tell whether they repeat a command",
            ),
            dropped_ephemeral_total: add(
                registry,
                "gateway_ephemeral_dropped",
                "Best-effort frames dropped for slow readers",
            ),
            queued_bytes: add(
                registry,
                "gateway_ws_queued_bytes",
                "What waits to be written to sessions; bytes that several are sent count for each",
            ),
            choked_total: add(
                registry,
                "gateway_ws_choked",
                "Times that a session was not read from because too much waited for it",
            ),
            replay_total: add(registry, "gateway_replay_events", "Replayed events by source"),
            append_retries: add(registry, "gateway_append_retries", "Append attempts after the first"),
            looked_up_total: add(
                registry,
                "gateway_commands_looked_up",
                "Commands whose uuid was not fresh, by reason: an earlier copy was looked for before the append",
            ),
            clock_skew: add(
                registry,
                "gateway_clock_skew_seconds",
                "How far the gateway's clock is ahead of the log's",
            ),
            log_fill: add(
                registry,
                "gateway_log_fill_ratio",
                "The log's bytes as a share of its bound: from 0.95 on messages are refused; 0: no bound",
            ),
            log_stores: add(
                registry,
                "gateway_log_stores",
                "1 while the log says what became of appends; 0: none is answered",
            ),
            tail_recreations: add(registry, "gateway_tail_recreations", "Consumers made anew"),
            tail_position: add(registry, "gateway_tail_position", "The last sequence applied"),
            epoch: add(registry, "gateway_epoch", "How often the log lost its tail"),
            epoch_bumps: add(registry, "gateway_epoch_bumps", "Cuts seen by this gateway"),
            ring_bytes: add(registry, "gateway_ring_bytes", "Memory of the ring"),
            chats_loaded: add(registry, "gateway_chats_loaded", "Chats whose state is in memory"),
        }
    }

    /// Records that an event, which the log stored at `stored_us` (Unix µs), was written to a socket now.
    pub fn observe_delivery(&self, stored_us: u64) {
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        self.delivery_seconds.observe(now_us.saturating_sub(stored_us) as f64 / 1e6);
    }
}

/// Makes a metric and registers it.
pub(crate) fn add<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    register(registry, name, help, M::default())
}

/// Registers a metric that has no default, such as a histogram with its buckets.
fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}
