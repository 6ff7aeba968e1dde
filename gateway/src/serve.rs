//! The gateway as a process: puts the rooms together, becomes ready, serves, drains.
//!
//! Owns the long-lived tasks; the first one that ends unexpectedly ends the gateway. Invariants: it is ready only
//! after the hub has read up to the log's end as of the start; HTTP is answered from the first moment to the last, so
//! that probes and late clients always learn where they stand.

mod assemble;
mod descriptors;
mod drain;
pub mod provision;
pub mod settings;
mod signals;
mod watch;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use prometheus_client::registry::Registry;
use socket2::SockRef;
use streams::nap::{WhileBusy, Work};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::SignalKind,
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    assemble::{Gateway, assemble},
    settings::Settings,
};
use crate::{
    feed::{Feed, beginning},
    http::{
        self,
        server::{Admission, patient::Patience},
    },
    hub::{Hub, Phase},
    submit::Commands,
};

/// Resolves on SIGTERM or Ctrl-C.
pub async fn signalled() {
    let Ok(mut terminate) = tokio::signal::unix::signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Runs a gateway until `shutdown` resolves and it has drained.
///
/// # Errors
/// The gateway can't start or go on: wrong settings or keys, an address in use, an event of a newer build.
pub async fn run(
    settings: Settings,
    naps: &WhileBusy,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let listener = listen(&settings).with_context(|| format!("cannot listen on {}", settings.http_addr))?;
    let mut tasks = JoinSet::new();
    let mut registry = Registry::default();
    let gateway = assemble(&settings, &mut registry, &mut tasks).await?;
    let (hub, commands) = (Arc::downgrade(&gateway.hub), Arc::downgrade(&gateway.http.commands));
    naps.judged_by(move || match (hub.upgrade(), commands.upgrade()) {
        (Some(hub), Some(commands)) => work(&hub, &commands),
        _ => Work::Answers,
    });
    let connections = TaskTracker::new();
    serve_http(&gateway, &settings, listener, Arc::new(registry), &connections, &mut tasks).await?;
    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        outcome = live(&gateway, &settings, &mut tasks) => outcome,
    };
    drain::run(&gateway.hub, &gateway.tracker, settings.session.drain_ms).await;
    gateway.cancel.cancel();
    connections.close();
    if tokio::time::timeout(LAST_ANSWERS, connections.wait()).await.is_err() {
        tracing::warn!("HTTP connections are dropped");
    }
    let ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_ANSWERS, ended).await.is_err() {
        tracing::warn!("tasks of the gateway are dropped");
    }
    outcome
}

/// How long requests under way may take once everything else has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// A client counts as active for this long after it was served: it is likely to go on with a request's next step or a
/// chat's next message.
const SERVED_LATELY_MS: u64 = 100;

/// Whether anybody waits for the gateway at the moment, which decides how long an idle worker may nap. While the
/// gateway starts, everybody waits for it.
fn work(hub: &Hub, commands: &Commands) -> Work {
    let answers = commands.appends_in_flight() || hub.expected() > hub.position();
    if answers || hub.phase() == Phase::Starting {
        Work::Answers
    } else if hub.clock.now_ms().saturating_sub(hub.served_ms()) < SERVED_LATELY_MS {
        Work::Clients
    } else {
        Work::Nobody
    }
}

/// Serves HTTP from now until the very end, so that probes and late clients get an answer while it drains.
async fn serve_http(
    gateway: &Gateway,
    settings: &Settings,
    listener: TcpListener,
    registry: Arc<Registry>,
    connections: &TaskTracker,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let router = http::router(&gateway.http, settings.public_metrics.then(|| registry.clone()));
    let (cancel, connections, http) = (gateway.cancel.clone(), connections.clone(), settings.http.clone());
    let patience = Patience {
        stall: Duration::from_millis(settings.session.stall_ms),
        whole: Duration::from_millis(settings.session.write_ms),
        pages: gateway.http.sockets.pages.clone(),
    };
    let admission = Admission {
        addresses: gateway.http.addresses.clone(),
        origins: gateway.http.origins.clone(),
        patience,
    };
    spawn(tasks, async move {
        http::server::serve(listener, router, &http, admission, cancel, connections).await;
    });
    let Some(address) = settings.ops_addr else { return Ok(()) };
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    tracing::info!(addr = %listener.local_addr()?, "serving operators");
    let serving = axum::serve(listener, http::operators(&gateway.http, registry))
        .with_graceful_shutdown(gateway.cancel.clone().cancelled_owned());
    tasks.spawn(async move { serving.await.map_err(Into::into) });
    Ok(())
}

/// Connections that may wait to be accepted. A storm that overflows the backlog is sent into TCP's retransmission,
/// which costs each device a second; the system's `somaxconn` caps this.
const BACKLOG: u32 = 16_384;

/// Listens for clients. Their connections inherit the bounds on what the kernel holds for them.
fn listen(settings: &Settings) -> std::io::Result<TcpListener> {
    let address = settings.http_addr;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    if settings.unsent_bytes > 0 {
        SockRef::from(&socket).set_tcp_notsent_lowat(settings.unsent_bytes)?;
    }
    if let Some(bytes) = settings.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

type Tasks = JoinSet<anyhow::Result<()>>;

/// Finds the beginning, reads the log, and returns when a task ends that should not.
async fn live(gateway: &Gateway, settings: &Settings, tasks: &mut Tasks) -> anyhow::Result<()> {
    let Gateway { hub, http, tracker, cancel, .. } = gateway;
    let sockets = &http.sockets;
    let beginning = beginning::find(&http.nats, &http.db, settings.ring_bytes).await;
    sockets.epochs.set(beginning.cuts);
    sockets.epochs.set_first(beginning.first);
    hub.begin(beginning.floor, sockets.epochs.current());
    let feed = Feed {
        hub: hub.clone(),
        db: http.db.clone(),
        nats: http.nats.clone(),
        epochs: sockets.epochs.clone(),
        loader: sockets.loader.clone(),
        catch_ups: sockets.catch_ups.clone(),
        tracker: tracker.clone(),
        cancel: cancel.clone(),
    };
    tasks.spawn(feed.run());
    spawn(tasks, cancelled_with(cancel.clone(), watch::log(gateway.hub.clone(), gateway.http.clone())));
    let (hub, cancel) = (hub.clone(), cancel.clone());
    spawn(tasks, async move {
        hub.passed(beginning.last).await;
        hub.open();
        tracing::info!(position = beginning.last.get(), "ready");
        cancel.cancelled().await;
    });
    match tasks.join_next().await {
        Some(Ok(Err(error))) => Err(error),
        Some(Err(panic)) => Err(panic.into()),
        _ => Err(anyhow::anyhow!("a task of the gateway ended unexpectedly")),
    }
}

fn spawn(tasks: &mut Tasks, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        task.await;
        Ok(())
    });
}

/// Runs a task until the gateway ends.
async fn cancelled_with(cancel: CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = task => {}
    }
}
