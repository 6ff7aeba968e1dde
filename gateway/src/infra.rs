//! The ground of the gateway: time, metrics, and Redis. Knows nothing of chats, sessions or HTTP.

pub mod clock;
pub mod metrics;
pub mod redis;
