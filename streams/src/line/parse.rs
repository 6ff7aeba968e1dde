//! The operations that a NATS server sends, parsed in place.
//!
//! Pure. An operation is parsed once all of its bytes are there; nothing is copied.

use std::{io, ops::Range};

use crate::subject::decimal;

/// More than any control line of a NATS server has. A longer one means that the peer is something else.
const MAX_CONTROL_LINE: usize = 16 * 1024;

/// The largest message that is accepted: eight times the default limit of a server.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;

pub(crate) enum Op {
    Message(Ranges),
    Ping,
    /// `+OK`, `PONG`, `INFO`: nothing to do.
    Nothing,
    Error(String),
}

/// Where the parts of a message lie in the bytes of its operation.
pub(crate) struct Ranges {
    sid: u8,
    subject: Range<usize>,
    reply: Range<usize>,
    headers: Range<usize>,
    payload: Range<usize>,
}

/// A message, lent from the buffer of its line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub sid: u8,
    pub subject: &'a [u8],
    /// Empty if there is none.
    pub reply: &'a [u8],
    pub headers: Headers<'a>,
    pub payload: &'a [u8],
}

impl Ranges {
    pub(crate) fn lend(self, bytes: &[u8]) -> Message<'_> {
        Message {
            sid: self.sid,
            subject: &bytes[self.subject],
            reply: &bytes[self.reply],
            headers: Headers(&bytes[self.headers]),
            payload: &bytes[self.payload],
        }
    }
}

/// A header block, `NATS/1.0[ status[ text]]\r\nName: value\r\n...\r\n`, or nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Headers<'a>(pub(crate) &'a [u8]);

impl<'a> Headers<'a> {
    /// The inline status of a message from the server itself: 100, 404, 503...
    pub(crate) fn status(self) -> Option<u16> {
        let rest = self.0.strip_prefix(b"NATS/1.0 ")?;
        let digits = rest.get(..3)?;
        decimal(digits)?.try_into().ok()
    }

    pub(crate) fn get(self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(have, _)| have.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.0;
        next_line(&mut rest);
        std::iter::from_fn(move || {
            loop {
                let line = next_line(&mut rest)?;
                if let Some(colon) = memchr::memchr(b':', line) {
                    return Some((&line[..colon], line[colon + 1..].trim_ascii()));
                }
            }
        })
    }
}

fn next_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = memchr::memchr(b'\n', rest)?;
    let line = &rest[..end];
    *rest = &rest[end + 1..];
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// The first operation of `bytes` and its length; none if it is not complete.
pub(crate) fn next(bytes: &[u8]) -> io::Result<Option<(Op, usize)>> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return if bytes.len() > MAX_CONTROL_LINE { Err(invalid("endless control line")) } else { Ok(None) };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let body = end + 1;
    if let Some(arguments) = line.strip_prefix(b"HMSG ") {
        message(bytes, arguments, 5, body, true)
    } else if let Some(arguments) = line.strip_prefix(b"MSG ") {
        message(bytes, arguments, 4, body, false)
    } else if line == b"PING" {
        Ok(Some((Op::Ping, body)))
    } else if let Some(text) = line.strip_prefix(b"-ERR ") {
        Ok(Some((Op::Error(String::from_utf8_lossy(text).into_owned()), body)))
    } else if line == b"PONG" || line == b"+OK" || line.starts_with(b"INFO ") {
        Ok(Some((Op::Nothing, body)))
    } else {
        Err(invalid("unknown operation"))
    }
}

