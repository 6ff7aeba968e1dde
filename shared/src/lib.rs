//! The vocabulary of Mini-Telegram: what crosses a process boundary or must mean the same in two services.
//!
//! Pure: no tokio, no clients, no clock, no I/O. A type lives here only if two crates must agree on its bytes
//! ([`event`], [`frame`], [`codec`], [`cursor`]) or on its meaning ([`id`], [`code`], [`fold`], [`permission`]).

pub mod code;
pub mod codec;
pub mod cursor;
pub mod event;
pub mod fold;
pub mod frame;
pub mod id;
pub mod permission;
pub mod text;
