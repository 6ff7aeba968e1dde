//! Where a login comes from: a place that the account knows, or any other.
//!
//! Failed logins are limited per account, and hashing is limited for everybody. If that were all, a stranger who guesses
//! passwords could lock owners out. So an address from which somebody logged in to the account before, and a device that
//! is logged in to it still, has a count of its own and hashes first. Invariants: the names of keys hold hashes, never
//! an e-mail; only a login that succeeded makes a place known, and for a bounded time.

use std::{net::IpAddr, time::Duration};

use fred::{interfaces::KeysInterface, types::Expiration};

use uuid::Uuid;

use super::address_key;
use crate::{
    auth::{digest, password::queue::Lane},
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

/// How a login from some place is treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The key under which its failures count.
    pub failures: String,
    /// With whom its password waits to be hashed.
    pub lane: Lane,
}

impl AccountAt {
    pub fn new(email: &str, address: IpAddr) -> Self {
        let hash = digest(email);
        let account = hash[..NAME_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { account, address: address_key(address) }
    }

    /// What the account knows of the place. `device` is the token family of this account that the client has, if it has
    /// one. While Redis is away it cannot be told which addresses are known, and each address has its own count.
    pub async fn place(&self, redis: &Redis, device: Option<Uuid>) -> Place {
        if let Some(family) = device {
            return self.known(&family.simple().to_string());
        }
        let key = self.known_key(redis);
        self.place_if(redis.run(async |client| client.exists::<bool, _>(key).await).await)
    }

    fn place_if(&self, is_known: Result<bool, Down>) -> Place {
        match is_known {
            Ok(true) => self.known(&self.address),
            Ok(false) => Place { failures: self.account.clone(), lane: Lane::Stranger },
            Err(Down) => Place { lane: Lane::Stranger, ..self.known(&self.address) },
        }
    }

    fn known(&self, place: &str) -> Place {
        Place { failures: format!("{}:{place}", self.account), lane: Lane::Known }
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
        let failures = |at: &AccountAt, is_known| at.place_if(Ok(is_known)).failures;
        assert_eq!(failures(&home, false), failures(&stranger, false));
        assert_ne!(failures(&home, true), failures(&stranger, false));
        assert_ne!(failures(&home, true), failures(&stranger, true));
        assert_ne!(failures(&stranger, false), failures(&other, false), "accounts are counted separately");
        assert_eq!(home.place_if(Ok(true)).lane, Lane::Known);
        assert_eq!(home.place_if(Ok(false)).lane, Lane::Stranger);
    }

    #[test]
    fn a_device_is_known_wherever_it_is() {
        let (home, away) = (at("ada@example.org", "203.0.113.1"), at("ada@example.org", "203.0.113.2"));
        let family = Uuid::new_v4().simple().to_string();
        assert_eq!(home.known(&family), away.known(&family));
        assert_ne!(home.known(&family).failures, home.place_if(Ok(true)).failures);
    }

    #[test]
    fn without_redis_each_address_has_its_own_count_and_nobody_goes_first() {
        let (home, stranger) = (at("ada@example.org", "203.0.113.1"), at("ada@example.org", "203.0.113.2"));
        let down = |at: &AccountAt| at.place_if(Err(Down));
        assert_ne!(down(&home).failures, down(&stranger).failures);
        assert_eq!(down(&home).failures, home.place_if(Ok(true)).failures);
        assert_eq!(down(&home).lane, Lane::Stranger);
    }

    #[test]
    fn the_addresses_of_one_ipv6_client_are_one() {
        let (one, two) = (at("ada@example.org", "2001:db8::1"), at("ada@example.org", "2001:db8::2"));
        assert_eq!(one.place_if(Ok(true)), two.place_if(Ok(true)));
    }

    #[test]
    fn no_key_holds_the_email() {
        let key = at("ada@example.org", "203.0.113.1").place_if(Ok(true)).failures;
        assert!(!key.contains("ada") && !key.contains('@'), "{key}");
    }
}
