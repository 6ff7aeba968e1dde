//! Which count a failed login belongs to.
//!
//! Failed logins are limited per account. If that were all, a stranger who guesses passwords could lock the owner out.
//! So an address from which somebody logged in to the account before has a count of its own. Invariant: the names of
//! keys hold hashes, never an e-mail.

use std::{net::IpAddr, time::Duration};

use fred::{interfaces::KeysInterface, types::Expiration};

use super::address_key;
use crate::{
    auth::digest,
    infra::redis::{Down, Redis},
};

/// How long an address stays known after a login.
const REMEMBER: Duration = Duration::from_secs(90 * 24 * 3_600);
/// This many bytes of the hash name an account. Among a billion accounts, any two share them with probability 10^-20.
const NAME_BYTES: usize = 16;

/// An account, named by a hash of its e-mail, and the address of a client that tries to log in to it.
#[derive(Debug, Clone)]
pub struct AccountAt {
    account: String,
    address: String,
}

impl AccountAt {
    pub fn new(email: &str, address: IpAddr) -> Self {
        let hash = digest(email);
        let account = hash[..NAME_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { account, address: address_key(address) }
    }

    /// The key under which a failed login from this address counts. While Redis is away it cannot be told which
    /// addresses are known, and each address has its own count.
    pub async fn failure_key(&self, redis: &Redis) -> String {
        let key = self.known_key(redis);
        self.key_if(redis.run(async |client| client.exists::<bool, _>(key).await).await)
    }

    fn key_if(&self, is_known: Result<bool, Down>) -> String {
        match is_known {
            Ok(false) => self.account.clone(),
            Ok(true) | Err(Down) => format!("{}:{}", self.account, self.address),
        }
    }

    /// Notes that a login from this address succeeded.
    pub async fn remember(&self, redis: &Redis) {
        let (key, expire) = (self.known_key(redis), Expiration::EX(REMEMBER.as_secs() as i64));
        let set = redis.run(async |client| client.set::<(), _, _>(key, 1, Some(expire), None, false).await);
        if set.await.is_err() {
            tracing::debug!("an address was not remembered");
        }
    }

    fn known_key(&self, redis: &Redis) -> String {
        redis.key(&format!("known:{}:{}", self.account, self.address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(email: &str, address: &str) -> AccountAt {
        AccountAt::new(email, address.parse().unwrap())
    }

    #[test]
    fn strangers_share_one_count_and_a_known_address_has_its_own() {
        let (home, stranger) = (at("ada@example.org", "203.0.113.1"), at("ada@example.org", "203.0.113.2"));
        let other = at("bob@example.org", "203.0.113.2");
        assert_eq!(home.key_if(Ok(false)), stranger.key_if(Ok(false)));
        assert_ne!(home.key_if(Ok(true)), stranger.key_if(Ok(false)));
        assert_ne!(home.key_if(Ok(true)), stranger.key_if(Ok(true)));
        assert_ne!(stranger.key_if(Ok(false)), other.key_if(Ok(false)), "accounts are counted separately");
    }

    #[test]
    fn without_redis_each_address_has_its_own_count() {
        let (home, stranger) = (at("ada@example.org", "203.0.113.1"), at("ada@example.org", "203.0.113.2"));
        assert_ne!(home.key_if(Err(Down)), stranger.key_if(Err(Down)));
        assert_eq!(home.key_if(Err(Down)), home.key_if(Ok(true)));
    }

    #[test]
    fn the_addresses_of_one_ipv6_client_are_one() {
        let (one, two) = (at("ada@example.org", "2001:db8::1"), at("ada@example.org", "2001:db8::2"));
        assert_eq!(one.key_if(Ok(true)), two.key_if(Ok(true)));
    }

    #[test]
    fn no_key_holds_the_email() {
        let key = at("ada@example.org", "203.0.113.1").key_if(Ok(true));
        assert!(!key.contains("ada") && !key.contains('@'), "{key}");
    }
}
