//! Logs, traces and the operator's endpoints, the same in every service.
//!
//! Owns the subscriber (JSON lines on stdout, spans to a collector when one is configured), the W3C `traceparent` text
//! that travels in message headers, and the router of `/healthz`, `/readyz` and `/metrics`. It defines no metric and no
//! span of its own; those live next to the code that they describe.
//!
//! The rooms from the top; a room imports only rooms below it: [`health`], `init`, `propagation`, `settings`.

pub mod health;
mod init;
mod propagation;
mod settings;

pub use init::{Guard, InitError, init};
pub use propagation::{is_sampled, set_parent, traceparent};
pub use settings::OtelSettings;
