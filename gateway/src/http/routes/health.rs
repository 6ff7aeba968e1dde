//! `/healthz` and `/readyz`.
//!
//! Invariant: a gateway that can serve without a dependency stays ready while that is away, and only names it. If it
//! did not, all gateways would leave service at the same time.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::http::services::{Services, Unready};

/// A dependency that has not answered by then counts as away: probers usually wait a second.
const CHECK_TIMEOUT: Duration = Duration::from_millis(900);

#[derive(Serialize, ToSchema)]
pub struct Readiness {
    ready: bool,
    /// By dependency: `ok`, or what is wrong.
    #[schema(value_type = Object)]
    checks: Map<String, Value>,
}

/// Whether the process serves requests.
#[utoipa::path(get, path = "/healthz", tag = "operator", responses((status = 200, body = String)))]
pub async fn healthz() -> &'static str {
    "ok"
}

/// Whether clients should be sent here.
#[utoipa::path(get, path = "/readyz", tag = "operator", responses(
    (status = 200, body = Readiness),
    (status = 503, description = "names what is down", body = Readiness),
))]
pub async fn readyz(State(services): State<Arc<Services>>) -> Response {
    let postgres = async { matches!(timeout(CHECK_TIMEOUT, services.db.ping()).await, Ok(Ok(()))) };
    let redis = async { matches!(timeout(CHECK_TIMEOUT, services.redis.ping()).await, Ok(Ok(()))) };
    let (postgres, redis) = tokio::join!(postgres, redis);
    let unready = services.ready().err();
    let log = match unready {
        Some(Unready::Starting) => Some("down: still reading the recent past"),
        Some(Unready::Unproven) => Some("down: nothing heard of it for seconds"),
        Some(Unready::Unanswered) => Some("down: its server answers, but stores nothing: is the disk full?"),
        Some(Unready::Full) => Some("down: full"),
        Some(Unready::Draining | Unready::Revocations) | None => None,
    };
    let needed = [
        ("nats", services.nats.is_connected(), "down: not connected"),
        ("postgres", postgres, "down: no answer"),
        ("log", log.is_none(), log.unwrap_or_default()),
        ("revocations", services.auth.revocations.is_primed(), "down: not read yet"),
        ("gateway", unready != Some(Unready::Draining), "down: draining"),
    ];
    let ready = needed.iter().all(|(_, fine, _)| *fine);
    let all = needed.into_iter().chain([("redis", redis, "degraded: no answer")]);
    let checks =
        all.map(|(name, fine, wrong)| (name.to_owned(), Value::from(if fine { "ok" } else { wrong })));
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(Readiness { ready, checks: checks.collect() })).into_response()
}
