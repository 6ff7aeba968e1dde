//! Password hashing: bcrypt over a pre-hash, on blocking threads, bounded in parallelism, in callers and in time.
//!
//! Invariants: no hash is computed on an async worker; who hashes next is decided by [`queue`] alone; a login to an
//! unknown account takes as long as one to a known account ([`decoy`]).

pub mod decoy;
pub mod queue;

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest::{Context, SHA384};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use prometheus_client::metrics::gauge::Gauge;
use secrecy::{ExposeSecret, SecretString};

use self::{
    decoy::Decoys,
    queue::{Bounds, Busy, Lane, Queue, Turn},
};
use super::AuthSettings;

/// Hashed before the password, so that SHA-384 hashes of passwords that leaked elsewhere can't be tried against our
/// pre-hashes.
const DOMAIN: &[u8] = b"mini-telegram password 1\0";

/// The lowest cost that bcrypt takes.
const CHEAPEST: u32 = 4;

#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The queue is full, or did not move in time.
    #[error("too many passwords wait to be hashed")]
    Busy(Duration),
    #[error("bcrypt: {0}")]
    Bcrypt(#[from] bcrypt::BcryptError),
    #[error("the hashing thread panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

impl From<Busy> for PasswordError {
    fn from(Busy(wait): Busy) -> Self {
        Self::Busy(wait)
    }
}

/// Hashes and verifies passwords.
#[derive(Clone)]
pub struct Passwords {
    cost: u32,
    queue: Queue,
    decoys: Arc<Decoys>,
}

impl Passwords {
    /// `secret` is the same on all gateways of an installation; `waiting` is the gauge of callers that wait.
    ///
    /// # Errors
    /// If bcrypt refuses the cost.
    pub fn new(settings: &AuthSettings, secret: &[u8; 32], waiting: Gauge) -> Result<Self, PasswordError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let bounds = Bounds {
            parallel: settings.bcrypt_parallel.unwrap_or(cores / 2).max(1),
            places: settings.bcrypt_queue,
            patience: Duration::from_millis(settings.bcrypt_wait_ms),
        };
        let decoys = Arc::new(Decoys::new(secret, settings.bcrypt_cost)?);
        Ok(Self { cost: settings.bcrypt_cost, queue: Queue::new(bounds, waiting), decoys })
    }

    /// Hashes a new password.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub async fn hash(&self, password: SecretString) -> Result<String, PasswordError> {
        let (turn, cost) = (self.queue.turn(Lane::Stranger).await?, self.cost);
        run(turn, move || bcrypt::hash(prehash(&password), cost)).await
    }

    /// Whether the password has this hash. Without a hash the answer is no, and takes as long as if the e-mail were that
    /// of some account.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub async fn verify(
        &self,
        password: SecretString,
        hash: Option<String>,
        email: &str,
        lane: Lane,
    ) -> Result<bool, PasswordError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.decoys.of(email));
        let turn = self.queue.turn(lane).await?;
        run(turn, move || bcrypt::verify(prehash(&password), &hash)).await.map(|fits| fits && known)
    }

    /// A hash of today's cost for a password whose hash has another one. `None` if it has today's, or if others wait
    /// to hash: the next login renews it as well.
    pub async fn renewed(&self, password: SecretString, hash: &str) -> Option<String> {
        if cost_of(hash) == Some(self.cost) {
            return None;
        }
        let (turn, cost) = (self.queue.turn_if_idle()?, self.cost);
        run(turn, move || bcrypt::hash(prehash(&password), cost)).await.ok()
    }

    /// Learns how many accounts have a hash of each cost, so that logins to unknown accounts take the same times.
    pub fn follow_costs(&self, accounts: Vec<(u32, u64)>) {
        self.decoys.follow(accounts);
    }
}

/// Runs the work on a blocking thread. The work holds the turn, since it goes on even if the caller goes away.
async fn run<T, F>(turn: Turn, work: F) -> Result<T, PasswordError>
where
    T: Send + 'static,
    F: FnOnce() -> bcrypt::BcryptResult<T> + Send + 'static,
{
    let work = move || {
        let done = work();
        drop(turn);
        done
    };
    Ok(tokio::task::spawn_blocking(work).await??)
}

/// The cost that a hash names.
fn cost_of(hash: &str) -> Option<u32> {
    hash.split('$').nth(2)?.parse().ok()
}

/// Turns a password of any length into 64 characters of base64. That is less than the 72 bytes that bcrypt reads, and
/// holds no NUL byte, at which bcrypt would stop.
fn prehash(password: &SecretString) -> String {
    let mut context = Context::new(&SHA384);
    context.update(DOMAIN);
    context.update(password.expose_secret().as_bytes());
    STANDARD_NO_PAD.encode(context.finish())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

    use clap::Parser;

    use super::*;

    const NOBODY: &str = "nobody@example.org";

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        auth: AuthSettings,
    }

    fn passwords(parallel: &str, queue: &str, cost: &str) -> Passwords {
        let args = ["test", "--bcrypt-parallel", parallel, "--bcrypt-queue", queue, "--bcrypt-cost", cost];
        Passwords::new(&Cli::parse_from(args).auth, &[7; 32], Gauge::default()).unwrap()
    }

    async fn fits(passwords: &Passwords, password: &str, hash: Option<&str>) -> bool {
        let hash = hash.map(str::to_owned);
        passwords.verify(password.into(), hash, NOBODY, Lane::Stranger).await.unwrap()
    }

    #[tokio::test]
    async fn every_character_counts() {
        let passwords = passwords("1", "8", "4");
        let long = "ä".repeat(128);
        let hash = passwords.hash(long.clone().into()).await.unwrap();
        assert!(fits(&passwords, &long, Some(&hash)).await);
        let other = long[..long.len() - 2].to_owned() + "b";
        assert!(!fits(&passwords, &other, Some(&hash)).await);
        assert!(!fits(&passwords, "nobody's", None).await, "the decoy is no account");
        assert!(!fits(&passwords, "a\0b", Some(&hash)).await);
    }

    #[tokio::test]
    async fn a_hash_of_another_cost_is_renewed_when_nobody_waits() {
        let (old, new) = (passwords("1", "8", "4"), passwords("1", "8", "5"));
        let hash = old.hash("a password".into()).await.unwrap();
        assert_eq!(old.renewed("a password".into(), &hash).await, None, "it is as it should be");
        let renewed = new.renewed("a password".into(), &hash).await.unwrap();
        assert!(renewed.starts_with("$2b$05$") && fits(&new, "a password", Some(&renewed)).await);
        let turn = new.queue.turn_if_idle().unwrap();
        assert_eq!(new.renewed("a password".into(), &hash).await, None, "somebody hashes");
        drop(turn);
    }

    #[tokio::test]
    async fn what_exceeds_the_queue_is_refused_at_once() {
        let passwords = passwords("1", "2", "10");
        let tasks: Vec<_> = (0..10)
            .map(|n| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.hash(format!("password {n}").into()).await })
            })
            .collect();
        let (mut hashed, mut refused) = (0, 0);
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => hashed += 1,
                Err(PasswordError::Busy(_)) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!((hashed, refused), (3, 7));
    }
}
