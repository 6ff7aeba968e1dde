//! Everything that knows a subject: stream definitions, append, tail, reads of the log, signals.
//!
//! No other crate imports a NATS client, builds a subject or parses one. What leaves this crate is typed: ids,
//! events, entries. Its `nap` is the runtime of the services that follow the log. Two transports are used:
//! `async-nats` for requests, signals and the read stream, and our own `line` for the two hot paths, append and tail,
//! whose connections must die with all that they hold.
//!
//! The rooms from the top; a room imports only rooms below it:
//! `tail > barrier > append > read > consumer > entry > hedge > marks > signal > stream > connect > target > task >
//! line > subject`, and `nap`, which imports none of them.

pub mod append;
pub mod barrier;
pub mod connect;
mod consumer;
mod entry;
mod hedge;
mod line;
pub mod marks;
pub mod nap;
pub mod read;
pub mod signal;
pub mod stream;
pub mod subject;
pub mod tail;
mod target;
mod task;

pub use append::{AppendError, Appended, Appender};
pub use barrier::Barrier;
pub use connect::{Nats, NatsSettings, SettingsError, Unavailable};
pub use entry::Entry;
pub use read::{Bounds, Scan};
pub use subject::{InvalidPrefix, Layout, Partition};
pub use tail::{Known, Tail, TailItem, TailSettings, TailStats};
