//! The frames of the WebSocket contract, version 1: one plain struct each, declared once for both encodings.
//!
//! Owns the names, kinds and fields of frames and the order of the fields; [`crate::codec`] turns frames into bytes
//! and back. Invariants: the order of the fields is that of the MessagePack array; fields are appended and never
//! moved; kinds and types are never reused. An absent optional field is `None` (or an empty list of mentions) and is
//! left out.
//!
//! Rooms from the top; a file imports only files below it: [`delivered()`] (the log's event as a frame), [`client`],
//! `server`, `event_data`, `values`, `declare`.

#[macro_use]
mod declare;
pub mod client;
mod delivered;
mod event_data;
mod server;
mod values;

pub(crate) use self::declare::FrameSet;
pub use self::{
    client::{
        Auth, ClientFrame, DeleteMessage, Delivered, EditMessage, Fetch, React, Read, SendMessage,
        SetPresence, WatchPresence,
    },
    declare::Declared,
    delivered::{MAX_MEMBER_IDS, delivered},
    event_data::{ChatCreated, Deleted, Edited, EventData, Reaction},
    server::{
        Ack, AuthExpiring, AuthOk, Cursor, Drain, Error, Event, Lagging, Limits, Live, Message, Page, Ping,
        Pong, Presence, PresenceState, Receipt, Receipts, Reconnect, Reset, ServerFrame, Typing, Welcome,
    },
};

/// The version of the contract: the `v` of the connect and of `Welcome`.
pub const PROTOCOL_VERSION: u32 = 1;
