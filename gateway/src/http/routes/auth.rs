//! `/v1/auth`: register, login, refresh, logout.
//!
//! Invariants: a login with an unknown e-mail takes as long and is answered the same as one with a wrong password; the
//! routes here serve no page of a foreign origin.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use shared::{code::Code, id::UserId};
use sql::tokens::Rotation;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::refresh::Refresh,
    http::{
        answer::{
            problem::Problem,
            refusals::{
                EmailTaken, FromForeignPage, Invalid, Limited, LoginFailed, LogoutFailed, RefreshFailed,
                WithBody,
            },
            schema::Name,
            view::Me,
        },
        limits::{Limit, address_key, known::AccountAt},
        request::{
            body::{FromFields, Json},
            caller::Client,
            cookie,
            fields::Fields,
            rules,
        },
        services::Services,
    },
    infra::clock::unix_ms,
};

/// The label of a device that names itself none.
const SOME_DEVICE: &str = "web";

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Register {
    #[schema(format = Email, max_length = 254, example = "ada@example.org")]
    email: String,
    /// 8 to 256 characters.
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 256)]
    password: SecretString,
    /// By default a made-up one, which does not show the e-mail.
    #[schema(value_type = Option<Name>)]
    display_name: Option<String>,
    /// What kind of device this is.
    #[schema(pattern = "^[a-z]{1,16}(:[A-Za-z0-9_-]{1,64})?$")]
    device: Option<String>,
}

impl FromFields for Register {
    fn read(fields: &mut Fields) -> Option<Self> {
        let email = fields.required("email", rules::email);
        let password = fields.required("password", rules::new_password);
        let display_name = fields.optional("displayName", rules::name);
        let device = fields.optional("device", rules::device);
        Some(Self { email: email?, password: password?, display_name, device })
    }
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct Login {
    #[schema(example = "ada@example.org")]
    email: String,
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// What kind of device this is.
    #[schema(pattern = "^[a-z]{1,16}(:[A-Za-z0-9_-]{1,64})?$")]
    device: Option<String>,
}

impl FromFields for Login {
    fn read(fields: &mut Fields) -> Option<Self> {
        let email = fields.required("email", rules::any_text);
        let password = fields.required("password", rules::password);
        let device = fields.optional("device", rules::device);
        Some(Self { email: email?, password: password?, device })
    }
}

/// Who is logged in now.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoggedIn {
    user: Me,
    #[serde(flatten)]
    access: Access,
}

/// An access token.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    access_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// In seconds.
    #[schema(example = 900)]
    expires_in: u64,
}

impl Access {
    fn new(services: &Services, user: UserId, family: Uuid) -> Result<Self, Problem> {
        let access_token = services.auth.tokens.issue(user, family)?;
        Ok(Self { access_token, token_type: "Bearer", expires_in: services.auth.tokens.ttl_s() })
    }
}

/// Create an account and log in.
#[utoipa::path(post, path = "/v1/auth/register", tag = "auth", request_body = Register, responses(
    (status = 201, body = LoggedIn, headers(("Set-Cookie", description = "the refresh token"), ("Location"))),
    Invalid, Limited, WithBody, EmailTaken,
))]
pub async fn register(
    State(services): State<Arc<Services>>,
    client: Client,
    headers: HeaderMap,
    Json(asked): Json<Register>,
) -> Result<Response, Problem> {
    admit(&services, &client, &headers).await?;
    let taken = || Problem::new(Code::AuthEmailTaken);
    // Looked up before the password is hashed, so that no hash is computed for nothing.
    if services.db.user_by_email(&asked.email).await?.is_some() {
        return Err(taken());
    }
    let hash = services.auth.passwords.hash(asked.password).await?;
    let display_name = asked.display_name.unwrap_or_else(made_up_name);
    let created = services.db.create_user(&asked.email, &display_name, &hash, unix_ms()).await?;
    let id = created.ok_or_else(taken)?;
    AccountAt::new(&asked.email, client.address).remember(&services.redis).await;
    let user = Me { id, email: asked.email, display_name };
    let mut response = log_in(&services, &client, &headers, user, asked.device.as_deref()).await?;
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/v1/me"));
    Ok(response)
}

/// Log in with e-mail and password.
#[utoipa::path(post, path = "/v1/auth/login", tag = "auth", request_body = Login, responses(
    (status = 200, body = LoggedIn, headers(("Set-Cookie", description = "the refresh token"))),
    Invalid, Limited, WithBody, LoginFailed,
))]
pub async fn login(
    State(services): State<Arc<Services>>,
    client: Client,
    headers: HeaderMap,
    Json(asked): Json<Login>,
) -> Result<Response, Problem> {
    admit(&services, &client, &headers).await?;
    let (email, is_email) = match rules::normal_email(&asked.email) {
        Some(email) => (email, true),
        None => (asked.email, false),
    };
    let account = AccountAt::new(&email, client.address);
    let key = account.failure_key(&services.redis).await;
    services.limits.check(Limit::LoginFailuresPerAccount, &key).await?;
    let found = if is_email { services.db.user_by_email(&email).await } else { Ok(None) };
    let checked = match found {
        Ok(found) => check(&services, found, asked.password).await,
        Err(error) => Err(error.into()),
    };
    // Only a wrong password counts as a failure. A success, or an error that says nothing about it, does not.
    if !matches!(&checked, Err(problem) if problem.code == Code::AuthInvalidCredentials) {
        services.limits.give_back(Limit::LoginFailuresPerAccount, &key).await;
    }
    let user = checked?;
    account.remember(&services.redis).await;
    log_in(&services, &client, &headers, user, asked.device.as_deref()).await
}

