//! Password hashing: bcrypt over a pre-hash, on blocking threads, bounded in parallelism and in queue.
//!
//! Invariants: no hash is computed on an async worker; at most `parallel` hashes are computed at a time, and at most
//! `queue` callers wait, in the order in which they came; a caller that goes away while it waits frees its place.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA384};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use prometheus_client::metrics::gauge::Gauge;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AuthSettings;

/// Hashed before the password, so that SHA-384 hashes of passwords that leaked elsewhere can't be tried against our
/// pre-hashes.
const DOMAIN: &[u8] = b"mini-telegram password 1\0";

/// The lowest cost that bcrypt takes.
const CHEAPEST: u32 = 4;

#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The queue is full.
    #[error("too many passwords wait to be hashed")]
    Busy,
    #[error("bcrypt: {0}")]
    Bcrypt(#[from] bcrypt::BcryptError),
    #[error("the hashing thread panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

/// Hashes and verifies passwords.
#[derive(Clone)]
pub struct Passwords {
    cost: u32,
    /// Places for callers that wait or are served.
    places: Arc<Semaphore>,
    /// Turns for callers that are served.
    turns: Arc<Semaphore>,
    /// How many callers wait.
    waiting: Gauge,
    /// The hash that a login to an unknown account is compared with, so that it takes as long as one to a known account.
    decoy: Arc<str>,
}

impl Passwords {
    /// `waiting` is the gauge of callers that wait.
    ///
    /// # Errors
    /// If bcrypt refuses the cost.
    pub fn new(settings: &AuthSettings, waiting: Gauge) -> Result<Self, PasswordError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let parallel = settings.bcrypt_parallel.unwrap_or(cores / 2).max(1);
        // A cheap hash that claims the real cost, and is checked at that cost. A real one would delay every start.
        let cheap = bcrypt::hash_with_result(prehash(&SecretString::from("nobody's")), CHEAPEST)?.to_string();
        let decoy = cheap.replacen(&format!("${CHEAPEST:02}$"), &format!("${:02}$", settings.bcrypt_cost), 1);
        Ok(Self {
            cost: settings.bcrypt_cost,
            places: Arc::new(Semaphore::new(parallel + settings.bcrypt_queue)),
            turns: Arc::new(Semaphore::new(parallel)),
            waiting,
            decoy: decoy.into(),
        })
    }

    /// Hashes a new password.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub async fn hash(&self, password: SecretString) -> Result<String, PasswordError> {
        let cost = self.cost;
        self.turn(move || bcrypt::hash(prehash(&password), cost)).await
    }

    /// Whether the password has this hash. Without a hash the answer is no, and takes as long.
    ///
    /// # Errors
    /// See [`PasswordError`].
    pub async fn verify(&self, password: SecretString, hash: Option<String>) -> Result<bool, PasswordError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.decoy.to_string());
        self.turn(move || bcrypt::verify(prehash(&password), &hash)).await.map(|fits| fits && known)
    }

    /// Runs the work on a blocking thread when its turn has come.
    async fn turn<T, F>(&self, work: F) -> Result<T, PasswordError>
    where
        T: Send + 'static,
        F: FnOnce() -> bcrypt::BcryptResult<T> + Send + 'static,
    {
        let place = self.places.clone().try_acquire_owned().map_err(|_full| PasswordError::Busy)?;
        let turn = self.wait().await?;
        // The work holds the permits, since it goes on even if the caller goes away.
        let permits: [OwnedSemaphorePermit; 2] = [place, turn];
        let work = move || {
            let done = work();
            drop(permits);
            done
        };
        Ok(tokio::task::spawn_blocking(work).await??)
    }

    async fn wait(&self) -> Result<OwnedSemaphorePermit, PasswordError> {
        self.waiting.inc();
        let _counted = Waiting(&self.waiting);
        self.turns.clone().acquire_owned().await.map_err(|_closed| PasswordError::Busy)
    }
}

/// Counts a caller in the gauge until it is dropped: when its turn has come, or when it goes away.
struct Waiting<'a>(&'a Gauge);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
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

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        auth: AuthSettings,
    }

    fn passwords(parallel: &str, queue: &str, cost: &str) -> Passwords {
        let args = ["test", "--bcrypt-parallel", parallel, "--bcrypt-queue", queue, "--bcrypt-cost", cost];
        Passwords::new(&Cli::parse_from(args).auth, Gauge::default()).unwrap()
    }

    #[tokio::test]
    async fn every_character_counts() {
        let passwords = passwords("1", "8", "4");
        let long = "ä".repeat(128);
        let hash = passwords.hash(long.clone().into()).await.unwrap();
        assert!(passwords.verify(long.clone().into(), Some(hash.clone())).await.unwrap());
        let other = long[..long.len() - 2].to_owned() + "b";
        assert!(!passwords.verify(other.into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("nobody's".into(), None).await.unwrap(), "the decoy is no account");
        assert!(passwords.verify("a\0b".into(), Some(hash)).await.is_ok_and(|fits| !fits));
    }

    #[tokio::test]
    async fn the_decoy_costs_what_a_real_hash_costs() {
        let passwords = passwords("1", "8", "9");
        assert!(passwords.decoy.starts_with("$2b$09$"), "{}", passwords.decoy);
        assert_eq!(passwords.decoy.len(), passwords.hash("a password".into()).await.unwrap().len());
        assert!(!passwords.verify("a password".into(), None).await.unwrap());
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
                Err(PasswordError::Busy) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!((hashed, refused), (3, 7));
        assert_eq!(passwords.waiting.get(), 0);
    }
}
