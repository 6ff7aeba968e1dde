//! The public keys that verify access tokens.

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
    // An hour: a rotated key is published long before the last token of its predecessor ends.
    ([(header::CACHE_CONTROL, "public, max-age=3600")], axum::Json(services.auth.tokens.published()))
        .into_response()
}