/// `<subject> <sid> [reply] [header bytes] <total bytes>`, then the body.
fn message(
    bytes: &[u8],
    arguments: &[u8],
    at: usize,
    body: usize,
    with_headers: bool,
) -> io::Result<Option<(Op, usize)>> {
    let mut fields: [Range<usize>; 5] = [const { 0..0 }; 5];
    let mut count = 0;
    let mut start = 0;
    for end in memchr::memchr_iter(b' ', arguments).chain([arguments.len()]) {
        if end > start {
            *fields.get_mut(count).ok_or_else(|| invalid("too many arguments"))? = at + start..at + end;
            count += 1;
        }
        start = end + 1;
    }
    let numbers = if with_headers { 2 } else { 1 };
    if count != 2 + numbers && count != 3 + numbers {
        return Err(invalid("wrong number of arguments"));
    }
    let number = |field: usize| {
        let number = decimal(&bytes[fields[field].clone()]).ok_or_else(|| invalid("no number"))?;
        usize::try_from(number).ok().filter(|n| *n <= MAX_MESSAGE).ok_or_else(|| invalid("too large"))
    };
    let total = number(count - 1)?;
    let header_length = if with_headers { number(count - 2)? } else { 0 };
    if header_length > total {
        return Err(invalid("headers longer than the message"));
    }
    let length = body + total + 2;
    if bytes.len() < length {
        return Ok(None);
    }
    let sid = u8::try_from(number(1)?).map_err(|_| invalid("unknown subscription"))?;
    let has_reply = count == 3 + numbers;
    let ranges = Ranges {
        sid,
        reply: if has_reply { fields[2].clone() } else { 0..0 },
        subject: fields[0].clone(),
        headers: body..body + header_length,
        payload: body + header_length..body + total,
    };
    Ok(Some((Op::Message(ranges), length)))
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only_message(bytes: &[u8]) -> Message<'_> {
        match next(bytes) {
            Ok(Some((Op::Message(ranges), length))) => {
                assert_eq!(length, bytes.len());
                ranges.lend(bytes)
            }
            _ => panic!("no message"),
        }
    }

    #[test]
    fn messages_with_and_without_reply_and_headers() {
        let plain = only_message(b"MSG chat.0.1 1 5\r\nhello\r\n");
        assert_eq!(
            (plain.subject, plain.sid, plain.reply, plain.payload),
            (&b"chat.0.1"[..], 1, &b""[..], &b"hello"[..])
        );
        let reply = only_message(b"MSG chat.0.1 2 $JS.ACK.x 0\r\n\r\n");
        assert_eq!((reply.sid, reply.reply, reply.payload), (2, &b"$JS.ACK.x"[..], &b""[..]));
        let headers = only_message(b"HMSG a 1 r 25 27\r\nNATS/1.0\r\nNats-Msg-Id:x\r\nhi\r\n");
        assert_eq!(headers.payload, b"hi");
        assert_eq!(headers.headers.get("nats-msg-id"), Some(&b"x"[..]));
        assert_eq!(headers.headers.status(), None);
    }

    #[test]
    fn statuses() {
        let message = only_message(b"HMSG a 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n");
        assert_eq!(message.headers.status(), Some(503));
        let text = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\nNats-Last-Stream: 9\r\n\r\n";
        assert_eq!(Headers(text).status(), Some(100));
        assert_eq!(Headers(text).get("Nats-Last-Consumer"), Some(&b"7"[..]));
    }

    #[test]
    fn every_cut_of_a_message_waits_for_the_rest() {
        let bytes = b"HMSG a 1 r 25 27\r\nNATS/1.0\r\nNats-Msg-Id:x\r\nhi\r\n";
        for cut in 0..bytes.len() {
            assert!(matches!(next(&bytes[..cut]), Ok(None)), "{cut}");
        }
    }

    #[test]
    fn nonsense_is_an_error_and_never_a_panic() {
        for bytes in [
            &b"HELLO\r\n"[..],
            b"MSG\r\n",
            b"MSG a\r\n",
            b"MSG a 1 2 3 4 5\r\n",
            b"MSG a 1 x\r\n",
            b"MSG a 1 99999999999\r\n",
            b"HMSG a 1 9 3\r\n",
        ] {
            assert!(next(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    use proptest::prelude::*;

    proptest! {
        /// Whatever a broken server or a stranger sends: an error, or a message that lies within the bytes.
        #[test]
        fn no_bytes_make_it_panic(
            head in "(H?MSG|-ERR|INFO|PING)? ?[a-z.]{0,4} ?[0-9]{0,3} ?[a-z0-9]{0,3} ?[0-9]{0,2} ?[0-9]{0,2}(\r\n)?",
            rest in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = [head.as_bytes(), &rest].concat();
            if let Ok(Some((op, length))) = next(&bytes) {
                prop_assert!(length <= bytes.len());
                if let Op::Message(ranges) = op {
                    let message = ranges.lend(&bytes[..length]);
                    let _: Option<u16> = message.headers.status();
                    prop_assert!(message.headers.iter().count() <= bytes.len());
                }
            }
        }
    }
}
