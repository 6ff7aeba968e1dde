//! Reads the JSON body of a request into a type that checks its own fields.
//!
//! Invariant: the fields that a type requires are those that its schema in the OpenAPI document requires.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use http::StatusCode;
use shared::code::Code;
use tokio::time::timeout;

use super::fields::Fields;
use crate::http::answer::problem::Problem;

/// A type that can be read from the fields of a request.
pub trait FromFields: Sized {
    /// Reads every field. Faults are collected in `fields`; `None` if a required field is missing or refused.
    fn read(fields: &mut Fields) -> Option<Self>;
}

/// A JSON body, whatever its `Content-Type`. A foreign page gains nothing by a content type that browsers let it
/// send: browsers never add our bearer tokens by themselves, and the endpoints that a cookie authenticates check the
/// origin and read no body.
pub struct Json<T>(pub T);

/// How long a body may take to arrive: enough for 64 KiB over a line of 50 kbit/s.
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

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use utoipa::ToSchema;

    use super::*;
    use crate::http::routes::{auth, chats, me, members, messages};

    /// The fields that the document calls required are those whose absence is refused.
    fn check<T: FromFields + ToSchema>(missing_when_empty: &[&str]) {
        let mut fields = Fields::of_json(b"{}").unwrap();
        let value = T::read(&mut fields);
        let missing = fields.finish(value).err().map(|problem| problem.fields()).unwrap_or_default();
        assert_eq!(missing, missing_when_empty);
        let schema = serde_json::to_value(T::schema()).unwrap();
        let mut required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut expected = missing_when_empty.to_vec();
        required.sort_unstable();
        expected.sort_unstable();
        assert_eq!(required, expected, "{}", T::name());
    }

    #[test]
    fn what_is_read_is_what_is_documented() {
        check::<auth::Register>(&["email", "password"]);
        check::<auth::Login>(&["email", "password"]);
        check::<me::UpdateMe>(&["displayName"]);
        check::<chats::CreateChat>(&["type", "memberIds"]);
        check::<chats::UpdateChat>(&[]);
        check::<members::AddMembers>(&["userIds"]);
        check::<members::ChangeRole>(&["role"]);
        check::<messages::Send>(&["uuid", "body"]);
    }
}
