//! The outside view of the product: a client, an oracle that checks every promise, and load scenarios.
//!
//! Knows the product only by its public contract (HTTP, WebSocket) and by the bytes in NATS; it shares no code
//! with the services, so that a mistake of theirs cannot hide in here.

pub mod client;
pub mod clock;
pub mod frame;
pub mod measure;
pub mod memory;
pub mod oracle;
pub mod provision;
pub mod report;
pub mod scenario;
pub mod smoke;
pub mod target;
