//! Errors as HTTP clients see them: RFC 9457 problem documents.
//!
//! Invariants: the body holds the code, its fixed title, a sentence written for clients, the names of fields, and
//! nothing else. An internal error travels beside the body as a [`Cause`] and is logged once, with the route. Every
//! problem carries the trace id of its request, which [`TRACE_ID`] holds while the request is handled.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use shared::{code::Code, id::UserId};
use utoipa::ToSchema;

use super::schema::Id;
use crate::{
    auth::{password::PasswordError, token::CannotSign},
    command::Failure,
};

tokio::task_local! {
    /// The trace id of the request that this task handles, 32 hex digits.
    pub static TRACE_ID: String;
}

/// A problem's `type` is this and the code.
const TYPE_PREFIX: &str = "urn:mini-telegram:problem:";
/// The wait that a client is told when a dependency is away. It is short, since nobody knows for how long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A refusal on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    pub code: Code,
    /// Instead of the code's own status, where a code has several.
    status: Option<StatusCode>,
    detail: Option<String>,
    errors: Vec<FieldError>,
    users: Box<[UserId]>,
    retry_after: Option<Duration>,
    cause: Option<Cause>,
}

/// The internal error behind a problem: for the log, never for the client.
#[derive(Debug, Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is wrong with one field of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The name of the field, of the query parameter or of the part of the path.
    #[schema(example = "email")]
    pub field: &'static str,
    /// `missing`, `mistyped`, `out_of_range` or `unknown`.
    #[schema(example = "missing")]
    pub code: &'static str,
}

/// The body: RFC 9457's members and ours.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// A URI that names the kind of problem.
    #[schema(example = "urn:mini-telegram:problem:chat.not_found")]
    r#type: String,
    /// A sentence that is the same for every problem with this code.
    title: &'a str,
    status: u16,
    /// The stable code; see the table of errors.
    #[schema(example = "chat.not_found")]
    code: &'a str,
    /// What is special about this occurrence.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    /// What to quote when asking for help.
    trace_id: String,
    /// Which fields are wrong, for `request.invalid`.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    /// Who does not want to be added, for `member.refused`.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<Id>)]
    user_ids: &'a [UserId],
}

impl Problem {
    pub fn new(code: Code) -> Self {
        Self {
            code,
            status: None,
            detail: None,
            errors: Vec::new(),
            users: Box::default(),
            retry_after: None,
            cause: None,
        }
    }

    /// `request.invalid`, with every field that is wrong.
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::new(Code::RequestInvalid) }
    }

    /// `request.invalid`, with the one field that is wrong.
    pub fn invalid(field: &'static str, code: &'static str) -> Self {
        Self::invalid_fields(vec![FieldError { field, code }])
    }

    /// `auth.mismatch`: the page that sent the request is of a foreign origin.
    pub fn forbidden_origin() -> Self {
        Self::new(Code::AuthMismatch).status(StatusCode::FORBIDDEN).detail("the origin is not allowed here")
    }

    /// `request.invalid`: the path serves WebSockets alone, and the request is no opening handshake.
    pub fn upgrade_required() -> Self {
        Self::new(Code::RequestInvalid)
            .status(StatusCode::UPGRADE_REQUIRED)
            .detail("this is a WebSocket endpoint: the request is no opening handshake of version 13")
    }

    /// `server.unavailable`: a dependency is away. Which one is not said to the client.
    pub fn unavailable() -> Self {
        Self::new(Code::ServerUnavailable).wait(RETRY_AFTER)
    }

    /// `rate.limited`.
    pub fn limited(retry_after: Duration) -> Self {
        Self::new(Code::RateLimited).wait(retry_after)
    }

    /// Answers with this status instead of the code's own.
    #[must_use]
    pub const fn status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// Adds a sentence for the client. It must hold no secret of the request and nothing internal.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Tells the client to come back after this time.
    #[must_use]
    pub const fn retry_after(self, seconds: u64) -> Self {
        self.wait(Duration::from_secs(seconds))
    }

    fn because_of(mut self, cause: Arc<dyn Error + Send + Sync>) -> Self {
        self.cause = Some(Cause(cause));
        self
    }

    const fn wait(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// The names of the refused fields.
    #[cfg(test)]
    pub(crate) fn fields(&self) -> Vec<&'static str> {
        self.errors.iter().map(|error| error.field).collect()
    }

    fn http_status(&self) -> StatusCode {
        let of_code =
            || StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        self.status.unwrap_or_else(of_code)
    }

    /// The document, for an answer with this status.
    pub fn body(&self, status: StatusCode) -> Vec<u8> {
        let body = ProblemBody {
            r#type: format!("{TYPE_PREFIX}{}", self.code),
            title: self.code.title(),
            status: status.as_u16(),
            code: self.code.as_str(),
            detail: self.detail.as_deref(),
            trace_id: TRACE_ID.try_with(Clone::clone).unwrap_or_default(),
            errors: &self.errors,
            user_ids: &self.users,
        };
        // Serialising strings and numbers into memory cannot fail.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        let problem = Self::new(code);
        if problem.http_status() == StatusCode::SERVICE_UNAVAILABLE {
            problem.wait(RETRY_AFTER)
        } else {
            problem
        }
    }
}

