//! The HTTP interface: routes, the reading of requests, the form of answers.
//!
//! Owns everything between a TCP connection and the services in [`Services`]; it decides nothing about chats itself.
//! Invariants: every refusal is a problem document, also those that the web framework makes; a body is bounded before
//! it is read; no route is undocumented, since the router and the OpenAPI document are made from the same list.

pub mod answer;
pub mod context;
pub mod limits;
pub mod request;
pub mod routes;
pub mod server;
pub mod services;

use std::sync::Arc;

use axum::{Extension, Router, extract::DefaultBodyLimit, middleware, routing::get};
use http::{HeaderName, HeaderValue, Method, header};
use prometheus_client::registry::Registry;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;

use self::{answer::openapi, request::cross::Cross, services::Services};

#[derive(Debug, Clone, clap::Args)]
pub struct HttpSettings {
    /// The largest body of a request, in bytes.
    #[arg(long, env = "MT_BODY_BYTES", default_value_t = 65_536)]
    pub body_bytes: usize,
    /// How long the head of a connection's first request may take to arrive, in milliseconds.
    #[arg(long, env = "MT_HEADER_TIMEOUT_MS", default_value_t = 30_000)]
    pub header_timeout_ms: u64,
    /// How long a connection is kept between two requests, in milliseconds: longer than proxies in front keep theirs, which
    /// is usually a minute. The head of the next request must have arrived by then.
    #[arg(long, env = "MT_KEEP_ALIVE_MS", default_value_t = 75_000)]
    pub keep_alive_ms: u64,
    /// How long a request may take to be read and answered, in milliseconds.
    #[arg(long, env = "MT_REQUEST_TIMEOUT_MS", default_value_t = 20_000)]
    pub request_timeout_ms: u64,
}

/// The routes together with the OpenAPI document of them.
pub fn documented() -> OpenApiRouter<Arc<Services>> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(utoipa_axum::routes!(routes::auth::register))
        .routes(utoipa_axum::routes!(routes::auth::login))
        .routes(utoipa_axum::routes!(routes::auth::refresh))
        .routes(utoipa_axum::routes!(routes::auth::logout))
        .routes(utoipa_axum::routes!(routes::me::show, routes::me::update))
        .routes(utoipa_axum::routes!(routes::users::find))
        .routes(utoipa_axum::routes!(routes::users::show))
        .routes(utoipa_axum::routes!(routes::devices::list))
        .routes(utoipa_axum::routes!(routes::devices::revoke))
        .routes(utoipa_axum::routes!(routes::tickets::create))
        .routes(utoipa_axum::routes!(routes::chats::list, routes::chats::create))
        .routes(utoipa_axum::routes!(routes::chats::show, routes::chats::update))
        .routes(utoipa_axum::routes!(routes::members::list, routes::members::add))
        .routes(utoipa_axum::routes!(routes::members::change_role, routes::members::remove))
        .routes(utoipa_axum::routes!(routes::messages::list, routes::messages::send))
        .routes(utoipa_axum::routes!(routes::jwks::show))
        .routes(utoipa_axum::routes!(routes::health::healthz))
        .routes(utoipa_axum::routes!(routes::health::readyz))
}

/// Every route and the layers around them. With a registry, `/metrics` is one of the routes.
pub fn router(services: &Arc<Services>, registry: Option<Arc<Registry>>) -> Router {
    let cross = Cross { origins: services.origins.clone(), headers: cors(services.origins.foreign()) };
    let (router, document) = documented().split_for_parts();
    let mut router = router
        .route(openapi::WEBSOCKET_PATH, get(routes::ws::upgrade))
        .route(openapi::DOCUMENT_PATH, get(openapi::serve))
        .layer(Extension(openapi::Document::new(&document)));
    if let Some(registry) = registry {
        router = router.merge(otel::health::metrics_router(registry));
    }
    router
        .layer(middleware::from_fn_with_state(services.clone(), context::layer))
        .layer(DefaultBodyLimit::max(services.settings.body_bytes))
        .layer(middleware::from_fn_with_state(cross, request::cross::layer))
        .with_state(services.clone())
}

/// The routes for operators, on a listener of their own: without the limits that are made for clients.
pub fn operators(services: &Arc<Services>, registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/healthz", get(routes::health::healthz))
        .route("/readyz", get(routes::health::readyz))
        .merge(otel::health::metrics_router(registry))
        .with_state(services.clone())
}

/// The methods that pages of foreign origins may use: those of all routes.
const METHODS: [Method; 4] = [Method::GET, Method::POST, Method::PATCH, Method::DELETE];

/// Lets pages of the allowed foreign origins read our answers. Browsers let our own pages read them anyway.
fn cors(foreign: &[String]) -> CorsLayer {
    if foreign.is_empty() {
        return CorsLayer::new();
    }
    let origins = foreign.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_credentials(true)
        .allow_methods(METHODS)
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("traceparent"),
        ])
        .expose_headers([header::LOCATION, header::RETRY_AFTER])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_foreign_origins_may_use_the_method_of_every_documented_route() {
        let document = serde_json::to_value(documented().split_for_parts().1).unwrap();
        let paths = document["paths"].as_object().unwrap();
        assert!(!paths.is_empty());
        for (path, operations) in paths {
            for method in operations.as_object().unwrap().keys() {
                let method = method.to_uppercase();
                assert!(METHODS.iter().any(|allowed| *allowed == method.as_str()), "{method} {path}");
            }
        }
    }
}
