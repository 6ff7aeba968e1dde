//! A WebSocket client without manners: it answers no close and no ping, and may send frames before it was let in.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout_at,
};

/// The first byte of a whole text frame, and of a close.
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
/// A mask of zeros leaves the payload as it is.
const MASK: [u8; 4] = [0; 4];

pub(crate) struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

/// A frame from the server, and when it had come completely.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) at: Instant,
    first: u8,
    payload: Vec<u8>,
}

impl Frame {
    /// The code, if it is a close.
    pub(crate) fn close_code(&self) -> Option<u16> {
        let code = self.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        code.filter(|_| self.first == CLOSE)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap_or_default()
    }
}

impl Raw {
    /// Asks for the upgrade, with `early` in the same segment.
    pub(crate) async fn open(gateway: &str, query: &str, early: &[u8]) -> Self {
        let address: SocketAddr = gateway.trim_start_matches("http://").parse().unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut request = format!(
            "GET /v1/ws?{query} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .into_bytes();
        request.extend_from_slice(early);
        stream.write_all(&request).await.unwrap();
        let mut raw = Self { stream, read: Vec::new() };
        let head = loop {
            if let Some(end) = raw.read.windows(4).position(|end| end == b"\r\n\r\n") {
                break raw.read.drain(..end + 4).collect::<Vec<u8>>();
            }
            assert!(raw.fill().await, "closed before an answer");
        };
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        raw
    }

    async fn fill(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.read).await, Ok(1..))
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends as much as the peer takes before it ends the connection.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.ok();
    }

    fn parse(&mut self) -> Option<Frame> {
        let (&first, rest) = self.read.split_first()?;
        let (length, head) = match *rest.first()? {
            126 => (usize::from(u16::from_be_bytes(*rest.get(1..)?.first_chunk()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(*rest.get(1..)?.first_chunk()?)).unwrap(), 10),
            length => (usize::from(length), 2),
        };
        if self.read.len() < head + length {
            return None;
        }
        let payload = self.read.drain(..head + length).skip(head).collect();
        Some(Frame { at: Instant::now(), first, payload })
    }

    /// The next frame; `None` once the server has ended the connection, or `until` is over.
    pub(crate) async fn next(&mut self, until: Instant) -> Option<Frame> {
        loop {
            if let Some(frame) = self.parse() {
                return Some(frame);
            }
            if !timeout_at(until.into(), self.fill()).await.unwrap_or(false) {
                return None;
            }
        }
    }

    /// Every frame that comes for so long, or until the server ends the connection.
    pub(crate) async fn frames(&mut self, long: Duration) -> Vec<Frame> {
        let until = Instant::now() + long;
        let mut frames = Vec::new();
        while let Some(frame) = self.next(until).await {
            frames.push(frame);
        }
        frames
    }

    /// Reads up to a frame of this type.
    pub(crate) async fn expect(&mut self, frame_type: &str, long: Duration) {
        let until = Instant::now() + long;
        while let Some(frame) = self.next(until).await {
            if frame.json()["type"] == frame_type {
                return;
            }
        }
        panic!("no {frame_type}");
    }

    /// Resets the connection.
    pub(crate) fn abort(self) {
        self.stream.set_zero_linger().unwrap();
    }
}

/// A client's text frame, whatever its bytes are.
pub(crate) fn text(payload: &[u8]) -> Vec<u8> {
    frame(TEXT, payload)
}

/// A client's close.
pub(crate) fn close() -> Vec<u8> {
    frame(CLOSE, &1000_u16.to_be_bytes())
}

/// A client's frame with this first byte: FIN and the opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload);
    frame
}
