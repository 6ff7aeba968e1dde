//! What integration tests stand on: shared real servers, and a corner of them for each test alone.
//!
//! `cargo xtask test` starts the servers once for the whole suite and passes their addresses; without it, the first
//! test of a process starts them. A test that stops or crashes a server starts a [`Stack`] of its own.

mod binary;
mod isolated;
mod nats_api;
mod shared;
mod template;

pub use binary::{BIN_DIR, binary};
pub use isolated::Isolated;
pub use shared::{Addresses, NATS_URL, POSTGRES_URL, REDIS_URL, Servers, Stack, fresh_dir};
pub use template::create_empty as create_database;

pub use crate::thread::off_runtime;
