//! The OpenAPI document of the HTTP interface: its head here, its routes from their `#[utoipa::path]`.

use axum::{
    Extension,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::header;

use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{
    problem::{FieldError, ProblemBody},
    refusals::NoWebSocket,
};

pub const DOCUMENT_PATH: &str = "/openapi.json";
pub const WEBSOCKET_PATH: &str = "/v1/ws";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Mini-Telegram",
        description = "Accounts, chats and history over HTTP. Live messages come over the WebSocket at /v1/ws, \
                       whose frames docs/protocol.md describes. Every refusal is a problem document (RFC 9457).",
    ),
    tags(
        (name = "auth", description = "Register, log in, log out"),
        (name = "account", description = "The caller, their devices, other users"),
        (name = "chats", description = "Chats, members, messages"),
        (name = "operator", description = "For machines that watch this one"),
    ),
    paths(websocket, document, metrics),
    // Not found by themselves: the routes name problems only through the types in `refusals`.
    components(schemas(ProblemBody, FieldError)),
    modifiers(&Schemes),
)]
struct Base;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        components.add_security_scheme("accessToken", SecurityScheme::Http(bearer));
        let cookie = ApiKey::Cookie(ApiKeyValue::new("refreshToken"));
        components.add_security_scheme("refreshToken", SecurityScheme::ApiKey(cookie));
    }
}

/// Upgrade to a WebSocket.
#[utoipa::path(get, path = "/v1/ws", tag = "chats", params(
    ("token" = Option<String>, Query, description = "an access token"),
    ("ticket" = Option<String>, Query, description = "a ticket, instead of a token"),
    ("device" = Option<String>, Query, description = "a label, `[a-z]{1,16}(:[A-Za-z0-9_-]{1,64})?`"),
    ("cursor" = Option<String>, Query, description = "where to resume"),
    ("enc" = Option<String>, Query, description = "`json` or `msgpack`"),
    ("v" = Option<String>, Query, description = "the version of the protocol, 1"),
), responses(
    (status = 101, description = "the WebSocket is open"),
    NoWebSocket,
))]
#[allow(dead_code, reason = "only its description is used: the handler is the ws module's")]
const fn websocket() {}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "operator", responses((status = 200, body = serde_json::Value)))]
#[allow(dead_code, reason = "only its description is used")]
const fn document() {}

/// Metrics in the OpenMetrics format, unless they have a listener of their own.
#[utoipa::path(get, path = "/metrics", tag = "operator", responses(
    (status = 200, body = String, content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
))]
#[allow(dead_code, reason = "only its description is used: the handler is the otel crate's")]
const fn metrics() {}

/// The document before the routes are added to it.
pub fn base() -> utoipa::openapi::OpenApi {
    Base::openapi()
}

/// The document as JSON, made once.
#[derive(Clone)]
pub struct Document(Bytes);

impl Document {
    pub fn new(document: &utoipa::openapi::OpenApi) -> Self {
        // Strings and numbers always serialise, so the default is never used.
        Self(document.to_json().unwrap_or_default().into())
    }
}

/// `GET /openapi.json`.
pub async fn serve(Extension(Document(bytes)): Extension<Document>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], bytes).into_response()
}
