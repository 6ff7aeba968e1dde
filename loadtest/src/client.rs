//! A client of the public contract.
//!
//! [`http`] makes the HTTP calls. [`socket`] is one WebSocket connection frame by frame, for black-box tests.
//! [`device`] is a well-behaved installation, whose unanswered sends wait in the [`outbox`].

pub mod device;
pub mod http;
pub mod outbox;
pub mod socket;
