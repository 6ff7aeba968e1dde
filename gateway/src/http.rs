//! The HTTP interface: routes, extractors, views.
//!
//! Owns everything between a TCP connection and the services behind [`App`]. Invariants: every refusal is a
//! problem document, whoever made it; a body is bounded before it is read; no route is undocumented, since the
//! router and the OpenAPI document are made of the same list.

pub mod auth;
pub mod body;
pub mod caller;
pub mod chats;
pub mod context;
pub mod cookie;
pub mod devices;
pub mod fields;
pub mod health;
pub mod jwks;
pub mod me;
pub mod members;
pub mod messages;
pub mod metrics;
pub mod page;
pub mod rules;
pub mod server;
pub mod tickets;
pub mod users;
pub mod view;

use std::sync::Arc;

use axum::{Extension, Router, extract::DefaultBodyLimit, middleware, routing::get};
use http::{HeaderName, HeaderValue, Method, header};
use prometheus_client::registry::Registry;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::{caller::Caller, server::serve};
use crate::{app::App, openapi, ws};

#[derive(Debug, Clone, clap::Args)]
pub struct HttpSettings {
    /// The largest body of a request, in bytes.
    #[arg(long, env = "MT_BODY_BYTES", default_value_t = 65_536)]
    pub body_bytes: usize,
    /// How long the head of a request may take to arrive, in milliseconds; also how long an idle connection
    /// is kept.
    #[arg(long, env = "MT_HEADER_TIMEOUT_MS", default_value_t = 30_000)]
    pub header_timeout_ms: u64,
    /// How long a request may take to be read and answered, in milliseconds.
    #[arg(long, env = "MT_REQUEST_TIMEOUT_MS", default_value_t = 20_000)]
    pub request_timeout_ms: u64,
    /// Connections that may speak HTTP at a time; more wait in the system's backlog. WebSockets do not count.
    #[arg(long, env = "MT_HTTP_CONNECTIONS", default_value_t = 16_384)]
    pub http_connections: usize,
}

/// The documented routes, and the document.
pub fn documented() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(auth::register))
        .routes(routes!(auth::login))
        .routes(routes!(auth::refresh))
        .routes(routes!(auth::logout))
        .routes(routes!(me::show, me::update))
        .routes(routes!(users::find))
        .routes(routes!(users::show))
        .routes(routes!(devices::list))
        .routes(routes!(devices::revoke))
        .routes(routes!(tickets::create))
        .routes(routes!(chats::list, chats::create))
        .routes(routes!(chats::show, chats::update))
        .routes(routes!(members::list, members::add))
        .routes(routes!(members::change_role, members::remove))
        .routes(routes!(messages::list, messages::send))
        .routes(routes!(jwks::show))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
}

/// Everything a client can ask for. With a registry, `/metrics` is among it.
pub fn router(app: &Arc<App>, registry: Option<Arc<Registry>>) -> Router {
    let (router, document) = documented().split_for_parts();
    let mut router = router
        .route(openapi::WEBSOCKET_PATH, get(ws::upgrade))
        .route(openapi::DOCUMENT_PATH, get(openapi::serve))
        .layer(Extension(openapi::Document::new(&document)));
    if let Some(registry) = registry {
        router = router.merge(otel::health::metrics_router(registry));
    }
    router
        .layer(middleware::from_fn_with_state(app.clone(), context::layer))
        .layer(DefaultBodyLimit::max(app.settings.http.body_bytes))
        .layer(cors(app.origins.foreign()))
        .with_state(app.clone())
}

/// Lets the pages of allowed foreign origins read our answers. Our own pages need no leave.
fn cors(foreign: &[String]) -> CorsLayer {
    if foreign.is_empty() {
        return CorsLayer::new();
    }
    let origins = foreign.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("traceparent"),
        ])
        .expose_headers([header::LOCATION, header::RETRY_AFTER])
}
