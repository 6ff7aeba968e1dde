//! The product from end to end: real servers, real processes, and the oracle.
//!
//! One binary, so that it is linked once. Each test has a cluster of its own ([`support::cluster`]) and speaks to it as
//! a client does; no test knows the services' code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]
#![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

mod chaos;
mod closing;
mod deletions;
mod drain;
mod edges;
mod edits;
mod epoch;
mod failures;
mod floods;
mod groups;
mod http_errors;
mod membership;
mod messages;
mod msgpack;
mod promises;
mod proof;
mod removal_race;
mod resume;
mod slow_reader;
mod storm;
mod support;
mod timers;
mod unread;
mod window;
mod ws_errors;
