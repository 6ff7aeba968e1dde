//! Remembers verified access tokens.
//!
//! Verifying a signature costs 60 µs of CPU, and in a storm of reconnects every device brings a token that was verified
//! before. Invariants: only valid tokens are remembered, under a hash; memory is bounded by two generations, of which
//! the older is dropped when the younger is full.

use std::mem;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::{Identity, digest};

/// Tokens in one generation: half a megabyte.
const GENERATION: usize = 8_192;

/// Half of a SHA-256 of the token. Nobody can find a second token with the same half.
type Key = u128;

/// The verified tokens. A token in the older generation moves to the younger one when it is used.
#[derive(Default)]
pub(super) struct Verified {
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Key, Identity, RandomState>,
    old: HashMap<Key, Identity, RandomState>,
}

impl Verified {
    /// The identity of a token that was verified before. It may have expired since.
    pub(super) fn get(&self, token: &str) -> Option<Identity> {
        let key = key(token);
        let mut generations = self.generations.lock();
        if let Some(identity) = generations.young.get(&key) {
            return Some(*identity);
        }
        let identity = generations.old.remove(&key)?;
        generations.put(key, identity);
        Some(identity)
    }

    /// Remembers a token that was verified.
    pub(super) fn put(&self, token: &str, identity: Identity) {
        self.generations.lock().put(key(token), identity);
    }
}

impl Generations {
    fn put(&mut self, key: Key, identity: Identity) {
        if self.young.len() >= GENERATION {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, identity);
    }
}

fn key(token: &str) -> Key {
    let mut half = [0; 16];
    half.copy_from_slice(&digest(token)[..16]);
    Key::from_le_bytes(half)
}

#[cfg(test)]
mod tests {
    use shared::id::UserId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let verified = Verified::default();
        let identity =
            |n: u64| Identity { user: UserId::new(n).unwrap(), family: Uuid::nil(), expires_ms: n };
        verified.put("used", identity(1));
        for n in 2..4 * GENERATION as u64 {
            verified.put(&n.to_string(), identity(n));
            if n % 1_000 == 0 {
                assert_eq!(verified.get("used"), Some(identity(1)), "after {n}");
            }
        }
        assert_eq!(verified.get("2"), None);
        let generations = verified.generations.lock();
        assert!(generations.young.len() <= GENERATION && generations.old.len() <= GENERATION);
    }
}
