//! Frames as bytes: JSON text and MessagePack, both ways.
//!
//! Both encodings come from the one declaration of each frame in [`crate::frame`], so they cannot drift. Writing
//! goes straight into the buffer. Reading splits the frame into its fields in one pass without copies, and then
//! reads each field once by its type.
//!
//! Invariants: no input panics or recurses. Bytes that are no frame are refused as `frame.malformed`; a frame with
//! wrong fields is refused as `command.invalid`, with its uuid if that could be read. Frame types and fields of newer
//! peers are ignored. The rules for texts (blank bodies, emoji) are in [`crate::text`] and not applied here.

use uuid::Uuid;

use crate::{
    code::Code,
    frame::{ClientFrame, FrameSet, ServerFrame},
    value::{Fault, Fields, Raw, json::NoObject, msgpack},
};

/// Why bytes are no frame. `uuid` is the command's, when it could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Rejected {
    /// [`Code::FrameMalformed`] or [`Code::CommandInvalid`].
    pub code: Code,
    pub uuid: Option<Uuid>,
    /// The field at fault, as on the wire.
    pub field: Option<&'static str>,
    /// For the client's developer; holds nothing that the client sent.
    pub message: String,
}

/// Appends the frame as JSON.
pub fn encode_json(frame: &ServerFrame, out: &mut Vec<u8>) {
    frame.put_json(out);
}

/// Appends the frame as MessagePack.
pub fn encode_msgpack(frame: &ServerFrame, out: &mut Vec<u8>) {
    frame.put_msgpack(out);
}

/// Appends a client's frame as JSON.
pub fn encode_client_json(frame: &ClientFrame, out: &mut Vec<u8>) {
    frame.put_json(out);
}

/// Appends a client's frame as MessagePack.
pub fn encode_client_msgpack(frame: &ClientFrame, out: &mut Vec<u8>) {
    frame.put_msgpack(out);
}

/// Reads what a client sent in a text frame; `None` is a frame type that this build does not know.
///
/// # Errors
/// See [`Rejected`].
pub fn decode_client_json(bytes: &[u8]) -> Result<Option<ClientFrame>, Rejected> {
    decode_json(bytes, ClientFrame::out_of_range)
}

/// Reads what a client sent in a binary frame; `None` is a frame kind that this build does not know.
///
/// # Errors
/// See [`Rejected`].
pub fn decode_client_msgpack(bytes: &[u8]) -> Result<Option<ClientFrame>, Rejected> {
    decode_msgpack(bytes, ClientFrame::out_of_range)
}

/// Reads what a server sent in a text frame: for clients and tests.
///
/// # Errors
/// See [`Rejected`].
pub fn decode_server_json(bytes: &[u8]) -> Result<Option<ServerFrame>, Rejected> {
    decode_json(bytes, |_| None)
}

/// Reads what a server sent in a binary frame: for clients and tests.
///
/// # Errors
/// See [`Rejected`].
pub fn decode_server_msgpack(bytes: &[u8]) -> Result<Option<ServerFrame>, Rejected> {
    decode_msgpack(bytes, |_| None)
}

fn decode_json<F: FrameSet>(bytes: &[u8], check: fn(&F) -> Option<Fault>) -> Result<Option<F>, Rejected> {
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("the frame is not UTF-8"))?;
    let (fields, duplicate) = Fields::of_json(text, F::FIELDS).map_err(|error| match error {
        NoObject::Syntax => malformed("the frame is not JSON"),
        NoObject::Shape => invalid(None, None, "a frame is a JSON object"),
    })?;
    let uuid = fields.get::<Option<Uuid>>("uuid").ok().flatten();
    if let Some(field) = duplicate {
        let uuid = uuid.filter(|_| field != "uuid");
        return Err(invalid(uuid, Some(field), format!("`{field}` stands twice")));
    }
    let name = fields.get::<String>("type").map_err(|fault| fault.reject(uuid))?;
    finish(F::read_type(&name, &fields), uuid, check)
}

fn decode_msgpack<F: FrameSet>(bytes: &[u8], check: fn(&F) -> Option<Fault>) -> Result<Option<F>, Rejected> {
    let mut rest = bytes;
    msgpack::skip(&mut rest).ok_or_else(|| malformed("the frame is not MessagePack"))?;
    if !rest.is_empty() {
        return Err(malformed("something follows the frame"));
    }
    let shape = || invalid(None, None, "a frame is a MessagePack array that begins with its kind");
    let mut elements = msgpack::elements(bytes).ok_or_else(shape)?;
    let kind = elements.next().and_then(|raw| Raw::Msgpack(raw).uint()).ok_or_else(shape)?;
    let Some(names) = u8::try_from(kind).ok().and_then(F::fields_of) else { return Ok(None) };
    let fields = Fields::in_order(names, elements.map(Raw::Msgpack));
    let uuid = fields.get::<Option<Uuid>>("uuid").ok().flatten();
    finish(F::read_kind(kind as u8, &fields), uuid, check)
}

fn finish<F>(
    frame: Option<Result<F, Fault>>,
    uuid: Option<Uuid>,
    check: fn(&F) -> Option<Fault>,
) -> Result<Option<F>, Rejected> {
    let Some(frame) = frame.transpose().map_err(|fault| fault.reject(uuid))? else { return Ok(None) };
    check(&frame).map_or(Ok(Some(frame)), |fault| Err(fault.reject(uuid)))
}

fn malformed(message: &str) -> Rejected {
    Rejected { code: Code::FrameMalformed, uuid: None, field: None, message: message.to_owned() }
}

fn invalid(uuid: Option<Uuid>, field: Option<&'static str>, message: impl Into<String>) -> Rejected {
    Rejected { code: Code::CommandInvalid, uuid, field, message: message.into() }
}

impl Fault {
    fn reject(self, uuid: Option<Uuid>) -> Rejected {
        let Self { field, missing, expected } = self;
        let message = if missing {
            format!("`{field}` is missing: {expected}")
        } else {
            format!("`{field}` must be {expected}")
        };
        invalid(uuid, Some(field), message)
    }
}
