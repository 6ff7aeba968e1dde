//! The vocabulary of Mini-Telegram: everything that crosses a process boundary or must mean the same in two services.
//!
//! Pure: no tokio, no clients, no clock, no I/O. A type lives here only if two crates must agree on its bytes
//! ([`event`], [`frame`], [`codec`], [`cursor`]) or on its meaning ([`id`], [`code`], [`fold`], [`permission`], [`window`]).
//!
//! The rooms from the top; a room imports only rooms below it:
//!
//! 1. [`codec`]: bytes into frames and frames into bytes
//! 2. [`frame`]: the frames of the WebSocket contract
//! 3. `value`: one value in two encodings, JSON and MessagePack
//! 4. [`fold`]: the validity of events
//! 5. [`text`]: the rules for the texts that users write
//! 6. [`event`]: the facts in the log, and their bytes
//! 7. [`emoji`]: the one form of an emoji
//! 8. [`permission`]: the table of roles and actions
//! 9. [`cursor`]: a position in the log, sealed for a client
//! 10. [`code`]: the error codes
//! 11. [`window`]: what the time in a uuid proves, by the log's clock alone
//! 12. [`id`]: ids and positions

pub mod code;
pub mod codec;
pub mod cursor;
pub mod emoji;
pub mod event;
pub mod fold;
pub mod frame;
pub mod id;
pub mod permission;
pub mod text;
mod value;
pub mod window;
