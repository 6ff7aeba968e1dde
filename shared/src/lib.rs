//! The vocabulary of Mini-Telegram: everything that crosses a process boundary or must mean the same in two services.
//!
//! Pure: no tokio, no clients, no clock, no I/O. A type lives here only if two crates must agree on its bytes
//! ([`event`], [`frame`], [`codec`], [`cursor`]) or on its meaning ([`id`], [`code`], [`fold`], [`entitlement`],
//! [`permission`], [`window`]).
//!
//! The rooms from the top; a room imports only rooms below it:
//!
//! 1. [`codec`]: bytes into frames and frames into bytes
//! 2. [`frame`]: the frames of the WebSocket contract
//! 3. `value`: one value in two encodings, JSON and MessagePack
//! 4. [`fold`]: the validity of events
//! 5. [`entitlement`]: what of a chat a user may see
//! 6. [`text`]: the rules for the texts that users write
//! 7. [`event`]: the facts in the log, and their bytes
//! 8. [`emoji`]: the one form of an emoji
//! 9. [`permission`]: the table of roles and actions
//! 10. [`cursor`]: a position in the log, sealed for a client
//! 11. [`code`]: the error codes
//! 12. [`window`]: what the time in a uuid proves, by the log's clock alone
//! 13. [`id`]: ids and positions

pub mod code;
pub mod codec;
pub mod cursor;
pub mod emoji;
pub mod entitlement;
pub mod event;
pub mod fold;
pub mod frame;
pub mod id;
pub mod permission;
pub mod text;
mod value;
pub mod window;
