//! What every room stands on: the clocks, the metrics, and the client of Redis.
//!
//! Nothing here knows chats, sessions or routes.

pub mod clock;
pub mod log_clock;
pub mod metrics;
pub mod redis;
