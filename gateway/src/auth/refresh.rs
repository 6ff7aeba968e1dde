//! Refresh tokens: random texts that are exchanged for the next one at each use. Only their hashes are stored.

use secrecy::{ExposeSecret, SecretString};

use super::{digest, random_secret};

/// Longer than any refresh token: 43 characters of base64url.
const MAX_LENGTH: usize = 64;

/// A refresh token and its hash.
pub struct Refresh {
    pub token: SecretString,
    pub hash: [u8; 32],
}

impl Refresh {
    /// Makes a new token; `None` if the system has no randomness.
    pub fn new() -> Option<Self> {
        let token = random_secret()?;
        let hash = digest(token.expose_secret());
        Some(Self { token, hash })
    }

    /// The hash of a token that a client sent; `None` if the text is too short or too long to be one.
    pub fn hash_of(token: &str) -> Option<[u8; 32]> {
        (!token.is_empty() && token.len() <= MAX_LENGTH).then(|| digest(token))
    }
}
