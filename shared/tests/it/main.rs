//! The vocabulary as other crates see it: bytes that decode for ever, laws of the fold, hostile input, and
//! documentation that names everything.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cursor;
mod docs;
mod events;
mod fold;
mod frames;
mod golden;
mod hostile;
mod samples;
mod strategy;
mod window;
