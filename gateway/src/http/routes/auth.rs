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
use sql::{
    accounts::{Account, GroupInvites, User},
    tokens::{Lives, Rotation},
};
use tokio::task::JoinHandle;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    auth::{password::queue::Lane, refresh::Refresh},
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
        limits::{
            Limit, address_key,
            known::{AccountAt, Place},
        },
        request::{
            body::{FromFields, Unread},
            caller::Client,
            cookie,
            fields::Fields,
            lookup, rules,
        },
        services::Services,
    },
    infra::clock::unix_ms,
};

/// The label of a device that names itself none.
const SOME_DEVICE: &str = "web";
/// How long after the record of its life an access token may be issued: as long as a request may take.
const ISSUED_WITHIN_S: u64 = 20;

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
    Invalid, Limited, WithBody, FromForeignPage, EmailTaken,
))]
pub async fn register(
    State(services): State<Arc<Services>>,
    client: Client,
    headers: HeaderMap,
    unread: Unread,
) -> Result<Response, Problem> {
    admit(&services, &client, &headers).await?;
    let asked: Register = read(&services, &client, unread).await?;
    let taken = || Problem::new(Code::AuthEmailTaken);
    // Looked up before the password is hashed, so that no hash is computed for nothing.
    if services.db.user_by_email(&asked.email).await?.is_some() {
        lookup::anonymous(&services, &client).await?;
        return Err(taken());
    }
    let hash = services.auth.passwords.hash(asked.password).await?;
    let display_name = asked.display_name.unwrap_or_else(made_up_name);
    let created = services.db.create_user(&asked.email, &display_name, &hash, unix_ms()).await?;
    let id = created.ok_or_else(taken)?;
    AccountAt::new(&asked.email, client.address).remember(&services.redis).await;
    let group_invites = GroupInvites::default();
    let user = Me::from(User { id, email: asked.email, display_name, group_invites });
    let mut response = log_in(&services, &client, &headers, user, asked.device.as_deref()).await?;
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/v1/me"));
    Ok(response)
}

/// Log in with e-mail and password.
#[utoipa::path(post, path = "/v1/auth/login", tag = "auth", request_body = Login, responses(
    (status = 200, body = LoggedIn, headers(("Set-Cookie", description = "the refresh token"))),
    Invalid, Limited, WithBody, FromForeignPage, LoginFailed,
))]
pub async fn login(
    State(services): State<Arc<Services>>,
    client: Client,
    headers: HeaderMap,
    unread: Unread,
) -> Result<Response, Problem> {
    admit(&services, &client, &headers).await?;
    let asked: Login = read(&services, &client, unread).await?;
    let (email, is_email) = match rules::normal_email(&asked.email) {
        Some(email) => (email, true),
        None => (asked.email, false),
    };
    let found = if is_email { services.db.user_by_email(&email).await? } else { None };
    let account = AccountAt::new(&email, client.address);
    let device = device_of(&services, &headers, found.as_ref()).await?;
    let Place { failures, lane } = account.place(&services.redis, device).await;
    services.limits.check(Limit::LoginFailuresPerAccount, &failures).await?;
    let mut counted = Counted { services: services.clone(), failures: Some(failures) };
    let checked = check(&services, found, &email, asked.password, lane).await;
    if matches!(&checked, Err(problem) if problem.code == Code::AuthInvalidCredentials) {
        counted.failures = None;
    } else if let Some(given_back) = counted.give_back() {
        let _the_task_panicked = given_back.await.is_err();
    }
    let user = checked?;
    account.remember(&services.redis).await;
    log_in(&services, &client, &headers, user, asked.device.as_deref()).await
}

/// A login that was counted as a failure beforehand. Only a wrong password is one. A success is none, and neither is an
/// error that says nothing about the password, or a client that went away before the answer: dropped, it is given back.
struct Counted {
    services: Arc<Services>,
    /// The key under which it counts; `None` if it stays counted.
    failures: Option<String>,
}

impl Counted {
    /// Gives it back in a task of its own, which goes on if the request ends meanwhile.
    fn give_back(&mut self) -> Option<JoinHandle<()>> {
        let (failures, services) = (self.failures.take()?, self.services.clone());
        let give = async move { services.limits.give_back(Limit::LoginFailuresPerAccount, &failures).await };
        Some(self.services.sockets.tracker.spawn(give))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        drop(self.give_back());
    }
}

/// The token family of this account that the client's cookie belongs to, if the device is still logged in to it. Takes as
/// long if there is no such account.
async fn device_of(
    services: &Services,
    headers: &HeaderMap,
    account: Option<&Account>,
) -> Result<Option<Uuid>, Problem> {
    let Ok(hashes) = refresh_hashes(headers) else { return Ok(None) };
    let mut device = None;
    for hash in hashes {
        let family = services.db.family_of(&hash).await?;
        let own = family.filter(|family| account.is_some_and(|account| account.user.id == family.user));
        device = device.or(own.map(|family| family.did));
    }
    Ok(device)
}

