//! The public keys that verify access tokens.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::header;

use crate::app::App;

/// Keys of ES256, RFC 7517.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "operator", responses(
    (status = 200, description = "a JWK set", body = serde_json::Value),
))]
pub async fn show(State(app): State<Arc<App>>) -> Response {
    // An hour: a rotated key is published long before the last token of its predecessor ends.
    ([(header::CACHE_CONTROL, "public, max-age=3600")], axum::Json(app.tokens.published())).into_response()
}
