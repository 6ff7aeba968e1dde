//! The gateway's metrics: names that dashboards know, and the few that tell how the log and its readers fare.

pub mod http;

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use self::http::HttpMetrics;

/// One label and its value.
pub type Labels = Vec<(&'static str, &'static str)>;
pub type Counters = Family<Labels, Counter>;

/// Every metric, registered once.
#[derive(Debug)]
pub struct Metrics {
    pub sent_total: Counter,
    pub delivered_total: Counter,
    pub delivery_seconds: Histogram,
    pub connections: Gauge,
    pub refused_total: Counters,
    pub closed_total: Counters,
    pub lagging_total: Counter,
    pub dropped_ephemeral_total: Counter,
    pub replay_total: Counters,
    pub append_retries: Gauge,
    pub tail_recreations: Gauge,
    pub tail_position: Gauge,
    pub epoch: Gauge,
    pub epoch_bumps: Counter,
    pub ring_bytes: Gauge,
    pub chats_loaded: Gauge,
    pub http: HttpMetrics,
}

impl Metrics {
    /// Registers all in `registry`.
    pub fn new(registry: &mut Registry) -> Self {
        let new = Self {
            sent_total: Counter::default(),
            delivered_total: Counter::default(),
            // From 0.25 ms to 8 s: below the target of a millisecond, above the bound of 200 ms.
            delivery_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            connections: Gauge::default(),
            refused_total: Counters::default(),
            closed_total: Counters::default(),
            lagging_total: Counter::default(),
            dropped_ephemeral_total: Counter::default(),
            replay_total: Counters::default(),
            append_retries: Gauge::default(),
            tail_recreations: Gauge::default(),
            tail_position: Gauge::default(),
            epoch: Gauge::default(),
            epoch_bumps: Counter::default(),
            ring_bytes: Gauge::default(),
            chats_loaded: Gauge::default(),
            http: HttpMetrics::new(registry),
        };
        // Counters are registered without `_total`, which the encoder appends.
        registry.register("gateway_msg_sent", "Commands that the log stored", new.sent_total.clone());
        registry.register(
            "gateway_events_delivered",
            "Events queued to sessions",
            new.delivered_total.clone(),
        );
        registry.register(
            "gateway_delivery_duration_seconds",
            "From the append of an event to its write to a socket, once per write",
            new.delivery_seconds.clone(),
        );
        registry.register("gateway_ws_connections", "Open WebSocket sessions", new.connections.clone());
        registry.register("gateway_commands_refused", "Refused frames by code", new.refused_total.clone());
        registry.register("gateway_ws_closed", "Closed sessions by reason", new.closed_total.clone());
        registry.register(
            "gateway_ws_lagging",
            "Sessions that left the live lane",
            new.lagging_total.clone(),
        );
        registry.register(
            "gateway_ephemeral_dropped",
            "Best-effort frames dropped for slow readers",
            new.dropped_ephemeral_total.clone(),
        );
        registry.register("gateway_replay_events", "Replayed events by source", new.replay_total.clone());
        registry.register(
            "gateway_append_retries",
            "Append attempts after the first",
            new.append_retries.clone(),
        );
        registry.register("gateway_tail_recreations", "Consumers made anew", new.tail_recreations.clone());
        registry.register("gateway_tail_position", "The last sequence applied", new.tail_position.clone());
        registry.register("gateway_epoch", "How often the log lost its tail", new.epoch.clone());
        registry.register("gateway_epoch_bumps", "Cuts seen by this gateway", new.epoch_bumps.clone());
        registry.register("gateway_ring_bytes", "Memory of the ring", new.ring_bytes.clone());
        registry.register("gateway_chats_loaded", "Chats whose state is in memory", new.chats_loaded.clone());
        new
    }

    /// Records the delivery of an event that the log stored at this time, Unix µs.
    pub fn observe_delivery(&self, stored_us: u64) {
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        self.delivery_seconds.observe(now_us.saturating_sub(stored_us) as f64 / 1e6);
    }
}