/// The account, if it exists and the password is its own. Takes as long if it does not exist. A hash of another cost
/// than today's is renewed.
async fn check(
    services: &Services,
    found: Option<Account>,
    email: &str,
    password: SecretString,
    lane: Lane,
) -> Result<Me, Problem> {
    let passwords = &services.auth.passwords;
    let (user, hash) = found.map(|account| (account.user, account.password_hash)).unzip();
    let hash = hash.flatten();
    let fits = passwords.verify(password.clone(), hash.clone(), email, lane).await?;
    let user = user.filter(|_| fits).ok_or_else(|| Problem::new(Code::AuthInvalidCredentials))?;
    if let Some(old) = hash
        && let Some(new) = passwords.renewed(password, &old).await
        && let Err(error) = services.db.renew_password_hash(user.id, &old, &new).await
    {
        tracing::debug!(%error, "a password's hash was not renewed; the next login does it");
    }
    Ok(user.into())
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
    // A refusal leaves the cookie alone: the browser may hold a newer one by now, which another tab's login has set.
    let (access, next) = rotate(&services, &headers).await?;
    let secure = cookie::is_secure(&headers, client.plain_http);
    let mut response = no_store(axum::Json(access));
    set_cookie(&mut response, cookie::set(&next.token, services.auth.refresh_ttl_s, secure));
    Ok(response)
}

/// Exchanges the refresh token in the cookie for the next one. Of several cookies, the first that can be exchanged.
async fn rotate(services: &Services, headers: &HeaderMap) -> Result<(Access, Refresh), Problem> {
    let mut refused = None;
    for hash in exchangeable(services, headers).await? {
        match rotate_one(services, &hash).await {
            Err(problem) if problem.code.status() == 401 => refused = refused.or(Some(problem)),
            outcome => return outcome,
        }
    }
    Err(refused.unwrap_or_else(|| Code::AuthInvalidToken.into()))
}

/// The tokens that may be exchanged. A page of a sibling domain can plant a cookie of our name beside ours. One that is
/// no token of ours is passed over. One of another user makes it impossible to tell who the browser's user is: then
/// nobody is logged in.
async fn exchangeable(services: &Services, headers: &HeaderMap) -> Result<Vec<[u8; 32]>, Problem> {
    let hashes = refresh_hashes(headers)?;
    if hashes.len() == 1 {
        return Ok(hashes);
    }
    let (mut living, mut users) = (Vec::new(), Vec::new());
    for hash in &hashes {
        if let Some(family) = services.db.family_of(hash).await? {
            living.push(*hash);
            users.push(family.user);
        }
    }
    users.dedup();
    match users.len() {
        0 => Ok(hashes),
        1 => Ok(living),
        _ => Err(Problem::from(Code::AuthInvalidToken).detail("there are cookies of several users")),
    }
}

async fn rotate_one(services: &Services, old: &[u8; 32]) -> Result<(Access, Refresh), Problem> {
    let next = Refresh::new().ok_or(Code::ServerInternal)?;
    match services.db.rotate(old, &next.hash, lives(services)).await? {
        Rotation::Rotated { user, did: family, .. } => Ok((Access::new(services, user, family)?, next)),
        Rotation::Reused(family) => {
            tracing::warn!(user = %family.user, did = %family.did, "a refresh token came twice: its family is revoked");
            services.auth.families.announce(&family).await;
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
    let mut ended = false;
    for hash in refresh_hashes(&headers)? {
        if let Some(family) = services.db.family_of(&hash).await? {
            services.auth.families.end(family.user, family.did).await?;
            ended = true;
        }
    }
    if !ended {
        return Err(Code::AuthInvalidToken.into());
    }
    let mut response = no_store(StatusCode::NO_CONTENT);
    set_cookie(&mut response, cookie::clear(cookie::is_secure(&headers, client.plain_http)));
    Ok(response)
}

/// Refuses pages of foreign origins, and too many calls from one address.
async fn admit(services: &Services, client: &Client, headers: &HeaderMap) -> Result<(), Problem> {
    if !services.origins.allowed(headers, client.peer) {
        return Err(Problem::forbidden_origin());
    }
    Ok(services.limits.check(Limit::AuthPerAddress, &address_key(client.address)).await?)
}

/// Reads the body of a call that was counted. One that came with mistakes in its fields is taken back from the count, as
/// it tried no password.
async fn read<T: FromFields>(services: &Services, client: &Client, unread: Unread) -> Result<T, Problem> {
    let asked = unread.json().await;
    if matches!(&asked, Err(problem) if problem.code == Code::RequestInvalid) {
        services.limits.give_back(Limit::AuthPerAddress, &address_key(client.address)).await;
    }
    asked
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
    let ttl_s = services.auth.refresh_ttl_s;
    let device = device.unwrap_or(SOME_DEVICE);
    services.db.create_family(family, user.id, device, &refresh.hash, lives(services)).await?;
    let access = Access::new(services, user.id, family)?;
    let mut response = no_store(axum::Json(LoggedIn { user, access }));
    let secure = cookie::is_secure(headers, client.plain_http);
    set_cookie(&mut response, cookie::set(&refresh.token, ttl_s, secure));
    Ok(response)
}

/// The lives of the tokens that are made now.
fn lives(services: &Services) -> Lives {
    let (now_ms, auth) = (unix_ms(), &services.auth);
    // The access token is issued after this is recorded, perhaps in the next second.
    let access_until_ms = now_ms + (auth.tokens.ttl_s() + ISSUED_WITHIN_S) * 1_000;
    Lives { now_ms, access_until_ms, refresh_until_ms: now_ms + auth.refresh_ttl_s * 1_000 }
}

/// The hashes of the refresh tokens that the browser sent: at least one.
fn refresh_hashes(headers: &HeaderMap) -> Result<Vec<[u8; 32]>, Problem> {
    let tokens = cookie::refresh_tokens(headers);
    if tokens.is_empty() {
        return Err(Code::AuthMissing.into());
    }
    let hashes: Vec<_> = tokens.iter().filter_map(|token| Refresh::hash_of(token.expose_secret())).collect();
    if hashes.is_empty() { Err(Code::AuthInvalidToken.into()) } else { Ok(hashes) }
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
