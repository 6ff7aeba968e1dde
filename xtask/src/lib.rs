//! The chores of the workspace, and what its integration tests stand on: real, private servers.
//!
//! Owns: finding or fetching the server binaries, starting them and the services so that none outlives the process
//! that started it, and the isolation of one test from the next. All of it blocks: a test needs no runtime for it.
//! Never: knows a subject, a table or a route of the product. It speaks to the services as an operator does, by
//! environment, command line, log lines and health endpoints.

pub mod binaries;
pub mod process;
pub mod progress;
pub mod servers;
pub mod service;
pub mod testing;
pub mod thread;
