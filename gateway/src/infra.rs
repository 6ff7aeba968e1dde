//! What every room stands on: the clocks, the metrics, the client of Redis, the memory for pages, and the count of
//! connections.
//!
//! Nothing here knows chats, sessions or routes.

pub mod addresses;
pub mod clock;
pub mod log_clock;
pub mod metrics;
pub mod pages;
pub mod redis;
