//! A client of the public contract.
//!
//! [`http`] speaks the HTTP calls, [`socket`] one WebSocket connection frame by frame (what black-box tests
//! need), [`device`] a well-behaved installation: it keeps its cursor, resumes, retries unanswered sends with
//! the same uuid and reports all that it sees to the oracle.

pub mod device;
pub mod http;
pub mod outbox;
pub mod socket;
