//! For tests: sessions as a gateway makes them, and what each has queued, decoded again as a client would.

use clap::Parser;
use shared::{
    codec,
    frame::ServerFrame,
    id::{ChatId, UserId},
};
use uuid::Uuid;

use super::{
    Identity, Session,
    settings::SessionSettings,
    wire::{self, Encoding},
};

pub(crate) fn user(id: u64) -> UserId {
    UserId::new(id).unwrap()
}

pub(crate) fn chat(id: u64) -> ChatId {
    ChatId::new(id).unwrap()
}

/// The defaults of the product.
pub(crate) fn settings() -> SessionSettings {
    #[derive(Parser)]
    struct Defaults {
        #[command(flatten)]
        session: SessionSettings,
    }
    Defaults::parse_from(["test"]).session
}

/// A session whose token does not end.
pub(crate) fn session(id: u64, settings: &SessionSettings) -> Session {
    session_until(id, u64::MAX, settings)
}

/// A session whose token ends then, Unix ms.
pub(crate) fn session_until(id: u64, token_expires_ms: u64, settings: &SessionSettings) -> Session {
    let identity =
        Identity { user: user(id), family: Uuid::new_v4(), device: "web".into(), encoding: Encoding::Json };
    Session::new(identity, token_expires_ms, settings, 0)
}

/// What a client finds on the wire.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Heard {
    /// A ping of the WebSocket protocol.
    ControlPing,
    Frame(ServerFrame),
}

/// Writes all that is queued, as the connection's task would, and decodes it.
pub(crate) fn heard(session: &Session) -> Vec<Heard> {
    let mut outbox = session.outbox();
    let mut bytes = vec![0; outbox.bytes()];
    let length = outbox.gather(&mut bytes).len();
    outbox.advance(length, 0);
    outbox.wake_if_drained(usize::MAX);
    drop(outbox);
    decode(&bytes)
}

/// The frames among [`heard`].
pub(crate) fn frames(session: &Session) -> Vec<ServerFrame> {
    let frame = |heard| if let Heard::Frame(frame) = heard { Some(frame) } else { None };
    heard(session).into_iter().filter_map(frame).collect()
}

fn decode(mut bytes: &[u8]) -> Vec<Heard> {
    let mut all = Vec::new();
    while let [opcode, length, rest @ ..] = bytes {
        let (length, rest) = match length {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, &rest[8..]),
            length => (usize::from(*length), rest),
        };
        let (payload, rest) = rest.split_at(length);
        let decoded = match *opcode {
            wire::TEXT => codec::decode_server_json(payload),
            wire::BINARY => codec::decode_server_msgpack(payload),
            _ => {
                assert_eq!(*opcode, wire::PING);
                all.push(Heard::ControlPing);
                bytes = rest;
                continue;
            }
        };
        all.push(Heard::Frame(decoded.unwrap().unwrap()));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "half a frame was queued");
    all
}
