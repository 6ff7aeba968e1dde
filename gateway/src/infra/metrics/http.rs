//! Metrics of the HTTP interface.

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

/// What requests are counted by. The route is a template, so that the number of series is bounded.
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
        // From 1 ms to 4 s: between a look into memory and a stuck dependency.
        let new = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 4.0, 7))),
            auth_failures: Family::default(),
            passwords_waiting: Gauge::default(),
        };
        registry.register("gateway_http_requests", "Requests by route and status", new.requests.clone());
        registry.register("gateway_http_request_duration_seconds", "Time to answer", new.seconds.clone());
        registry.register(
            "gateway_auth_failures",
            "Refused authentications by code",
            new.auth_failures.clone(),
        );
        registry.register(
            "gateway_bcrypt_queue",
            "Passwords that wait to be hashed",
            new.passwords_waiting.clone(),
        );
        new
    }

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

/// A bounded set of methods: clients can make up others.
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
