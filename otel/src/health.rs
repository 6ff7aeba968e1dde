//! `/healthz`, `/readyz` and `/metrics`: the endpoints for an operator's probes and scraper.
//!
//! `/healthz` says that the process serves requests and checks nothing else, because a restart does not help when a
//! dependency is away. `/readyz` names each dependency that is down. A check without an answer in time counts as down,
//! so that a probe never hangs.

use std::fmt::Display;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::join_all;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

/// Probes come every second or two; a probe must have its answer before the next one.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Answer = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

struct Check {
    name: &'static str,
    ask: Box<dyn Fn() -> Answer + Send + Sync>,
}

/// The named checks of a service, and its metrics.
#[derive(Default)]
pub struct Health {
    checks: Vec<Check>,
}

impl Health {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check that asks a dependency. All checks of one request run at the same time.
    #[must_use]
    pub fn check<F, A, E>(mut self, name: &'static str, ask: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        let ask = move || -> Answer {
            let answer = ask();
            Box::pin(async move { answer.await.map_err(|error| error.to_string()) })
        };
        self.checks.push(Check { name, ask: Box::new(ask) });
        self
    }

    /// Adds a check whose answer is already in memory, such as a flag.
    #[must_use]
    pub fn check_now<F, E>(self, name: &'static str, look: F) -> Self
    where
        F: Fn() -> Result<(), E> + Send + Sync + 'static,
        E: Display + Send + 'static,
    {
        self.check(name, move || std::future::ready(look()))
    }

    /// The three routes, for [`serve`] on an address of their own.
    pub fn router<S: Clone + Send + Sync + 'static>(self, registry: Arc<Registry>) -> Router<S> {
        let health = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .with_state(Arc::new(self));
        health.merge(metrics_router(registry))
    }

    async fn ask(&self) -> (bool, Map<String, Value>) {
        let answers = join_all(self.checks.iter().map(|check| async move {
            let answer = tokio::time::timeout(CHECK_TIMEOUT, (check.ask)()).await;
            (check.name, answer.unwrap_or_else(|_| Err("no answer in time".to_owned())))
        }));
        let mut ready = true;
        let mut checks = Map::new();
        for (name, answer) in answers.await {
            let text = match answer {
                Ok(()) => "ok".to_owned(),
                Err(reason) => {
                    ready = false;
                    format!("down: {reason}")
                }
            };
            checks.insert(name.to_owned(), Value::String(text));
        }
        (ready, checks)
    }
}

/// `/metrics` alone.
pub fn metrics_router<S: Clone + Send + Sync + 'static>(registry: Arc<Registry>) -> Router<S> {
    Router::new().route("/metrics", get(metrics)).with_state(registry)
}

/// Serves `router` on `listener` until `shutdown` ends, and says where it listens.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let addr: SocketAddr = listener.local_addr()?;
    tracing::info!(%addr, "listening");
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn healthz() -> &'static str {
    "ok"
}

async fn readyz(State(health): State<Arc<Health>>) -> Response {
    let (ready, checks) = health.ask().await;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({ "ready": ready, "checks": checks }))).into_response()
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics can't be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use prometheus_client::metrics::counter::Counter;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(router: Router, path: &str) -> (StatusCode, String, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = router.oneshot(request).await.expect("an answer");
        let status = response.status();
        let kind = response.headers()[header::CONTENT_TYPE].to_str().expect("text").to_owned();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, kind, String::from_utf8(body.to_vec()).expect("text"))
    }

    fn routes(health: Health) -> Router {
        health.router(Arc::default())
    }

    fn ok() -> Result<(), String> {
        Ok(())
    }

    #[tokio::test]
    async fn ready_only_while_every_check_is() {
        let up = Health::new().check("nats", || async { ok() }).check_now("role", ok);
        let (status, _, body) = ask(routes(up), "/readyz").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body, r#"{"checks":{"nats":"ok","role":"ok"},"ready":true}"#);

        let down = Health::new().check("nats", || async { ok() }).check_now("postgres", || Err("refused"));
        let (status, _, body) = ask(routes(down), "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, r#"{"checks":{"nats":"ok","postgres":"down: refused"},"ready":false}"#);
    }

    #[tokio::test]
    async fn a_check_that_hangs_is_down_and_health_does_not_care() {
        let health = || Health::new().check("redis", std::future::pending::<Result<(), String>>);
        let (status, _, body) = ask(routes(health()), "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, r#"{"checks":{"redis":"down: no answer in time"},"ready":false}"#);
        assert_eq!(ask(routes(health()), "/healthz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_are_open_metrics() {
        let mut registry = Registry::default();
        let sent = Counter::<u64>::default();
        registry.register("sent", "Messages sent", sent.clone());
        sent.inc();
        let (status, kind, body) = ask(Health::new().router(Arc::new(registry)), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(kind, OPENMETRICS);
        assert!(body.contains("sent_total 1\n") && body.ends_with("# EOF\n"), "{body}");
    }
}
