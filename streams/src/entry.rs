//! One stored event, as readers of the log get it, and how it is made of a delivered message.

use bytes::{Bytes, BytesMut};
use shared::id::{ChatId, EventId, Position, Seq};

use crate::{
    line::Message,
    subject::{Layout, decimal},
};

/// The payloads of many entries share one allocation of this size. An entry that is kept pins its chunk, so a ring of
/// consecutive entries wastes nothing.
const ARENA_CHUNK: usize = 64 * 1024;

/// A stored event and its place in the log.
#[derive(Debug, Clone)]
pub struct Entry {
    pub seq: Seq,
    pub id: EventId,
    /// When JetStream stored it, in Unix milliseconds.
    pub ts_ms: u64,
    /// The same in nanoseconds: latencies are measured from it.
    pub appended_ns: u64,
    /// None on the subject of no chat, and on subjects that this build does not know.
    pub chat: Option<ChatId>,
    pub payload: Bytes,
    /// The W3C trace context, if the append was sampled.
    pub traceparent: Option<Box<str>>,
}

impl Entry {
    pub fn position(&self) -> Position {
        Position { seq: self.seq, id: self.id }
    }
}

/// Makes entries of messages.
pub(crate) struct Reader {
    layout: Layout,
    arena: BytesMut,
}

/// The place of a delivered message, read from its acknowledgement subject.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub stream_seq: u64,
    pub consumer_seq: u64,
    pub stored_ns: u64,
}

impl Reader {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout, arena: BytesMut::new() }
    }

    pub(crate) fn entry(&mut self, message: Message<'_>, place: &Place) -> Entry {
        let (mut id, mut traceparent) = ("", None);
        for (name, value) in message.headers.iter() {
            match name {
                b"Nats-Msg-Id" => id = std::str::from_utf8(value).unwrap_or_default(),
                b"traceparent" => traceparent = std::str::from_utf8(value).ok().map(Into::into),
                _ => {}
            }
        }
        let subject = std::str::from_utf8(message.subject).unwrap_or_default();
        Entry {
            seq: Seq(place.stream_seq),
            id: EventId::of(id, place.stored_ns),
            ts_ms: place.stored_ns / 1_000_000,
            appended_ns: place.stored_ns,
            chat: self.layout.parse_chat(subject).and_then(|(_, chat)| chat),
            payload: self.keep(message.payload),
            traceparent,
        }
    }

    fn keep(&mut self, payload: &[u8]) -> Bytes {
        if self.arena.capacity() < payload.len() {
            self.arena = BytesMut::with_capacity(ARENA_CHUNK.max(payload.len()));
        }
        self.arena.extend_from_slice(payload);
        self.arena.split().freeze()
    }
}

/// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<ns>.<pending>`, and with
/// `<domain>.<account>` before the stream and a random token at the end on servers of the second form.
pub(crate) fn place(reply: &[u8]) -> Option<Place> {
    let rest = reply.strip_prefix(b"$JS.ACK.")?;
    let mut tokens = [&rest[..0]; 10];
    let mut count = 0;
    for token in rest.split(|byte| *byte == b'.') {
        *tokens.get_mut(count)? = token;
        count += 1;
    }
    let skip = match count {
        7 => 0,
        9 | 10 => 2,
        _ => return None,
    };
    Some(Place {
        stream_seq: decimal(tokens[skip + 3])?,
        consumer_seq: decimal(tokens[skip + 4])?,
        stored_ns: decimal(tokens[skip + 5])?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_acknowledgement_subject() {
        let place_of = |text: &str| place(text.as_bytes());
        let expected = Some(Place { stream_seq: 42, consumer_seq: 7, stored_ns: 1_700_000_000_000_000_001 });
        assert_eq!(place_of("$JS.ACK.CHAT_0.abc.1.42.7.1700000000000000001.3"), expected);
        assert_eq!(place_of("$JS.ACK.hub.acc.CHAT_0.abc.1.42.7.1700000000000000001.3.rnd"), expected);
        assert_eq!(place_of("$JS.ACK.hub.acc.CHAT_0.abc.1.42.7.1700000000000000001.3"), expected);
        for nonsense in ["", "$JS.ACK.", "$JS.ACK.a.b.c", "$JS.ACK.a.b.1.x.1.1.1", "$JS.FC.CHAT_0.abc.1"] {
            assert_eq!(place_of(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn payloads_share_chunks() {
        let mut reader = Reader::new(Layout::new("").unwrap());
        let (first, second) = (reader.keep(b"one"), reader.keep(b"two"));
        assert_eq!((&first[..], &second[..]), (&b"one"[..], &b"two"[..]));
        assert_eq!(first.as_ptr().wrapping_add(3), second.as_ptr());
        assert_eq!(reader.keep(&vec![7; ARENA_CHUNK * 2]).len(), ARENA_CHUNK * 2);
    }
}
