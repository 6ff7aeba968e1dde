//! Refresh tokens: opaque, stored hashed, rotated at each use.

use secrecy::{ExposeSecret, SecretString};

use super::{digest, random_secret};

/// Longer than any token of ours.
const MAX_LENGTH: usize = 64;

/// A refresh token and its hash.
pub struct Refresh {
    pub token: SecretString,
    pub hash: [u8; 32],
}

impl Refresh {
    /// A new one; `None` if the system has no randomness to give.
    pub fn new() -> Option<Self> {
        let token = random_secret()?;
        let hash = digest(token.expose_secret());
        Some(Self { token, hash })
    }

    /// The hash of one that a client sent; `None` for what cannot be one.
    pub fn hash_of(token: &str) -> Option<[u8; 32]> {
        (!token.is_empty() && token.len() <= MAX_LENGTH).then(|| digest(token))
    }
}
