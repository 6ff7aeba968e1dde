//! Presence, typing and receipts as clients see them: real gateways, presence instances and sockets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kills;
mod online;
mod receipts;
mod socket;
mod typing;
mod world;
