//! A connection to NATS for the hot paths, append and tail. When it dies, everything that it holds is dropped.
//!
//! `async-nats` is a fine client, and everything but these two paths uses it. Here three of its virtues hurt: it
//! keeps unsent publishes over a disconnect and stores them minutes later, outside the dedupe window; it reads
//! ahead of a slow reader into a queue; and it builds a hash map of headers for every message. A [`Line`] never
//! reconnects (its owner dials a new one), reads only when asked, and lends messages from its buffer. Its socket is
//! reset on close, so that the kernel drops the bytes that it had not sent.
//!
//! Invariants: a write is bounded by [`WRITE_TIMEOUT`]; [`Line::fill`] and [`Line::flush`] are cancel-safe.

mod parse;

use std::{io, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

pub(crate) use parse::{Message, Op};

/// The size of a read: about 200 chat messages, so that a busy line costs one syscall per hundreds of events.
pub(crate) const READ_CHUNK: usize = 64 * 1024;

/// How long a server may refuse to take bytes before the line counts as cut.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// A TCP or TLS stream, or a test's pipe.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// One connection that has been introduced to the server.
pub(crate) struct Line {
    socket: Box<dyn Socket>,
    /// Bytes received.
    read: BytesMut,
    /// How many of them parsed operations have used up.
    used: usize,
    /// Bytes to send.
    out: BytesMut,
    max_payload: usize,
}

impl Line {
    pub(crate) fn new(socket: Box<dyn Socket>, read: BytesMut, max_payload: usize) -> Self {
        Self { socket, read, used: 0, out: BytesMut::new(), max_payload }
    }

    /// The largest message (headers and payload) that the server takes.
    pub(crate) fn max_payload(&self) -> usize {
        self.max_payload
    }

    /// Waits until the server has sent more bytes.
    pub(crate) async fn fill(&mut self) -> io::Result<()> {
        self.read.advance(self.used);
        self.used = 0;
        self.read.reserve(READ_CHUNK);
        match self.socket.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The next message that has arrived completely, lent from the buffer. Pings are answered on the next flush.
    pub(crate) fn message(&mut self) -> io::Result<Option<Message<'_>>> {
        loop {
            let Some((op, length)) = parse::next(&self.read[self.used..])? else { return Ok(None) };
            let start = self.used;
            self.used += length;
            match op {
                Op::Ping => self.out.extend_from_slice(b"PONG\r\n"),
                Op::Message(ranges) => return Ok(Some(ranges.lend(&self.read[start..self.used]))),
                Op::Nothing => {}
                Op::Error(text) => return Err(io::Error::other(format!("server: {text}"))),
            }
        }
    }

    /// Enqueues a subscription; `sid` marks its messages.
    pub(crate) fn subscribe(&mut self, subject: &str, sid: u8) {
        self.put(&[b"SUB ", subject.as_bytes(), b" "]);
        self.put_number(sid.into());
        self.put(&[b"\r\n"]);
    }

    /// Enqueues a ping: its pong proves that the line lives.
    pub(crate) fn ping(&mut self) {
        self.put(&[b"PING\r\n"]);
    }

    /// Enqueues a publish without headers.
    pub(crate) fn publish(&mut self, subject: &str, reply: Option<&str>, payload: &[u8]) {
        self.put(&[b"PUB ", subject.as_bytes(), b" "]);
        if let Some(reply) = reply {
            self.put(&[reply.as_bytes(), b" "]);
        }
        self.put_number(payload.len());
        self.put(&[b"\r\n", payload, b"\r\n"]);
    }

    /// Enqueues a publish with headers. `headers` is a whole block, `NATS/1.0\r\n...\r\n\r\n`; the reply subject is
    /// `<inbox>.<token>`.
    pub(crate) fn request(&mut self, subject: &str, inbox: &str, token: u64, headers: &[u8], payload: &[u8]) {
        self.put(&[b"HPUB ", subject.as_bytes(), b" ", inbox.as_bytes(), b"."]);
        self.put(&[itoa::Buffer::new().format(token).as_bytes(), b" "]);
        self.put_number(headers.len());
        self.put(&[b" "]);
        self.put_number(headers.len() + payload.len());
        self.put(&[b"\r\n", headers, payload, b"\r\n"]);
    }

    /// Whether a flush has bytes to write.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.out.is_empty()
    }

    /// Writes the enqueued bytes.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match timeout(WRITE_TIMEOUT, self.socket.write_buf(&mut self.out)).await {
                Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        timeout(WRITE_TIMEOUT, self.socket.flush()).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    fn put(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.out.extend_from_slice(part));
    }

    fn put_number(&mut self, number: usize) {
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }
}

/// A new subject for replies to this process.
pub(crate) fn inbox() -> String {
    format!("_INBOX.{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>())
}
