//! The hashes that logins to unknown accounts are compared with.
//!
//! Invariants: to somebody who times logins, unknown e-mails are like accounts: as many of them take the time of each
//! cost as there are accounts with a hash of that cost, and one e-mail always takes the same. Which cost it takes
//! depends on a secret, so nobody can tell which one it would take if it were unknown.

use aws_lc_rs::hmac;
use parking_lot::RwLock;
use secrecy::SecretString;

use super::{CHEAPEST, PasswordError, prehash};

/// Told apart from other uses of the secret.
const LABEL: &[u8] = b"mini-telegram decoy 1\0";

/// The decoys. Cheap to make: each is a hash of the lowest cost that claims another one, and is checked at that.
pub struct Decoys {
    key: hmac::Key,
    cheap: String,
    /// Costs and how many accounts have a hash of each, ascending.
    mix: RwLock<Vec<(u32, u64)>>,
}

impl Decoys {
    /// Until the accounts' costs are known, all decoys have this one.
    ///
    /// # Errors
    /// If bcrypt fails.
    pub fn new(secret: &[u8; 32], cost: u32) -> Result<Self, PasswordError> {
        let cheap = bcrypt::hash_with_result(prehash(&SecretString::from("nobody's")), CHEAPEST)?.to_string();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Ok(Self { key, cheap, mix: RwLock::new(vec![(cost, 1)]) })
    }

    /// Takes over how many accounts have a hash of each cost.
    pub fn follow(&self, mut accounts: Vec<(u32, u64)>) {
        accounts.retain(|(_, count)| *count > 0);
        accounts.sort_unstable();
        if !accounts.is_empty() {
            *self.mix.write() = accounts;
        }
    }

    /// The hash for an e-mail without an account.
    pub fn of(&self, email: &str) -> String {
        let cost = self.cost(self.place(email));
        self.cheap.replacen(&format!("${CHEAPEST:02}$"), &format!("${cost:02}$"), 1)
    }

    /// Where the e-mail stands among all texts: a share of 2^64.
    fn place(&self, email: &str) -> u64 {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(LABEL);
        context.update(email.as_bytes());
        let tag = context.sign();
        tag.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }

    /// The cost of the account that would stand there, if accounts were sorted by cost. When accounts move to another
    /// cost, as few e-mails as possible move with them.
    fn cost(&self, place: u64) -> u32 {
        let mix = self.mix.read();
        let total: u128 = mix.iter().map(|(_, count)| u128::from(*count)).sum();
        let mut rank = (u128::from(place) * total) >> 64;
        for (cost, count) in mix.iter() {
            match rank.checked_sub(u128::from(*count)) {
                None => return *cost,
                Some(rest) => rank = rest,
            }
        }
        CHEAPEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(decoys: &Decoys) -> Vec<u32> {
        let cost = |n| decoys.cost(decoys.place(&format!("nobody-{n}@example.org")));
        (0..1_000).map(cost).collect()
    }

    #[test]
    fn unknown_emails_cost_what_accounts_cost_and_each_always_the_same() {
        let decoys = Decoys::new(&[7; 32], 12).unwrap();
        assert!(costs(&decoys).iter().all(|cost| *cost == 12), "before the accounts are known");
        decoys.follow(vec![(12, 3_000), (10, 1_000), (9, 0)]);
        let before = costs(&decoys);
        assert_eq!(before, costs(&decoys));
        let old = before.iter().filter(|cost| **cost == 10).count();
        assert!((200..300).contains(&old) && before.iter().all(|cost| [10, 12].contains(cost)), "{old}");
        // Logins renew hashes, and no decoy goes back.
        decoys.follow(vec![(12, 3_500), (10, 500)]);
        let after = costs(&decoys);
        assert!(before.iter().zip(&after).all(|(before, after)| after >= before));
        decoys.follow(Vec::new());
        assert_eq!(after, costs(&decoys), "no accounts are no reason to change");
        let other = Decoys::new(&[8; 32], 12).unwrap();
        other.follow(vec![(12, 3_500), (10, 500)]);
        assert_ne!(after, costs(&other), "another installation");
    }

    #[test]
    fn a_decoy_is_a_hash_of_its_cost() {
        let decoys = Decoys::new(&[7; 32], 9).unwrap();
        let decoy = decoys.of("nobody@example.org");
        assert!(decoy.starts_with("$2b$09$"), "{decoy}");
        assert_eq!(decoy.len(), bcrypt::hash("a password", 4).unwrap().len());
    }
}
