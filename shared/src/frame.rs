//! The frames of the WebSocket contract, version 1: one plain struct each, declared once for both encodings.
//!
//! Owns names, kinds, fields and their order; how they become bytes is [`crate::codec`]'s. Invariants: the order
//! of the fields is that of the MessagePack array, appended to and never changed; kinds and types are never
//! reused. Absent optional fields are `None` (or an empty list of mentions) and are left out.

#[macro_use]
mod declare;
pub mod client;
mod event_data;
mod server;

use uuid::Uuid;

use crate::codec::raw::{Fault, Fields};

pub use self::{
    client::{
        Auth, ClientFrame, DeleteMessage, Delivered, EditMessage, Fetch, React, Read, SendMessage,
        SetPresence, WatchPresence,
    },
    event_data::{ChatCreated, Deleted, Edited, EventData, MAX_MEMBER_IDS, delivered},
    server::{
        Ack, AuthExpiring, AuthOk, Cursor, Drain, Error, Event, Lagging, Limits, Live, Message, Page, Ping,
        Pong, Presence, PresenceState, Receipt, Receipts, Reconnect, Reset, ServerFrame, Typing, Welcome,
    },
};

/// The version of the contract: the `v` of the connect and of `Welcome`.
pub const PROTOCOL_VERSION: u32 = 1;

/// The text that the first published example has in the place of a uuid. It must work verbatim, so it stands for
/// [`EXAMPLE_UUID`].
pub const EXAMPLE_UUID_TEXT: &str = "client-generated-uuid";
/// What [`EXAMPLE_UUID_TEXT`] means: a version 8 uuid, so that no generator makes it, spelling "minitg" and "client".
pub const EXAMPLE_UUID: Uuid = Uuid::from_u128(0x6d69_6e69_7467_8000_8000_636c_6965_6e74);

/// A client's uuid: 8-4-4-4-12 or 32 hexadecimal digits in any case, or the example's text.
pub fn client_uuid(text: &str) -> Option<Uuid> {
    match text.len() {
        32 | 36 => Uuid::try_parse(text).ok(),
        _ => (text == EXAMPLE_UUID_TEXT).then_some(EXAMPLE_UUID),
    }
}

/// One frame type.
pub(crate) trait Frame: Sized {
    /// The first element of the MessagePack array.
    const KIND: u8;
    /// The `type` of the JSON object.
    const TYPE: &'static str;
    /// The names of the fields, in the order of the MessagePack array.
    const FIELDS: &'static [&'static str];

    fn put_json(&self, out: &mut Vec<u8>);
    fn put_msgpack(&self, out: &mut Vec<u8>);
    fn read(fields: &Fields<'_>) -> Result<Self, Fault>;
}

/// All frames of one direction.
pub(crate) trait FrameSet: Sized {
    /// The names of all fields of all frames.
    const FIELDS: &'static [&'static [&'static str]];

    /// `None`: there is no such kind.
    fn fields_of(kind: u8) -> Option<&'static [&'static str]>;
    fn read_type(name: &str, fields: &Fields<'_>) -> Option<Result<Self, Fault>>;
    fn read_kind(kind: u8, fields: &Fields<'_>) -> Option<Result<Self, Fault>>;
}

/// What the contract says of one frame type, for documentation and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declared {
    pub kind: u8,
    pub name: &'static str,
    pub fields: &'static [&'static str],
}

pub(crate) const fn declared<F: Frame>() -> Declared {
    Declared { kind: F::KIND, name: F::TYPE, fields: F::FIELDS }
}
