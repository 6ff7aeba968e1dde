//! A client's connection that waits only so long for a client that does not read.
//!
//! Invariants: while something waits to be written, nothing is read, so a client that pipelines requests and reads no
//! answers stops itself. The connection fails once its client has taken nothing for too long, or has not taken all of it
//! in time. A connection whose client reads has no timer.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use crate::infra::pages::Pages;

/// How long a client may take to read.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Without any progress.
    pub stall: Duration,
    /// For all that waits.
    pub whole: Duration,
    pub pages: Arc<Pages>,
}

/// While the memory for pages is short, a client may take this long for all that waits.
const SHORT: Duration = Duration::from_secs(5);
/// How often a connection that waits is looked at: the memory for pages may become short meanwhile.
const LOOK: Duration = Duration::from_secs(1);

impl Patience {
    fn is_over(&self, waiting: &Waiting, now: Instant) -> bool {
        let whole = if self.pages.are_short() { self.whole.min(SHORT) } else { self.whole };
        now - waiting.moved >= self.stall || now - waiting.since >= whole
    }
}

pub struct Patient {
    stream: TcpStream,
    patience: Patience,
    waiting: Option<Box<Waiting>>,
}

/// Something waits to be written.
struct Waiting {
    since: Instant,
    /// When the client last took something.
    moved: Instant,
    look: Pin<Box<Sleep>>,
}

impl Patient {
    pub const fn new(stream: TcpStream, patience: Patience) -> Self {
        Self { stream, patience, waiting: None }
    }

    /// The bare stream, for what is not HTTP.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn wrote<T>(&mut self, outcome: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            if let Some(waiting) = &mut self.waiting {
                waiting.moved = Instant::now();
            }
            return outcome;
        }
        let now = Instant::now();
        let new = || Box::new(Waiting { since: now, moved: now, look: Box::pin(sleep_until(now + LOOK)) });
        let waiting = self.waiting.get_or_insert_with(new);
        loop {
            ready!(waiting.look.as_mut().poll(cx));
            let now = Instant::now();
            if self.patience.is_over(waiting, now) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            waiting.look.as_mut().reset(now + LOOK);
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.waiting.is_some() {
            // The task is woken when something can be written, and reads then.
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(outcome, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has written all that it holds.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waiting = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
