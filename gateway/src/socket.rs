//! One connection's life: reading, writing and closing, in one hand-written poll loop.
//!
//! Only the session's own task runs the loop. It hands each frame of the client to `dispatch`, and writes what the
//! session's outbox holds. Reads and writes go through a buffer that all sockets of a worker thread share, so an idle
//! socket keeps none. What is queued leaves in one system call per 16 KiB, with the `Cursor` that is due for it. The
//! rules of the WebSocket protocol (masks, fragments, UTF-8, control frames, the close handshake) are left to
//! tungstenite. Invariants: the loop never waits for anything but its socket and the session's waker; once the session
//! is to close, no frame of the client is taken any more, and [`Socket::run`] returns, so that the caller detaches the
//! session before the peer is told ([`Socket::part`]).

mod admission;
mod dispatch;
mod fetch;
mod lanes;
pub mod seats;
pub mod services;
mod signal;
#[cfg(test)]
mod stage;
pub mod start;
pub mod sweep;

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use shared::id::Seq;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    error::{CapacityError, ProtocolError},
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext, frame::coding::CloseCode},
};

pub use self::services::Services;
use crate::{
    infra::addresses::Connection,
    session::{
        Session,
        close::Close,
        outbox::{LOW_WATER_BYTES, Queued},
    },
};

/// The size of the buffer that the sockets of a thread share: it holds a burst of ordinary frames. Frames are copied
/// into it to be written, since that is cheaper than to give the kernel a list of them.
const BUFFER: usize = 16 * 1024;
/// The initial size of tungstenite's own buffer. Each socket has one for its whole life, so it starts tiny and grows
/// on demand.
const FRAME_BUFFER: usize = 64;
/// A socket that always has more to read lets other tasks run after this many reads.
const READS_PER_TURN: usize = 8;

/// Bytes of fragments without a content that count as one frame: some hundred of them.
const FRAGMENTS: i32 = 1_024;

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into());
}

/// The connection and the state of its protocol; lives in the session's task.
pub struct Socket {
    stream: TcpStream,
    context: WebSocketContext,
    /// The bytes that came with the upgrade request have yet to be parsed.
    unparsed: bool,
    /// The session has been left, and its peer is told.
    parting: bool,
    close_sent: bool,
    /// Too much waits to be written, so nothing is read.
    choked: bool,
    /// Bytes read that belong to no message so far: those of a message under way, and what fragments took beyond theirs.
    unassigned: i32,
    /// The peer broke the protocol. What it still sends is read and thrown away: without reading, the kernel would
    /// reset the connection before the peer gets our close.
    broken: bool,
    _connection: Arc<Connection>,
}

impl Socket {
    /// `early`: bytes that came with the upgrade request.
    /// `connection` counts the connection until the socket is dropped.
    pub fn new(stream: TcpStream, early: &[u8], frame_bytes: usize, connection: Arc<Connection>) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(FRAME_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(usize::MAX)
            .max_message_size(Some(frame_bytes))
            .max_frame_size(Some(frame_bytes));
        let unassigned = i32::try_from(early.len()).unwrap_or(i32::MAX);
        let context = WebSocketContext::from_partially_read(early.to_vec(), Role::Server, Some(config));
        Self {
            stream,
            context,
            unparsed: true,
            parting: false,
            close_sent: false,
            choked: false,
            unassigned,
            broken: false,
            _connection: connection,
        }
    }

    /// Runs until the connection ends or the session is to close.
    pub async fn run(&mut self, session: &Arc<Session>, services: &Arc<Services>) -> Left {
        std::future::poll_fn(|cx| self.poll(session, services, cx)).await
    }

    /// Tells the peer why the session closes, and waits until it has read that. Never ends if the peer does nothing.
    pub async fn part(&mut self, session: &Arc<Session>, services: &Arc<Services>) {
        self.parting = true;
        self.run(session, services).await;
    }

