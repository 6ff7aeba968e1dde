//! Reads the JSON body of a request into a type that checks its own fields.
//!
//! Invariants: the fields that a type requires are those that its schema in the OpenAPI document requires; a body is
//! asked for only when everything that can be checked without it was checked.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use http::{HeaderMap, StatusCode, header};
use shared::code::Code;
use tokio::time::timeout;

use super::fields::Fields;
use crate::http::{answer::problem::Problem, services::Services};

/// A type that can be read from the fields of a request.
pub trait FromFields: Sized {
    /// Reads every field. Faults are collected in `fields`; `None` if a required field is missing or refused.
    fn read(fields: &mut Fields) -> Option<Self>;
}

/// A JSON body that has not been read yet. Its head was checked: a body that says that it is too long, or of another
/// type, is refused before a client that waits for `100 Continue` sends it.
///
/// A body without a type is taken: simple clients send none, and a foreign page gains nothing by it, since browsers
/// never add our bearer tokens by themselves, and the endpoints that a cookie authenticates check the origin.
pub struct Unread(Request);

/// How long a body may take to arrive: enough for 64 KiB over a line of 50 kbit/s.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);

impl FromRequest<Arc<Services>> for Unread {
    type Rejection = Problem;

    async fn from_request(request: Request, services: &Arc<Services>) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let refusal = Problem::new(Code::RequestInvalid).status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            return Err(refusal.detail("the body is not application/json"));
        }
        let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        let length: Option<u64> = length.and_then(|length| length.parse().ok());
        if length.is_some_and(|length| length > services.settings.body_bytes as u64) {
            return Err(Problem::new(Code::RequestTooLarge));
        }
        Ok(Self(request))
    }
}

impl Unread {
    /// Reads the body.
    ///
    /// # Errors
    /// `request.*`.
    pub async fn json<T: FromFields>(self) -> Result<T, Problem> {
        let late = |_elapsed| Problem::new(Code::RequestMalformed).status(StatusCode::REQUEST_TIMEOUT);
        let read = timeout(ARRIVES_WITHIN, Bytes::from_request(self.0, &())).await.map_err(late)?;
        let bytes = read.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::RequestTooLarge),
            _ => Problem::new(Code::RequestMalformed).detail("the body ended early"),
        })?;
        let mut fields = Fields::of_json(&bytes)?;
        let value = T::read(&mut fields);
        fields.finish(value)
    }
}

/// Whether the body has JSON's type, or names none.
fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(kind) = types.next() else { return true };
    let essence = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    types.next().is_none() && essence.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use utoipa::ToSchema;

    use http::HeaderValue;

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
    fn a_body_of_another_type_is_none_of_ours() {
        let check = |kinds: &[&'static str], expected: bool| {
            let kind = |kind: &&'static str| (header::CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(is_json(&kinds.iter().map(kind).collect()), expected, "{kinds:?}");
        };
        check(&[], true);
        check(&["application/json"], true);
        check(&["Application/JSON; charset=utf-8"], true);
        for other in [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "application/jsonp",
        ] {
            check(&[other], false);
        }
        check(&["text/plain; a=application/json"], false);
    }

    #[test]
    fn what_is_read_is_what_is_documented() {
        check::<auth::Register>(&["email", "password"]);
        check::<auth::Login>(&["email", "password"]);
        check::<me::UpdateMe>(&[]);
        check::<chats::CreateChat>(&["type", "memberIds"]);
        check::<chats::UpdateChat>(&[]);
        check::<members::AddMembers>(&["userIds"]);
        check::<members::ChangeRole>(&["role"]);
        check::<messages::Send>(&["uuid", "body"]);
    }
}
