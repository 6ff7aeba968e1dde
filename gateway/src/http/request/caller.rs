//! Extractors: the user behind the access token, the client's address, and the ids in the path.

use std::{net::IpAddr, str::FromStr, sync::Arc};

use axum::extract::{FromRequestParts, Path};
use http::{HeaderMap, header, request::Parts};
use shared::{
    code::Code,
    id::{ChatId, UserId},
};

use crate::{
    auth::Identity,
    command::Actor,
    http::{answer::problem::Problem, limits::Limit, server::Peer, services::Services},
};

/// The user behind a valid access token whose family was not revoked. Every read counts against their limit.
pub struct Caller(pub Identity);

impl Caller {
    pub const fn user(&self) -> UserId {
        self.0.user
    }

    /// The author of the caller's commands. Over HTTP there is no device label.
    pub const fn actor(&self) -> Actor {
        Actor { user: self.0.user, device: String::new() }
    }

    /// Counts a command against the caller's limit.
    ///
    /// # Errors
    /// `rate.limited`.
    pub async fn may_command(&self, services: &Services) -> Result<(), Problem> {
        Ok(services.limits.check(Limit::HttpCommands, &self.user().to_string()).await?)
    }

    /// Counts members that the caller is about to put into a chat. They count also if they are refused: finding that out
    /// costs as much.
    ///
    /// # Errors
    /// `rate.limited`.
    pub async fn may_add(&self, services: &Services, members: usize) -> Result<(), Problem> {
        let count = u32::try_from(members).unwrap_or(u32::MAX);
        Ok(services.limits.check_all(Limit::MemberRows, &self.user().to_string(), count).await?)
    }
}

impl FromRequestParts<Arc<Services>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, services: &Arc<Services>) -> Result<Self, Problem> {
        let token = bearer(&parts.headers).ok_or(Code::AuthMissing)?;
        let caller = Self(services.auth.identify(token)?);
        if let Some(peer) = parts.extensions.get::<Peer>() {
            peer.connection.show_token();
        }
        if parts.method.is_safe() {
            services.limits.check(Limit::Reads, &caller.user().to_string()).await?;
        }
        Ok(caller)
    }
}

/// The access token in the request's head.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The client's address and whether it spoke plain HTTP.
pub struct Client {
    pub address: IpAddr,
    /// The other end of the connection: the client itself, or a proxy.
    pub peer: IpAddr,
    pub plain_http: bool,
}

impl FromRequestParts<Arc<Services>> for Client {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, services: &Arc<Services>) -> Result<Self, Problem> {
        let Some(Peer { address: peer, .. }) = parts.extensions.get::<Peer>() else {
            tracing::error!("a request without a peer");
            return Err(Code::ServerInternal.into());
        };
        let address = services.origins.client_address(&parts.headers, *peer);
        let plain_http = services.origins.is_plain_http(&parts.headers, *peer);
        Ok(Self { address, peer: *peer, plain_http })
    }
}

/// The variable of a path that has one, parsed as an id. Text that is no id is refused like a wrong field.
pub struct Id<T>(pub T);

impl<T: FromStr> FromRequestParts<Arc<Services>> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, services: &Arc<Services>) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, services).await;
        let Path(id) = path.map_err(|_| not_an_id("id"))?;
        parse("id", &id).map(Self)
    }
}

/// The variables of a path that names a chat and a member of it.
pub struct Member {
    pub chat: ChatId,
    pub user: UserId,
}

impl FromRequestParts<Arc<Services>> for Member {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, services: &Arc<Services>) -> Result<Self, Problem> {
        let path = Path::<(String, String)>::from_request_parts(parts, services).await;
        let Path((chat, user)) = path.map_err(|_| not_an_id("id"))?;
        Ok(Self { chat: parse("id", &chat)?, user: parse("userId", &user)? })
    }
}

fn parse<T: FromStr>(name: &'static str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| not_an_id(name))
}

fn not_an_id(name: &'static str) -> Problem {
    Problem::invalid(name, "mistyped")
}
