//! WebSocket bytes, as cheaply as a client can read and write them.
//!
//! Frames are found in place in the read buffer. The frames that come by the ten thousand (messages, acks, cursors)
//! are recognised by their first bytes and read by a scan of the fields in the order in which the protocol documents
//! them. A frame that is written in any other way is [`Scanned::Other`] and left to the real parser. The scan can
//! therefore make a run slower, never wrong.

/// The 4 bytes that a client must mask its payload with; the protocol asks for randomness because of proxies, of which
/// there are none here.
const MASK: [u8; 4] = [0x4d, 0x54, 0x6c, 0x74];

pub(super) const TEXT: u8 = 0x1;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xA;
const FIN: u8 = 0x80;

/// One frame in the read buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) opcode: u8,
    pub(super) payload: &'a [u8],
    /// The bytes of the buffer that it takes.
    pub(super) len: usize,
}

/// Why bytes are no frame that this server may send.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Malformed {
    #[error("a fragmented frame")]
    Fragmented,
    #[error("a masked frame")]
    Masked,
}

/// The first frame of the buffer, if it is there to its end.
pub(super) fn first(buffer: &[u8]) -> Result<Option<Frame<'_>>, Malformed> {
    let [start, length, ..] = *buffer else { return Ok(None) };
    if start & FIN == 0 {
        return Err(Malformed::Fragmented);
    }
    let (head, length): (usize, usize) = match length {
        0..126 => (2, usize::from(length)),
        126 => {
            let Some(bytes) = buffer.get(2..4) else { return Ok(None) };
            (4, bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
        }
        127 => {
            let Some(bytes) = buffer.get(2..10) else { return Ok(None) };
            (10, bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
        }
        128.. => return Err(Malformed::Masked),
    };
    let Some(payload) = head.checked_add(length).and_then(|end| buffer.get(head..end)) else {
        return Ok(None);
    };
    Ok(Some(Frame { opcode: start & 0x0f, payload, len: head + length }))
}

/// Appends one masked frame.
pub(super) fn push(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(FIN | opcode);
    match payload.len() {
        length @ 0..126 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// A text frame, as far as a scan of its first bytes tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scanned<'a> {
    Message { chat: u64, seq: u64, prev: u64, tag: u64 },
    Ack { tag: u64, chat: u64, seq: u64 },
    Cursor(&'a [u8]),
    Receipts,
    Presence,
    Typing,
    Ping,
    Other,
}

/// Reads a text frame's first fields.
pub(super) fn scan(text: &[u8]) -> Scanned<'_> {
    let Some(rest) = text.strip_prefix(b"{\"type\":\"") else { return Scanned::Other };
    let scanned = match rest {
        [b'M', ..] => message(rest),
        [b'A', ..] => ack(rest),
        [b'C', ..] => cursor(rest),
        [b'R', b'e', b'c', ..] => rest.starts_with(b"Receipts\"").then_some(Scanned::Receipts),
        [b'P', b'r', ..] => rest.starts_with(b"Presence\"").then_some(Scanned::Presence),
        [b'P', b'i', ..] => rest.starts_with(b"Ping\"").then_some(Scanned::Ping),
        [b'T', ..] => rest.starts_with(b"Typing\"").then_some(Scanned::Typing),
        _ => None,
    };
    scanned.unwrap_or(Scanned::Other)
}

fn message(rest: &[u8]) -> Option<Scanned<'_>> {
    let (chat, rest) = number(rest.strip_prefix(b"Message\",\"chatId\":")?)?;
    let (seq, rest) = number(rest.strip_prefix(b",\"seq\":")?)?;
    let (prev, rest) = number(rest.strip_prefix(b",\"prev\":")?)?;
    let tag = tag(rest.strip_prefix(b",\"uuid\":\"")?)?;
    Some(Scanned::Message { chat, seq, prev, tag })
}

fn ack(rest: &[u8]) -> Option<Scanned<'_>> {
    let rest = rest.strip_prefix(b"Ack\",\"uuid\":\"")?;
    let tag = tag(rest)?;
    let (chat, rest) = number(rest.get(UUID_LEN..)?.strip_prefix(b"\",\"chatId\":")?)?;
    let (seq, _) = number(rest.strip_prefix(b",\"seq\":")?)?;
    Some(Scanned::Ack { tag, chat, seq })
}