    fn poll(&mut self, session: &Arc<Session>, services: &Arc<Services>, cx: &mut Context<'_>) -> Poll<Left> {
        // The cursor is queued before the waker is registered: queueing wakes, and the task would run once more for
        // nothing.
        if session.cursor_is_due(services.now_ms()) {
            services.hub.send_cursors(std::slice::from_ref(session), services.now_ms());
        }
        session.wake(cx.waker());
        if session.is_ended() {
            return Poll::Ready(Left::Gone);
        }
        // They are parsed before the first read.
        let unparsed = self.unparsed && (self.parting || session.closing().is_none());
        if unparsed && std::mem::take(&mut self.unparsed) && self.consume(session, services, &[]).is_err() {
            return Poll::Ready(Left::Gone);
        }
        for _ in 0..READS_PER_TURN {
            if !self.parting && session.closing().is_some() {
                return Poll::Ready(Left::Closing);
            }
            if self.send_close(session).is_err() || flush(&self.stream, session, services, cx).is_err() {
                return Poll::Ready(Left::Gone);
            }
            let choked = session.is_choked();
            if choked && !self.choked {
                services.hub.metrics.choked_total.inc();
            }
            self.choked = choked;
            if choked {
                return Poll::Pending;
            }
            let read = SHARED.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read)).map_err(drop)?;
                let bytes = read.filled();
                if bytes.is_empty() {
                    return Poll::Ready(Err(()));
                }
                session.heard(services.now_ms());
                Poll::Ready(self.consume(session, services, bytes))
            });
            match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(())) => {
                    // The connection is over. The answer to the peer's close may still be queued: what the kernel
                    // takes without waiting goes out.
                    return match flush(&self.stream, session, services, cx) {
                        Ok(()) | Err(Gone) => Poll::Ready(Left::Gone),
                    };
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Feeds bytes to the protocol and acts on the frames in them. `Err`: the connection is over.
    fn consume(&mut self, session: &Arc<Session>, services: &Arc<Services>, bytes: &[u8]) -> Result<(), ()> {
        let mut wire = Wire { bytes, session, answers: true, now_ms: services.now_ms() };
        self.unassigned = self.unassigned.saturating_add_unsigned(bytes.len() as u32);
        while !self.broken {
            let message = self.context.read(&mut wire);
            if let Ok(message) = &message {
                self.unassigned -= wire_length(message.len());
            }
            match message {
                Ok(Message::Text(text)) if session.closing().is_none() => {
                    dispatch::text(services, session, text.as_bytes())
                }
                Ok(Message::Binary(bytes)) if session.closing().is_none() => {
                    dispatch::binary(services, session, &bytes)
                }
                Ok(_) if session.closing().is_none() => dispatch::ignore(services, session),
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.charge_fragments(services, session);
                    return Ok(());
                }
                Err(error) => {
                    let close = violation(&error).ok_or(())?;
                    session.close(close, services.now_ms());
                    self.broken = true;
                }
            }
        }
        Ok(())
    }

    /// Counts what can't be part of a message under way against the session: fragments without a content, which the
    /// protocol allows without end and which never become a message that could be counted.
    fn charge_fragments(&mut self, services: &Services, session: &Session) {
        let most = wire_length(services.settings.frame_bytes);
        while self.unassigned > most && session.closing().is_none() {
            self.unassigned -= FRAGMENTS;
            dispatch::ignore(services, session);
        }
    }

    /// Queues the close frame once the session is to close.
    fn send_close(&mut self, session: &Session) -> Result<(), ()> {
        let Some(code) = session.closing().filter(|_| !self.close_sent) else { return Ok(()) };
        self.close_sent = true;
        let reason = Close::reason_of(code);
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        // A device that reads nothing, or must not read on, is told why and no more.
        if code == Close::TooSlow.code() || code == Close::Revoked.code() {
            session.outbox().clear();
        }
        let mut wire = Wire { bytes: &[], session, answers: false, now_ms: 0 };
        self.context.close(&mut wire, Some(frame)).or_else(|error| match error {
            Error::ConnectionClosed => Ok(()),
            _ => Err(()),
        })
    }
}

/// How many bytes a client's message takes in one frame: RFC 6455, 5.2, with the mask.
fn wire_length(payload: usize) -> i32 {
    let header = match payload {
        0..=125 => 6,
        126..=0xFFFF => 8,
        _ => 14,
    };
    i32::try_from(payload + header).unwrap_or(i32::MAX)
}

/// The close code for a violation of the protocol; `None` when the connection is simply over.
fn violation(error: &Error) -> Option<Close> {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Some(Close::FrameTooLarge),
        Error::Utf8(_) => Some(Close::NotUtf8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(Close::Protocol),
        _ => None,
    }
}

/// How the socket's loop was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The connection is over.
    Gone,
    /// The session is to close, and its peer has yet to be told.
    Closing,
}

/// The connection is over.
struct Gone;

/// Writes what is queued, as much as the kernel takes.
fn flush(
    stream: &TcpStream,
    session: &Session,
    services: &Services,
    cx: &mut Context<'_>,
) -> Result<(), Gone> {
    loop {
        let mut outbox = session.outbox();
        if outbox.is_empty() {
            return Ok(());
        }
        match stream.poll_write_ready(cx) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Err(_)) => return Err(Gone),
            Poll::Ready(Ok(())) => {}
        }
        let wrote = SHARED.with_borrow_mut(|buffer| stream.try_write(outbox.gather(buffer)));
        match wrote {
            Ok(bytes) => {
                let stored_us = outbox.advance(bytes, services.now_ms());
                if stored_us > 0 {
                    services.hub.metrics.observe_delivery(stored_us);
                }
                outbox.wake_if_drained(LOW_WATER_BYTES);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Gone),
        }
    }
}

/// The socket as tungstenite sees it: it reads the bytes of one read from here, and writes its control frames into
/// the session's outbox, so that all frames leave in one order.
struct Wire<'a> {
    bytes: &'a [u8],
    session: &'a Session,
    /// What is written answers a frame of the peer, which a session that is to close does not do any more.
    answers: bool,
    now_ms: u64,
}

impl Read for Wire<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.bytes.read(out)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.answers || self.session.closing().is_none() {
            let frame = Queued { bytes: Bytes::copy_from_slice(bytes), covers: Seq::ZERO, stored_us: 0 };
            self.session.outbox().push(frame, self.now_ms);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
