//! Requests of pages of other origins: which of them are preflights, and what lets such a page read an answer.
//!
//! Invariant: `OPTIONS` is answered as a method like the others, which no route takes, unless it is the preflight of an
//! allowed origin for a route that exists.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tower::{Layer, ServiceExt};
use tower_http::cors::CorsLayer;

use super::origin::Origins;

/// What a foreign page may do, and who is one.
#[derive(Clone)]
pub struct Cross {
    pub origins: Origins,
    pub headers: CorsLayer,
}

/// Adds the headers of [`CorsLayer`], which would take every `OPTIONS` for a preflight.
pub async fn layer(State(cross): State<Cross>, request: Request, next: Next) -> Response {
    if request.method() == Method::OPTIONS && !cross.is_preflight(&request) {
        return next.run(request).await;
    }
    let answered = cross.headers.layer(next).oneshot(request).await;
    answered.unwrap_or_else(|never| match never {}).into_response()
}

impl Cross {
    fn is_preflight(&self, request: &Request) -> bool {
        let headers = request.headers();
        headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
            && headers.get(header::ORIGIN).is_some_and(|origin| self.origins.is_foreign(origin.as_bytes()))
            && request.extensions().get::<MatchedPath>().is_some()
    }
}