fn cursor(rest: &[u8]) -> Option<Scanned<'_>> {
    let rest = rest.strip_prefix(b"Cursor\",\"cursor\":\"")?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    Some(Scanned::Cursor(&rest[..end]))
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // 19 digits always fit.
    if digits == 0 || digits > 19 {
        return None;
    }
    let value = text[..digits].iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    Some((value, &text[digits..]))
}

const UUID_LEN: usize = 36;

/// The low 64 bits of the uuid that the text begins with: groups four and five.
fn tag(text: &[u8]) -> Option<u64> {
    let low = text.get(19..UUID_LEN)?;
    if low[4] != b'-' {
        return None;
    }
    low.iter().filter(|byte| **byte != b'-').try_fold(0_u64, |value, byte| {
        let digit = (*byte as char).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_whatever_their_length() {
        for length in [0, 1, 125, 126, 300, 65_535, 65_536] {
            let mut wire = Vec::new();
            push(&mut wire, TEXT, &vec![b'x'; length]);
            // Turn the client's frame into a server's: no mask.
            let at = wire.len() - length - 4;
            wire.drain(at..at + 4);
            wire[1] &= 0x7f;
            let start = wire.len() - length;
            wire[start..].fill(b'x');
            for cut in [0, 1, 2, 3, 9, wire.len() - 1].into_iter().filter(|cut| *cut < wire.len()) {
                assert_eq!(first(&wire[..cut]), Ok(None), "{length} cut at {cut}");
            }
            let len = wire.len();
            wire.extend_from_slice(b"next");
            let payload = vec![b'x'; length];
            assert_eq!(first(&wire), Ok(Some(Frame { opcode: TEXT, payload: &payload, len })));
        }
    }

    #[test]
    fn a_server_neither_masks_nor_fragments() {
        assert_eq!(first(&[0x81, 0x80, 0, 0, 0, 0]), Err(Malformed::Masked));
        assert_eq!(first(&[0x01, 0x01, b'x']), Err(Malformed::Fragmented));
    }

    #[test]
    fn a_client_frame_is_masked() {
        let mut wire = Vec::new();
        push(&mut wire, PONG, b"abcde");
        assert_eq!(wire[..2], [0x8a, 0x85]);
        let plain: Vec<u8> =
            wire[6..].iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        assert_eq!(plain, b"abcde");
    }

    #[test]
    fn documented_frames_are_read_by_their_bytes() {
        let uuid = "0192c3f0-0000-7000-8abc-0000000000ff";
        let message = format!(
            r#"{{"type":"Message","chatId":12,"seq":4711,"prev":0,"uuid":"{uuid}","from":7,"body":"Hi","ts":0}}"#
        );
        let tag = 0x8abc_0000_0000_00ff;
        assert_eq!(scan(message.as_bytes()), Scanned::Message { chat: 12, seq: 4711, prev: 0, tag });
        let ack = format!(r#"{{"type":"Ack","uuid":"{uuid}","chatId":12,"seq":4711,"ts":0,"dup":false}}"#);
        assert_eq!(scan(ack.as_bytes()), Scanned::Ack { tag, chat: 12, seq: 4711 });
        assert_eq!(scan(br#"{"type":"Cursor","cursor":"abc"}"#), Scanned::Cursor(b"abc"));
        assert_eq!(scan(br#"{"type":"Receipts","chatId":1,"receipts":[]}"#), Scanned::Receipts);
        assert_eq!(scan(br#"{"type":"Presence","userId":1}"#), Scanned::Presence);
        assert_eq!(scan(br#"{"type":"Typing","chatId":1}"#), Scanned::Typing);
        assert_eq!(scan(br#"{"type":"Ping","t":1}"#), Scanned::Ping);
    }

    #[test]
    fn anything_else_is_left_to_the_parser() {
        for text in [
            r#"{"type":"Message","seq":1,"chatId":1}"#,
            r#"{"chatId":1,"type":"Message"}"#,
            r#"{"type":"Ack","uuid":"short","chatId":1}"#,
            r#"{"type":"Cursor","cursor":"endless"#,
            r#"{"type":"Pong","t":1}"#,
            r#"{"type":"Reset","chatId":1}"#,
            "",
        ] {
            assert_eq!(scan(text.as_bytes()), Scanned::Other, "{text}");
        }
    }
}
