//! Metrics of the HTTP interface.
//!
//! Invariant: the number of series is bounded. Every label is one of a closed set; a route is its template.

use std::time::Duration;

use http::Method;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use shared::code::Code;

use super::{add, register};

/// The labels by which requests are counted. The route is a template such as `/v1/chats/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HttpLabels {
    pub method: &'static str,
    pub route: String,
    pub status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Debug)]
pub struct HttpMetrics {
    requests: Family<HttpLabels, Counter>,
    seconds: Family<RouteLabel, Histogram>,
    auth_failures: Family<CodeLabel, Counter>,
    /// Passwords that wait to be hashed.
    pub passwords_waiting: Gauge,
}

impl HttpMetrics {
    pub fn new(registry: &mut Registry) -> Self {
        // From 1 ms, which an answer from memory takes, to 4 s, which only a stuck dependency takes.
        let buckets = || Histogram::new(exponential_buckets(0.001, 4.0, 7));
        Self {
            requests: add(registry, "gateway_http_requests", "Requests by route and status"),
            seconds: register(
                registry,
                "gateway_http_request_duration_seconds",
                "Time to answer",
                Family::new_with_constructor(buckets),
            ),
            auth_failures: add(registry, "gateway_auth_failures", "Refused authentications by code"),
            passwords_waiting: add(registry, "gateway_bcrypt_queue", "Passwords that wait to be hashed"),
        }
    }

    /// Counts an answered request; `code` is the refusal's, if it was refused.
    pub fn observe(&self, labels: HttpLabels, code: Option<Code>, elapsed: Duration) {
        self.seconds
            .get_or_create(&RouteLabel { route: labels.route.clone() })
            .observe(elapsed.as_secs_f64());
        self.requests.get_or_create(&labels).inc();
        if let Some(code) = code.map(Code::as_str).filter(|code| code.starts_with("auth.")) {
            self.auth_failures.get_or_create(&CodeLabel { code }).inc();
        }
    }
}

/// The method as a label. Clients can make up methods, so all but the known ones share one label.
pub fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        _ => "other",
    }
}