/// The account, if it exists and the password is its own. Takes as long if it does not exist.
async fn check(
    services: &Services,
    found: Option<sql::accounts::Account>,
    password: SecretString,
) -> Result<Me, Problem> {
    let (user, hash) = found.map(|account| (account.user, account.password_hash)).unzip();
    let fits = services.auth.passwords.verify(password, hash.flatten()).await?;
    user.filter(|_| fits).map(Me::from).ok_or_else(|| Problem::new(Code::AuthInvalidCredentials))
}

/// Exchange the refresh token for the next one and an access token.
///
/// A refresh token that comes a second time was stolen: its whole family is revoked.
#[utoipa::path(post, path = "/v1/auth/refresh", tag = "auth", security(("refreshToken" = [])), responses(
    (status = 200, body = Access, headers(("Set-Cookie", description = "the next refresh token"))),
    Limited, FromForeignPage, RefreshFailed,
))]
pub async fn refresh(
    State(services): State<Arc<Services>>,
    client: Client,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    admit(&services, &client, &headers).await?;
    let secure = cookie::is_secure(&headers, client.plain_http);
    match rotate(&services, &headers).await {
        Ok((access, next)) => {
            let mut response = no_store(axum::Json(access));
            set_cookie(&mut response, cookie::set(&next.token, services.auth.refresh_ttl_s, secure));
            Ok(response)
        }
        // The token will never work again, so the browser forgets it.
        Err(problem) if problem.code != Code::AuthMissing && problem.code.status() == 401 => {
            let mut response = problem.into_response();
            set_cookie(&mut response, cookie::clear(secure));
            Ok(response)
        }
        Err(problem) => Err(problem),
    }
}

/// Exchanges the refresh token in the cookie for the next one.
async fn rotate(services: &Services, headers: &HeaderMap) -> Result<(Access, Refresh), Problem> {
    let old = refresh_hash(headers)?;
    let next = Refresh::new().ok_or(Code::ServerInternal)?;
    let now = unix_ms();
    let expires = now + services.auth.refresh_ttl_s * 1_000;
    match services.db.rotate(&old, &next.hash, now, expires).await? {
        Rotation::Rotated { user, did: family, .. } => Ok((Access::new(services, user, family)?, next)),
        Rotation::Reused { user, did: family } => {
            tracing::warn!(%user, did = %family, "a refresh token came twice: its family is revoked");
            services.auth.families.announce(user, family).await;
            Err(Code::AuthRevoked.into())
        }
        Rotation::Revoked => Err(Code::AuthRevoked.into()),
        Rotation::Expired => Err(Code::AuthExpired.into()),
        Rotation::Unknown => Err(Code::AuthInvalidToken.into()),
    }
}

/// Log out: the refresh token and all access tokens of its family are void, its sockets are closed.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "auth", security(("refreshToken" = [])), responses(
    (status = 204, headers(("Set-Cookie", description = "removes the refresh token"))),
    Limited, FromForeignPage, LogoutFailed,
))]
pub async fn logout(
    State(services): State<Arc<Services>>,
    client: Client,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    admit(&services, &client, &headers).await?;
    let hash = refresh_hash(&headers)?;
    let found = services.db.family_of(&hash).await?.ok_or(Code::AuthInvalidToken)?;
    services.auth.families.end(found.user, found.did).await?;
    let mut response = no_store(StatusCode::NO_CONTENT);
    set_cookie(&mut response, cookie::clear(cookie::is_secure(&headers, client.plain_http)));
    Ok(response)
}

/// Refuses pages of foreign origins, and too many calls from one address.
async fn admit(services: &Services, client: &Client, headers: &HeaderMap) -> Result<(), Problem> {
    if !services.origins.allowed(headers) {
        return Err(Problem::forbidden_origin());
    }
    Ok(services.limits.check(Limit::AuthPerAddress, &address_key(client.address)).await?)
}

/// Begins a token family and answers with its first tokens.
async fn log_in(
    services: &Services,
    client: &Client,
    headers: &HeaderMap,
    user: Me,
    device: Option<&str>,
) -> Result<Response, Problem> {
    let (family, refresh) = (Uuid::new_v4(), Refresh::new().ok_or(Code::ServerInternal)?);
    let (now, ttl_s) = (unix_ms(), services.auth.refresh_ttl_s);
    let device = device.unwrap_or(SOME_DEVICE);
    services.db.create_family(family, user.id, device, &refresh.hash, now, now + ttl_s * 1_000).await?;
    let access = Access::new(services, user.id, family)?;
    let mut response = no_store(axum::Json(LoggedIn { user, access }));
    let secure = cookie::is_secure(headers, client.plain_http);
    set_cookie(&mut response, cookie::set(&refresh.token, ttl_s, secure));
    Ok(response)
}

fn refresh_hash(headers: &HeaderMap) -> Result<[u8; 32], Problem> {
    let token = cookie::refresh_token(headers).ok_or(Code::AuthMissing)?;
    Ok(Refresh::hash_of(token.expose_secret()).ok_or(Code::AuthInvalidToken)?)
}

fn set_cookie(response: &mut Response, cookie: Option<HeaderValue>) {
    if let Some(cookie) = cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
}

pub(super) fn no_store(response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A name for a user who gave none. It must not show the e-mail.
fn made_up_name() -> String {
    let mut digits = Uuid::new_v4().simple().to_string();
    digits.truncate(6);
    format!("User {digits}")
}
