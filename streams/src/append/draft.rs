//! One event, encoded once, to be sent by as many attempts as it takes.

use bytes::Bytes;

/// The headers of an append.
pub(super) struct Headers<'a> {
    /// The `Nats-Msg-Id`.
    pub id: &'a str,
    pub traceparent: Option<&'a str>,
    /// Whether the subject must be empty.
    pub first: bool,
}

/// Subject, headers and payload in one piece of memory, which all attempts share.
#[derive(Clone)]
pub(super) struct Draft {
    bytes: Bytes,
    subject_end: usize,
    headers_end: usize,
}

impl Draft {
    pub(super) fn new(subject: &str, headers: Headers<'_>, payload: &[u8]) -> Self {
        let traceparent = headers.traceparent.filter(|text| is_harmless(text));
        // 128: the header names and their ends.
        let room = 128 + subject.len() + headers.id.len() + traceparent.map_or(0, str::len) + payload.len();
        let mut bytes = Vec::with_capacity(room);
        let mut put = |text: &str| bytes.extend_from_slice(text.as_bytes());
        put(subject);
        put("NATS/1.0\r\nNats-Msg-Id: ");
        put(headers.id);
        if headers.first {
            put("\r\nNats-Expected-Last-Subject-Sequence: 0");
        }
        if let Some(traceparent) = traceparent {
            put("\r\ntraceparent: ");
            put(traceparent);
        }
        put("\r\n\r\n");
        let headers_end = bytes.len();
        bytes.extend_from_slice(payload);
        Self { bytes: bytes.into(), subject_end: subject.len(), headers_end }
    }

    pub(super) fn subject(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.subject_end]).unwrap_or_default()
    }

    /// The whole block.
    pub(super) fn headers(&self) -> &[u8] {
        &self.bytes[self.subject_end..self.headers_end]
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[self.headers_end..]
    }

    /// The bytes that the server's limit counts: headers and payload.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() - self.subject_end
    }
}

/// Whether the text can stand in a header without ending it.
fn is_harmless(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_where_they_belong() {
        let headers = Headers { id: "7-1-a", traceparent: Some("00-ab"), first: true };
        let draft = Draft::new("chat.0.1", headers, b"payload");
        assert_eq!(draft.subject(), "chat.0.1");
        let block = "NATS/1.0\r\nNats-Msg-Id: 7-1-a\r\nNats-Expected-Last-Subject-Sequence: 0\r\n\
                     traceparent: 00-ab\r\n\r\n";
        assert_eq!(draft.headers(), block.as_bytes());
        assert_eq!(draft.payload(), b"payload");
        assert_eq!(draft.size(), block.len() + 7);
    }

    #[test]
    fn a_trace_context_can_not_add_headers() {
        let headers = Headers { id: "x", traceparent: Some("a\r\nNats-Rollup: all"), first: false };
        assert_eq!(Draft::new("s", headers, b"").headers(), b"NATS/1.0\r\nNats-Msg-Id: x\r\n\r\n");
    }
}
