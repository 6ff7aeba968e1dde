//! The projection on a real Postgres, without a log: entries are folded and written as the projector does it, and
//! what the queries say is held against a brute-force model of random histories.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

mod generate;
mod log;
mod model;
mod queries;
mod rows;
mod service;
mod store;

use generate::{Rng, history};
use store::Store;

/// Cuts a log into batches of random sizes.
fn batches<'a>(rng: &mut Rng, entries: &'a [streams::Entry], most: u64) -> Vec<&'a [streams::Entry]> {
    let mut rest = entries;
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let size = (rng.below(most) as usize + 1).min(rest.len());
        let (batch, others) = rest.split_at(size);
        batches.push(batch);
        rest = others;
    }
    batches
}
