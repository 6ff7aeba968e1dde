//! TCP connections of clients: accepts them, speaks HTTP/1.1 on them, closes them.
//!
//! Invariants: no failure of `accept` ends the loop; a connection that becomes a WebSocket leaves this module as a
//! bare `TcpStream`; when the shutdown begins, no connection is accepted any more and idle ones are closed.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::HttpSettings;

/// The peer of the connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The largest head of a request. hyper's buffer is smaller at first and grows up to this.
const MAX_HEAD: usize = 64 * 1_024;
/// Requests with more headers are refused. Browsers behind proxies send about 30.
const MAX_HEADERS: usize = 64;
/// The wait before `accept` is tried again, after it failed or while all places are taken. Without it the loop would
/// spin until a file descriptor or a place is free.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until `shutdown`. Those that are open then answer their last request; `tracker` counts them.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: &HttpSettings,
    shutdown: CancellationToken,
    tracker: TaskTracker,
) {
    if let Ok(addr) = listener.local_addr() {
        tracing::info!(%addr, "listening");
    }
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = accept(&listener, &open, settings.http_connections) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let place = Place::take(&open);
                let connection = speak(stream, Peer(peer), router.clone(), http(settings), shutdown.clone());
                tracker.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    open: &AtomicUsize,
    most: usize,
) -> io::Result<(TcpStream, SocketAddr)> {
    while open.load(Ordering::Relaxed) >= most {
        tokio::time::sleep(PAUSE).await;
    }
    listener.accept().await
}

/// Whether the failure concerns only the peer, which was gone before it was accepted, and not the listener.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn http(settings: &HttpSettings) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(settings.header_timeout_ms))
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    http
}

async fn speak(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    http: http1::Builder,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::trace!(%error, "the peer is gone");
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        // Clients may break off at any time: no reason for a warning.
        tracing::trace!(%error, "the connection ended");
    }
}

/// One of the places for connections, taken until it is dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(open.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
