//! One-time tickets for the URL of a WebSocket.
//!
//! A URL may end up in a proxy's log, where an access token would be a danger. Invariants: a ticket is good for one
//! use within [`TTL`]; Redis holds its hash, never the ticket.

use std::time::Duration;

use fred::{interfaces::KeysInterface, types::Expiration};
use secrecy::{ExposeSecret, SecretString};
use shared::code::Code;

use super::{Identity, digest, random_secret};
use crate::infra::{clock::unix_ms, redis::Redis};

/// Long enough to open a socket on a slow phone, short enough to be worthless in a log.
pub const TTL: Duration = Duration::from_secs(30);
/// Longer than any ticket: 43 characters of base64url.
const MAX_LENGTH: usize = 64;

/// Issues and redeems tickets. Each is kept in Redis under its hash.
pub struct Tickets {
    redis: Redis,
}

impl Tickets {
    pub const fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// Makes a ticket that stands for the identity.
    ///
    /// # Errors
    /// `server.unavailable` while Redis is down.
    pub async fn issue(&self, identity: &Identity) -> Result<SecretString, Code> {
        let ticket = random_secret().ok_or(Code::ServerInternal)?;
        let (key, value) = (self.key(ticket.expose_secret()), to_text(identity)?);
        let expire = Expiration::PX(TTL.as_millis() as i64);
        let set = self
            .redis
            .run(async |client| client.set::<(), _, _>(key, value, Some(expire), None, false).await);
        set.await.map_err(|_down| Code::ServerUnavailable)?;
        Ok(ticket)
    }

    /// The identity that the ticket stands for. The ticket is void from now on.
    ///
    /// # Errors
    /// `auth.invalid_token` if there is no such ticket, or it was used or is too old; `auth.expired` if the access token
    /// that it was issued for has expired; `server.unavailable` while Redis is down.
    pub async fn redeem(&self, ticket: &str) -> Result<Identity, Code> {
        if ticket.is_empty() || ticket.len() > MAX_LENGTH {
            return Err(Code::AuthInvalidToken);
        }
        let key = self.key(ticket);
        let got = self.redis.insist(async |client| client.getdel::<Option<String>, _>(key).await).await;
        let value = got.map_err(|_down| Code::ServerUnavailable)?.ok_or(Code::AuthInvalidToken)?;
        let identity: Identity = serde_json::from_str(&value).map_err(|_| Code::AuthInvalidToken)?;
        if unix_ms() >= identity.expires_ms { Err(Code::AuthExpired) } else { Ok(identity) }
    }

    fn key(&self, ticket: &str) -> String {
        let hash: String = digest(ticket).iter().map(|byte| format!("{byte:02x}")).collect();
        self.redis.key(&format!("ticket:{hash}"))
    }
}

fn to_text(identity: &Identity) -> Result<String, Code> {
    serde_json::to_string(identity).map_err(|_| Code::ServerInternal)
}
