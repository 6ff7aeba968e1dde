//! The layer around every route: it gives a request its trace and its time limit, counts it, turns refusals of the
//! web framework into problem documents, and completes the headers of answers.
//!
//! Invariants: logs, traces and metrics hold the route's template and never the request's target, whose query may hold
//! a token; no answer of the API is kept in a cache unless its route says so.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use shared::code::Code;
use tracing::{Instrument, Span, field};

use super::{
    answer::problem::{Cause, Problem, TRACE_ID},
    limits::Limit,
    request::{caller, host, rest},
    services::Services,
};
use crate::infra::metrics::http::{HttpLabels, method_label};

/// Stands for the route in the metrics of requests that match no route.
const NO_ROUTE: &str = "none";
/// The routes whose answers depend on who asks.
const PERSONAL: &str = "/v1/";
/// The length of a W3C `traceparent`: `00-` + 32 digits + `-` + 16 digits + `-` + 2 digits.
const TRACEPARENT_LENGTH: usize = 55;

/// The layer. Around it are only the limit of a body and the answers to preflights of foreign pages.
pub async fn layer(State(services): State<Arc<Services>>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or(NO_ROUTE, MatchedPath::as_str).to_owned();
    let method = method_label(request.method());
    let asked = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let traceparent = match asked {
        Some(text) if otel::is_sampled(text) && !may_force(&services, request.headers()).await => None,
        asked => asked,
    };
    let span = tracing::info_span!(
        "http",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = field::Empty,
        trace_id = field::Empty,
    );
    let trace_id = trace(&span, traceparent, asked);
    services.hub.serves(services.hub.clock.now_ms());
    let start = Instant::now();
    let limit = Duration::from_millis(services.settings.request_timeout_ms);
    let answered = async {
        if let Err(problem) = host::check(&request) {
            return completed(problem.into_response(), &route);
        }
        let rest = rest::lend(&mut request);
        let response = tokio::time::timeout(limit, next.run(request)).await;
        let is_late = response.is_err();
        let response = response.unwrap_or_else(|_elapsed| Problem::unavailable().into_response());
        let mut response = completed(as_problem(response), &route);
        if let Some(rest) = rest {
            rest.settle(&mut response, is_late).await;
        }
        response
    };
    let response = TRACE_ID.scope(trace_id, answered).instrument(span.clone()).await;
    record(
        &services,
        &span,
        HttpLabels { method, route: route.clone(), status: response.status().as_u16() },
        &response,
        start,
    );
    response
}

/// Adds what every answer says: that browsers shall not guess its type and, if it may be personal, that nobody keeps it.
fn completed(mut response: Response, route: &str) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if route.starts_with(PERSONAL) && !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Whether the caller may have a trace recorded that we would not have recorded ourselves: somebody who is logged in,
/// and now and then. Whoever may not is traced like one who asks for nothing.
async fn may_force(services: &Services, headers: &HeaderMap) -> bool {
    // Nothing is recorded without a collector, so there is nothing to limit.
    if !services.sockets.traced {
        return false;
    }
    let identity = caller::bearer(headers).and_then(|token| services.auth.identify(token).ok());
    let Some(identity) = identity else { return false };
    services.limits.check(Limit::ForcedTraces, &identity.user.to_string()).await.is_ok()
}

/// Joins the caller's trace, or begins a new one. Returns the trace's id. It is the one that the caller `asked` for even
/// if the trace is not recorded, so that both sides find it in their logs.
fn trace(span: &Span, traceparent: Option<&str>, asked: Option<&str>) -> String {
    if let Some(traceparent) = traceparent {
        otel::set_parent(span, traceparent);
    }
    let sampled = span.in_scope(otel::traceparent);
    let known = sampled.as_deref().or(asked).and_then(trace_id_of);
    let trace_id = known.map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned);
    span.record("trace_id", &trace_id);
    trace_id
}

/// The trace id in a well-formed `traceparent`.
fn trace_id_of(traceparent: &str) -> Option<&str> {
    let lower_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let id = traceparent.get(3..35).filter(|_| traceparent.len() == TRACEPARENT_LENGTH)?;
    (lower_hex(id) && id.bytes().any(|byte| byte != b'0')).then_some(id)
}

/// Turns a refusal that the web framework made, such as that of an unknown route, into a problem document.
fn as_problem(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.extensions().get::<Code>().is_some() || is_json(&response) {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let mut response = problem_for(status).into_response();
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn is_json(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/"))
}

fn problem_for(status: StatusCode) -> Problem {
    match status {
        StatusCode::NOT_FOUND => {
            Problem::new(Code::RequestInvalid).status(status).detail("there is no such route")
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            Problem::new(Code::RequestInvalid).status(status).detail("the route does not take this method")
        }
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::RequestTooLarge),
        _ if status.is_server_error() => Problem::new(Code::ServerInternal).status(status),
        _ => Problem::new(Code::RequestMalformed).status(status),
    }
}

fn record(services: &Services, span: &Span, labels: HttpLabels, response: &Response, start: Instant) {
    span.record("http.response.status_code", labels.status);
    let code = response.extensions().get::<Code>().copied();
    if labels.status >= 500 {
        let (method, route, status) = (labels.method, &labels.route, labels.status);
        let name = code.map_or("", Code::as_str);
        let cause = response.extensions().get::<Cause>().map(field::display);
        span.in_scope(|| match code {
            Some(Code::ServerInternal) | None => {
                tracing::error!(method, route, status, cause, "a request failed")
            }
            // A dependency is away. If the answer carries no cause, it was logged where the dependency failed.
            Some(_) if cause.is_none() => {
                tracing::debug!(method, route, status, code = name, "a request failed");
            }
            Some(_) => tracing::warn!(method, route, status, code = name, cause, "a request failed"),
        });
    }
    services.hub.metrics.http.observe(labels, code, start.elapsed());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_trace_ids_are_taken_over() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(trace_id_of(&format!("00-{id}-b7ad6b7169203331-01")), Some(id));
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-ääääääääääääääää-b7ad6b7169203331-01",
        ] {
            assert_eq!(trace_id_of(bad), None, "{bad}");
        }
    }
}
