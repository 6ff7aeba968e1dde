//! The body of a request, read into a type that checks itself.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use http::StatusCode;
use shared::code::Code;
use tokio::time::timeout;

use super::fields::Fields;
use crate::problem::Problem;

/// A type that can be read from the fields of a request.
pub trait FromFields: Sized {
    /// Reads all fields, and leaves what is wrong with them in `fields`.
    fn read(fields: &mut Fields) -> Option<Self>;
}

/// A JSON body. Its `Content-Type` is not looked at: no browser sends our bearer tokens by itself, and those
/// endpoints that a cookie opens look at the origin and read no body.
pub struct Json<T>(pub T);

/// How long a body may take to arrive: 64 KiB over the slowest of lines.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);

impl<T: FromFields, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let late = |_elapsed| Problem::new(Code::RequestMalformed).status(StatusCode::REQUEST_TIMEOUT);
        let read = timeout(ARRIVES_WITHIN, Bytes::from_request(request, state)).await.map_err(late)?;
        let bytes = read.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::RequestTooLarge),
            _ => Problem::new(Code::RequestMalformed).detail("the body ended early"),
        })?;
        let mut fields = Fields::of_json(&bytes)?;
        let value = T::read(&mut fields);
        fields.finish(value).map(Self)
    }
}
