//! The projector: folds the log into Postgres.
//!
//! It reads each partition with the same tail as the gateways, from its own checkpoint in Postgres, and writes each
//! batch in one transaction with the new checkpoint. It never answers a client, and nothing waits for it but reads
//! that must be fresh. Invariants:
//! - the checkpoint moves by compare-and-set from one event to a later one, with the rows of all events between
//!   them: every event has its effect exactly once, whatever is killed when;
//! - nothing is skipped: what this build cannot judge, or the database will not take, stops the partition until
//!   somebody helps.
//!
//! The rooms from the top; a room imports only rooms below it: `main > health > rebuild > partition > folder >
//! projection > cache > known > metrics > config`.

pub mod cache;
pub mod config;
pub mod folder;
pub mod health;
pub mod known;
pub mod metrics;
pub mod partition;
pub mod projection;
pub mod rebuild;

pub use config::Config;
