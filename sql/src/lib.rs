//! Everything that knows a table: migrations, the connection pool, and the queries of all services.
//!
//! [`Db`] is the handle; each module adds the queries of one subject to it, with the statement beside the function.
//! Invariants:
//! - every call is bounded by a timeout, on our side and on the server's;
//! - every read that must be provable as fresh returns the [`Checkpoint`] from the same snapshot as its rows;
//! - statements are set-based: one round trip serves a batch, whatever its size.
//!
//! There is one partition of the log so far ([`PARTITION`]): the checkpoint that a read returns is that one's.
//!
//! The rooms from the top; a room imports only rooms below it: `shadow > epoch > projection > migrations > chat_list >
//! history > message > commands > members > groups > identity > replay > ahead > states > partners > marks > tokens > chats >
//! accounts > checkpoint > kind > pool > settings > error`.

pub mod accounts;
pub mod ahead;
pub mod chat_list;
pub mod chats;
pub mod checkpoint;
pub mod commands;
pub mod epoch;
pub mod error;
pub mod groups;
pub mod history;
pub mod identity;
pub mod kind;
pub mod marks;
pub mod members;
pub mod message;
pub mod migrations;
pub mod partners;
pub mod pool;
pub mod projection;
pub mod replay;
pub mod settings;
pub mod shadow;
pub mod states;
pub mod tokens;

pub use checkpoint::{Checkpoint, PARTITION};
pub use error::Error;
pub use pool::Db;
pub use replay::PageFrom;
pub use settings::SqlSettings;
