//! Proofs of who a client is: passwords, access tokens, refresh tokens, one-time tickets, and their revocation.
//!
//! A login on a device begins a token family: the refresh tokens that follow each other, and the access tokens that
//! they were exchanged for. Ending the family ends all of them. Invariants: no token, ticket, password or e-mail leaves
//! this module in a log line, a metric or an error; secrets are stored as hashes only.

pub mod family;
pub mod keys;
pub mod password;
pub mod refresh;
pub mod revocation;
pub mod ticket;
pub mod token;
mod verified;

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use shared::{code::Code, id::UserId};
use uuid::Uuid;

pub use self::{
    family::Families, password::Passwords, revocation::Revocations, ticket::Tickets, token::Tokens,
};

#[derive(Debug, Clone, clap::Args)]
pub struct AuthSettings {
    /// The folder with `jwt.pem` and `cursor.key`; `gateway keys` creates them.
    #[arg(long, env = "MT_KEYS_DIR", default_value = "keys")]
    pub keys_dir: PathBuf,
    /// The issuer in access tokens.
    #[arg(long, env = "MT_JWT_ISSUER", default_value = "mini-telegram")]
    pub jwt_issuer: String,
    /// The audience in access tokens.
    #[arg(long, env = "MT_JWT_AUDIENCE", default_value = "mini-telegram")]
    pub jwt_audience: String,
    /// How long an access token lives, in seconds.
    #[arg(long, env = "MT_ACCESS_TTL_S", default_value_t = 900,
        value_parser = clap::value_parser!(u64).range(1..=revocation::LONGEST_ACCESS_TTL_S))]
    pub access_ttl_s: u64,
    /// How long a refresh token lives, in seconds.
    #[arg(long, env = "MT_REFRESH_TTL_S", default_value_t = 604_800, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub refresh_ttl_s: u64,
    /// The cost of bcrypt; each step doubles the time.
    #[arg(long, env = "MT_BCRYPT_COST", default_value_t = 12, value_parser = clap::value_parser!(u32).range(4..=16))]
    pub bcrypt_cost: u32,
    /// Passwords hashed at a time; by default half of the cores.
    #[arg(long, env = "MT_BCRYPT_PARALLEL")]
    pub bcrypt_parallel: Option<usize>,
    /// Passwords that may wait to be hashed, of known places and of others each; what comes on top is told to come back
    /// later.
    #[arg(long, env = "MT_BCRYPT_QUEUE", default_value_t = 32)]
    pub bcrypt_queue: usize,
    /// How long a password may wait to be hashed, in milliseconds.
    #[arg(long, env = "MT_BCRYPT_WAIT_MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=19_000))]
    pub bcrypt_wait_ms: u64,
    /// How often revocations are read again, in milliseconds, for those whose signal was missed.
    #[arg(long, env = "MT_REVOCATION_POLL_MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    pub revocation_poll_ms: u64,
}

/// The user that a client has proven to be, and how long the proof holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub user: UserId,
    /// The token family: one login on one device.
    #[serde(rename = "did")]
    pub family: Uuid,
    /// When the access token expires, Unix ms.
    pub expires_ms: u64,
}

/// Checks every proof of identity that clients bring.
pub struct Auth {
    pub tokens: Tokens,
    pub tickets: Tickets,
    pub passwords: Passwords,
    pub revocations: Arc<Revocations>,
    pub families: Arc<Families>,
    /// How long a refresh token lives, in seconds.
    pub refresh_ttl_s: u64,
}

impl Auth {
    /// The user of an access token, unless its family was revoked.
    ///
    /// # Errors
    /// `auth.*`.
    pub fn identify(&self, token: &str) -> Result<Identity, Code> {
        self.refuse_revoked(self.tokens.verify(token)?)
    }

    /// The user of a one-time ticket, unless the family was revoked meanwhile. The ticket is void from now on.
    ///
    /// # Errors
    /// Those of [`Tickets::redeem`], and `auth.revoked`.
    pub async fn redeem(&self, ticket: &str) -> Result<Identity, Code> {
        self.refuse_revoked(self.tickets.redeem(ticket).await?)
    }

    fn refuse_revoked(&self, identity: Identity) -> Result<Identity, Code> {
        if self.revocations.is_revoked(identity.family) { Err(Code::AuthRevoked) } else { Ok(identity) }
    }
}

/// The SHA-256 of a secret. The secret must be random enough to need no slow hash.
pub(crate) fn digest(secret: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes()).as_ref());
    out
}

/// 256 random bits in base64url; `None` if the system has no randomness.
fn random_secret() -> Option<secrecy::SecretString> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes).into())
}
