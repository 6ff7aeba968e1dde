//! Failed logins are counted per account, but a stranger's must not lock out the owner: addresses from which an
//! account was opened before have a count of their own.

use std::{net::IpAddr, time::Duration};

use fred::{interfaces::KeysInterface, types::Expiration};

use super::address_key;
use crate::{auth::digest, infra::redis::Redis};

/// How long an address stays known after a login.
const REMEMBER: Duration = Duration::from_secs(90 * 24 * 3_600);
/// Bytes of a hash that name an account: two of a billion accounts share them with probability 10^-20.
const NAME_BYTES: usize = 16;

/// An account as limits and Redis know it: a hash, for keys hold no e-mail.
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

    /// Under which key a failed login from here counts. Without Redis nobody knows which addresses are known:
    /// then each has its own count.
    pub async fn failure_key(&self, redis: &Redis) -> String {
        let key = self.known_key(redis);
        match redis.run(async |client| client.exists::<bool, _>(key).await).await {
            Ok(false) => self.account.clone(),
            Ok(true) | Err(_) => format!("{}:{}", self.account, self.address),
        }
    }

    /// The owner was here.
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
