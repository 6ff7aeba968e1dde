//! Frames as bytes: encoded once, with their WebSocket header, and shared by all sessions that are sent them.

use bytes::Bytes;
use shared::{codec, frame::ServerFrame};

/// How the frames to a session are encoded: JSON in text frames, or MessagePack in binary ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    MessagePack,
}

/// RFC 6455, 5.2: FIN and the opcode.
pub(super) const TEXT: u8 = 0x81;
pub(super) const BINARY: u8 = 0x82;
pub(super) const PING: u8 = 0x89;
/// The longest header of an unmasked frame.
const HEADER: usize = 10;

/// A WebSocket ping without a payload.
pub const CONTROL_PING: Bytes = Bytes::from_static(&[PING, 0]);

/// Encodes a frame for the wire.
pub fn encode(frame: &ServerFrame, encoding: Encoding) -> Bytes {
    let (buffer, start) = encode_into(frame, encoding);
    // Frames wait in queues, so spare capacity would be memory wasted.
    Bytes::from(buffer.into_boxed_slice()).slice(start..)
}

/// Encodes a frame for the wire into a buffer of its own. It begins at the index that is returned.
pub fn encode_into(frame: &ServerFrame, encoding: Encoding) -> (Vec<u8>, usize) {
    let mut buffer = Vec::with_capacity(HEADER + 256);
    buffer.resize(HEADER, 0);
    let opcode = match encoding {
        Encoding::Json => {
            codec::encode_json(frame, &mut buffer);
            TEXT
        }
        Encoding::MessagePack => {
            codec::encode_msgpack(frame, &mut buffer);
            BINARY
        }
    };
    let payload = buffer.len() - HEADER;
    let start = put_header(&mut buffer, opcode, payload);
    (buffer, start)
}

/// How many bytes the frame takes inside another one, about: a page joins its frames with one byte.
pub fn length_of(frame: &ServerFrame, encoding: Encoding, scratch: &mut Vec<u8>) -> usize {
    scratch.clear();
    match encoding {
        Encoding::Json => codec::encode_json(frame, scratch),
        Encoding::MessagePack => codec::encode_msgpack(frame, scratch),
    }
    scratch.len() + 1
}

/// A frame that is encoded when somebody first needs it, once per encoding.
#[derive(Debug)]
pub struct Encoded {
    frame: ServerFrame,
    json: Option<Bytes>,
    msgpack: Option<Bytes>,
}

impl Encoded {
    pub const fn new(frame: ServerFrame) -> Self {
        Self { frame, json: None, msgpack: None }
    }

    pub fn of(&mut self, encoding: Encoding) -> &Bytes {
        let place = match encoding {
            Encoding::Json => &mut self.json,
            Encoding::MessagePack => &mut self.msgpack,
        };
        place.get_or_insert_with(|| encode(&self.frame, encoding))
    }
}

/// Writes the header right before the payload. Returns where it starts.
fn put_header(buffer: &mut [u8], opcode: u8, payload: usize) -> usize {
    let (length, extended) = match payload {
        0..=125 => (payload as u8, 0),
        126..=0xFFFF => (126, 2),
        _ => (127, 8),
    };
    let start = HEADER - 2 - extended;
    buffer[start] = opcode;
    buffer[start + 1] = length;
    let big_endian = (payload as u64).to_be_bytes();
    buffer[HEADER - extended..HEADER].copy_from_slice(&big_endian[8 - extended..]);
    start
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketContext};

    use super::*;

    #[test]
    fn headers_of_every_length_are_rfc_6455() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let mut buffer = vec![0; HEADER];
            buffer.extend(std::iter::repeat_n(b'x', length));
            let start = put_header(&mut buffer, TEXT, length);
            let mut client = WebSocketContext::new(Role::Client, None);
            let mut wire = std::io::Cursor::new(buffer[start..].to_vec());
            let message = client.read(&mut wire).unwrap();
            assert_eq!(message.into_text().unwrap().len(), length);
        }
    }
}