impl From<sql::Error> for Problem {
    fn from(error: sql::Error) -> Self {
        let problem =
            if error.is_temporary() { Self::unavailable() } else { Self::new(Code::ServerInternal) };
        problem.because_of(Arc::new(error))
    }
}

impl From<PasswordError> for Problem {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy(wait) => Self::new(Code::ServerUnavailable).wait(wait),
            PasswordError::Bcrypt(_) | PasswordError::Panicked(_) => {
                Self::new(Code::ServerInternal).because_of(Arc::new(error))
            }
        }
    }
}

impl From<CannotSign> for Problem {
    fn from(_logged: CannotSign) -> Self {
        Self::new(Code::ServerInternal)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let mut problem = Self::from(failure.code).detail(failure.message);
        problem.users = failure.users;
        if let Some(source) = failure.source {
            problem = problem.because_of(source);
        }
        match failure.retry_after_ms {
            0 => problem,
            ms => problem.wait(Duration::from_millis(ms)),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.http_status();
        let mut response = Response::new(Body::from(self.body(status)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, challenge(self.code));
        }
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        response.extensions_mut().insert(self.code);
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

/// The challenge of a 401, by RFC 6750: it names an error only if the request brought a token.
const fn challenge(code: Code) -> HeaderValue {
    match code {
        Code::AuthInvalidToken | Code::AuthExpired | Code::AuthRevoked => {
            HeaderValue::from_static(r#"Bearer realm="mini-telegram", error="invalid_token""#)
        }
        _ => HeaderValue::from_static(r#"Bearer realm="mini-telegram""#),
    }
}

/// The wait in whole seconds, as `Retry-After` needs it: rounded up, so that a client does not come too early.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1_000).max(1) as u64
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn parts(problem: Problem) -> (http::response::Parts, serde_json::Value) {
        let (parts, body) = problem.into_response().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn a_problem_has_all_members() {
        let problem = Problem::invalid_fields(vec![FieldError { field: "email", code: "missing" }]);
        let (head, body) = TRACE_ID.scope("ab".repeat(16), parts(problem)).await;
        assert_eq!(head.status, 422);
        assert_eq!(head.headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(body["type"], "urn:mini-telegram:problem:request.invalid");
        assert_eq!(body["status"], 422);
        assert_eq!(body["code"], "request.invalid");
        assert_eq!(body["traceId"], "ab".repeat(16));
        assert_eq!(body["errors"][0]["field"], "email");
    }

    #[test]
    fn only_a_request_with_a_bad_token_is_told_so() {
        let bad = HeaderValue::from_static(r#"Bearer realm="mini-telegram", error="invalid_token""#);
        for code in Code::ALL.into_iter().filter(|code| code.status() == 401) {
            let without_token = [Code::AuthMissing, Code::AuthInvalidCredentials].contains(&code);
            assert_eq!(challenge(code) != bad, without_token, "{code}");
        }
    }

    #[tokio::test]
    async fn every_401_carries_a_challenge_and_every_503_and_429_a_wait() {
        for code in Code::ALL {
            let (head, body) = parts(Problem::from(code)).await;
            assert_eq!(head.headers.contains_key(header::WWW_AUTHENTICATE), head.status == 401, "{code}");
            if head.status == 503 {
                assert!(head.headers.contains_key(header::RETRY_AFTER), "{code}");
            }
            assert_eq!(body["code"], code.as_str());
        }
        let (head, _) = parts(Problem::limited(Duration::from_millis(1_001))).await;
        assert_eq!(head.headers[header::RETRY_AFTER], "2");
    }
}
