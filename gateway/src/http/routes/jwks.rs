//! `/.well-known/jwks.json`: the public keys that verify access tokens.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;

use crate::http::services::Services;

/// Keys of ES256, RFC 7517.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "operator", responses(
    (status = 200, description = "a JWK set", body = serde_json::Value),
))]
pub async fn show(State(services): State<Arc<Services>>) -> Response {
    // Clients may keep it for an hour: a new key is rare, and they can ask again when they meet an unknown one.
    ([(header::CACHE_CONTROL, "public, max-age=3600")], axum::Json(services.auth.tokens.published()))
        .into_response()
}
