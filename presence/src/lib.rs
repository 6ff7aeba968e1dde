//! Presence: who is online, away or offline, and how far members have read.
//!
//! Gateways report their sessions as signals; the registry in Redis ([`registry`]) turns them into decisions, which
//! are announced ([`announce`]). Marks come by the read stream and go to Postgres and out as receipts ([`receipts`]).
//! Several instances share the work: every decision is one atomic script, and the marks have one consumer for all.
//! Invariants: any instance may die at any moment, what it had begun is done by another; a user is not declared
//! offline for what this service failed to hear ([`listening`]).
//!
//! The rooms from the top; a room imports only rooms below it: `serve > announce > connections > receipts > listening >
//! registry > config > redis > metrics`.

pub mod announce;
pub mod config;
pub mod connections;
pub mod listening;
pub mod metrics;
pub mod receipts;
pub mod redis;
pub mod registry;
pub mod serve;
