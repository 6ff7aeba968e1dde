//! The gateway: authenticates clients, appends their commands to the log, and feeds their devices from it.
//!
//! The rooms, from the top. A room imports only rooms below it; ARCHITECTURE.md has the same list, held by a test.

pub mod serve;

pub mod http;

pub mod socket;

pub mod submit;

pub mod feed;

pub mod presence;

pub mod hub;

pub mod session;

pub mod command;

pub mod auth;

pub mod infra;
