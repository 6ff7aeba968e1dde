//! TCP connections of clients: accepts them, speaks HTTP/1.1 on them, closes them.
//!
//! One that is beyond the bounds of its address, or of all, is told so in the shortest way and closed.
//! Invariants: no failure of `accept` ends the loop; a connection that becomes a WebSocket leaves this module as a
//! bare `TcpStream`; when the shutdown begins, no connection is accepted any more and idle ones are closed.

pub mod patient;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::Request};
use http::StatusCode;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use shared::code::Code;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use self::patient::{Patience, Patient};
use super::{HttpSettings, answer::problem::Problem, request::origin::Origins};
use crate::infra::addresses::{Addresses, Connection, Refused, Stranger};

/// The peer of the connection that a request came on, and the connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: IpAddr,
    pub connection: Arc<Connection>,
}

/// Which connections are taken, and how long their clients may be slow.
pub struct Admission {
    pub addresses: Arc<Addresses>,
    pub origins: Origins,
    pub patience: Patience,
}

/// The largest head of a request. hyper's buffer is smaller at first and grows up to this.
const MAX_HEAD: usize = 64 * 1_024;
/// Requests with more headers are refused. Browsers behind proxies send about 30.
const MAX_HEADERS: usize = 64;
/// The wait before `accept` is tried again after it failed. Without it the loop would spin until a file descriptor is
/// free.
const PAUSE: Duration = Duration::from_millis(50);

/// Refused connections that are still read from. Descriptors are kept for them. More are closed at once.
const REFUSED: usize = 64;
/// How long a refused client may take to read why.
const REFUSAL: Duration = Duration::from_secs(1);

/// Accepts connections until `shutdown`. Those that are open then answer their last request; `tracker` counts them.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: &HttpSettings,
    admission: Admission,
    shutdown: CancellationToken,
    tracker: TaskTracker,
) {
    if let Ok(addr) = listener.local_addr() {
        tracing::info!(%addr, "listening");
    }
    let refusals = Arc::new(Semaphore::new(REFUSED));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = accept(&listener) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let address = peer.ip().to_canonical();
                let bounded = (!admission.origins.trusts(address)).then_some(address);
                let (connection, stranger) = match admission.addresses.accept(bounded) {
                    Ok((connection, stranger)) => (Arc::new(connection), stranger),
                    Err(refused) => {
                        say_why(&stream, refused);
                        if let Ok(place) = refusals.clone().try_acquire_owned() {
                            tracker.spawn(async move {
                                part(stream).await;
                                drop(place);
                            });
                        }
                        continue;
                    }
                };
                let stream = Patient::new(stream, admission.patience.clone());
                let peer = Peer { address, connection };
                let first_head = Duration::from_millis(settings.header_timeout_ms);
                tracker.spawn(speak(
                    stream,
                    (peer, stranger),
                    router.clone(),
                    (http(settings), first_head),
                    shutdown.clone(),
                ));
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer))
}

/// Says why the connection is closed, as far as the kernel takes that without waiting. No request has been read.
fn say_why(stream: &TcpStream, refused: Refused) {
    let (status, code) = if refused.is_own() {
        (StatusCode::TOO_MANY_REQUESTS, Code::RateLimited)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Code::ServerUnavailable)
    };
    let body = Problem::new(code).body(status);
    let mut answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nretry-after: 1\r\n\
         connection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    if let Err(error) = stream.try_write(&answer) {
        tracing::trace!(%error, "a refused client is gone");
    }
}

/// Closes a refused connection. What its client has sent is read first: if something were left, the kernel would reset the
/// connection, and the client would lose the answer.
async fn part(mut stream: TcpStream) {
    let read = async {
        stream.shutdown().await?;
        let (mut read, mut buffer) = (0, [0; 1_024]);
        while read < MAX_HEAD {
            match stream.read(&mut buffer).await? {
                0 => break,
                more => read += more,
            }
        }
        Ok::<_, io::Error>(())
    };
    if let Ok(Err(error)) = timeout(REFUSAL, read).await {
        tracing::trace!(%error, "a refused client is gone");
    }
}

/// Whether the failure concerns only the peer, which was gone before it was accepted, and not the listener.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn http(settings: &HttpSettings) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(settings.keep_alive_ms))
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    http
}

async fn speak(
    stream: Patient,
    (peer, stranger): (Peer, Arc<Stranger>),
    router: Router,
    (http, first_head): (http1::Builder, Duration),
    shutdown: CancellationToken,
) {
    let begun = AtomicBool::new(false);
    // hyper's one timer is for the time between requests. A client that has sent none gets less.
    let late = async {
        tokio::time::sleep(first_head).await;
        if begun.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    let service = service_fn(|request: Request<Incoming>| {
        begun.store(true, Ordering::Relaxed);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        let (router, stranger) = (router.clone(), &stranger);
        async move {
            stranger.set_waits(true);
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            stranger.set_waits(false);
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = late => return,
        () = stranger.ended() => return,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_client_whose_request_has_arrived_reads_why() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let (stream, _) = accept(&listener).await.unwrap();
        stream.readable().await.unwrap();
        say_why(&stream, Refused::Address);
        let read = async {
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            drop(client);
            answer
        };
        let (answer, ()) = tokio::join!(read, part(stream));
        assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    }
}
