//! The gateway's life: put the parts together, become ready, serve, drain.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use anyhow::Context;
use prometheus_client::registry::Registry;
use shared::cursor::Sealer;
use streams::{
    Appender, Barrier, Nats, Partition,
    nap::{WhileBusy, Work},
};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::SignalKind,
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::App,
    auth::{Passwords, Revocations, Tickets, Tokens, family},
    catch_up::lagging::Lagging,
    clock::Clock,
    command::{Commands, service},
    config::Settings,
    drain,
    epochs::Epochs,
    feed, http,
    hub::Hub,
    keys::Keys,
    limits::Limits,
    loader::Loader,
    metrics::Metrics,
    origin::Origins,
    presence::{self, Presence},
    reads::Reads,
    redis::Redis,
    session::sweep,
    start,
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
/// What makes it impossible to start or to go on: settings, keys, a taken address, an event of a newer build.
pub async fn run(
    settings: Settings,
    naps: &WhileBusy,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let listener =
        listen(settings.http_addr).with_context(|| format!("cannot listen on {}", settings.http_addr))?;
    let mut tasks = JoinSet::new();
    let mut registry = Registry::default();
    let app = assemble(settings, &mut registry, &mut tasks).await?;
    let weak = Arc::downgrade(&app);
    naps.judged_by(move || weak.upgrade().map_or(Work::Answers, |app| app.work()));
    let connections = TaskTracker::new();
    serve_http(&app, listener, Arc::new(registry), &connections, &mut tasks).await?;
    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        outcome = live(&app, &mut tasks) => outcome,
    };
    drain::run(&app).await;
    app.cancel.cancel();
    connections.close();
    if tokio::time::timeout(LAST_ANSWERS, connections.wait()).await.is_err() {
        tracing::warn!("HTTP connections are cut");
    }
    let ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_ANSWERS, ended).await.is_err() {
        tracing::warn!("tasks of the gateway are cut");
    }
    outcome
}

/// How long requests under way may take once everything else has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Serves HTTP from now until the very end, so that probes and late clients get an answer while it drains.
async fn serve_http(
    app: &Arc<App>,
    listener: TcpListener,
    registry: Arc<Registry>,
    connections: &TaskTracker,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let own_address = app.settings.metrics_addr;
    let router = http::router(app, own_address.is_none().then(|| registry.clone()));
    let (app2, connections) = (app.clone(), connections.clone());
    spawn(tasks, async move {
        http::serve(listener, router, &app2.settings.http, app2.cancel.clone(), connections).await;
    });
    if let Some(address) = own_address {
        let listener =
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let shutdown = app.cancel.clone().cancelled_owned();
        let serving = otel::health::serve(listener, otel::health::metrics_router(registry), shutdown);
        tasks.spawn(async move { serving.await.map_err(Into::into) });
    }
    Ok(())
}

/// Connections that may wait to be accepted. A storm that overflows the backlog is sent into TCP's retransmission,
/// which costs each device a second; the system's `somaxconn` caps this.
const BACKLOG: u32 = 16_384;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

type Tasks = JoinSet<anyhow::Result<()>>;

/// Reads the log until something ends that should not.
async fn live(app: &Arc<App>, tasks: &mut Tasks) -> anyhow::Result<()> {
    let beginning = start::beginning(&app.nats, &app.db, app.settings.ring_bytes).await;
    app.epochs.set(beginning.cuts);
    app.set_oldest(beginning.first);
    app.hub.begin(beginning.floor, app.epochs.current());
    tasks.spawn(feed::run(app.clone(), app.nats.clone()));
    spawn(tasks, feed::watch(app.clone(), app.nats.clone()));
    let app2 = app.clone();
    spawn(tasks, async move {
        app2.hub.passed(beginning.last).await;
        app2.hub.open();
        tracing::info!(position = beginning.last.get(), "ready");
        app2.cancel.cancelled().await;
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

/// Puts the parts together and starts the tasks that need no log.
async fn assemble(
    settings: Settings,
    registry: &mut Registry,
    tasks: &mut Tasks,
) -> anyhow::Result<Arc<App>> {
    let metrics = Arc::new(Metrics::new(registry));
    let clock = Clock::start();
    let keys = Keys::load(&settings.auth.keys_dir)?;
    let db = sql::Db::new(&settings.sql, "gateway")?;
    let nats = Nats::connect(&settings.nats, "gateway").await?;
    let redis = Redis::connect(&settings.redis)?;
    let hub = Arc::new(Hub::new(settings.ring_bytes, clock, Sealer::new(keys.cursor()), metrics.clone()));
    let (loader, loads) = Loader::new(hub.clone(), db.clone(), nats.clone());
    let appender = Appender::start(&nats);
    let barrier = Barrier::start(&nats, &appender, Partition::FIRST);
    let commands = Commands::new(service::Parts {
        hub: hub.clone(),
        db: db.clone(),
        loader: loader.clone(),
        appender,
        barrier: barrier.clone(),
        limits: settings.chat,
        duplicate_window: Duration::from_millis(settings.nats.duplicate_window_ms),
    });
    let presence = Presence::new(
        hub.clone(),
        nats.clone(),
        redis.clone(),
        clock,
        settings.presence.clone(),
        metrics.clone(),
    );
    let closing = hub.clone();
    let longest_token = Duration::from_secs(settings.auth.access_ttl_s);
    let revocations = Revocations::new(longest_token, Box::new(move |user, did| closing.revoke(user, did)));
    let app = Arc::new(App {
        clock,
        tokens: Tokens::new(&keys, &settings.auth),
        tickets: Tickets::new(redis.clone()),
        passwords: Passwords::new(&settings.auth, metrics.http.passwords_waiting.clone())?,
        revocations: Arc::new(revocations),
        limits: Limits::new(&settings.limits, redis.clone(), registry),
        origins: Origins::new(&settings.origin),
        reads: Reads::new(barrier, nats.clone()),
        presence: Arc::new(presence),
        epochs: Epochs::default(),
        lagging: Lagging::default(),
        tracker: TaskTracker::new(),
        cancel: CancellationToken::new(),
        draining: AtomicBool::new(false),
        oldest: AtomicU64::new(0),
        metrics,
        db,
        nats,
        redis,
        hub,
        loader,
        commands,
        settings,
    });
    spawn(tasks, cancelled_with(&app, loads));
    spawn(tasks, sweep::run(app.clone()));
    spawn(tasks, presence::run(app.clone()));
    spawn(tasks, cancelled_with(&app, family::run(app.clone())));
    spawn(tasks, cancelled_with(&app, family::tidy(app.clone())));
    Ok(app)
}

/// Runs a task until the gateway ends.
fn cancelled_with(
    app: &Arc<App>,
    task: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let cancel = app.cancel.clone();
    async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = task => {}
        }
    }
}
