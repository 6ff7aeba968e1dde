//! The service's life: put the parts together, serve, finish.

use std::sync::Arc;

use anyhow::Context;
use otel::health::{self, Health};
use prometheus_client::registry::Registry as MetricRegistry;
use streams::Nats;
use tokio::{net::TcpListener, signal::unix::SignalKind, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    announce::Announcer, config::Settings, connections::Connections, listening, listening::Listening,
    metrics::Metrics, receipts::ReceiptKeeper, redis::Redis, registry::Registry,
};

/// Resolves on SIGTERM or Ctrl-C.
pub async fn signalled() {
    let Ok(mut terminate) = tokio::signal::unix::signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Runs the service until `shutdown` resolves and the batch in hand is finished.
///
/// # Errors
/// What makes it impossible to start: settings, a taken address.
pub async fn run(settings: Settings, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let addr = settings.presence_addr;
    let listener = TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}"))?;
    let mut metric_registry = MetricRegistry::default();
    let metrics = Metrics::new(&mut metric_registry);
    let parts = Parts {
        nats: Nats::connect(&settings.nats, "presence").await?,
        db: sql::Db::new(&settings.sql, "presence")?,
        redis: Redis::connect(&settings.redis)?,
        metrics,
    };
    let nats = parts.nats.clone();
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let router = health_of(&parts).router(Arc::new(metric_registry));
    let stop = cancel.clone().cancelled_owned();
    tasks.spawn(async move { Ok(health::serve(listener, router, stop).await?) });
    parts.start(&settings, &cancel, &mut tasks);
    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        ended = tasks.join_next() => match ended {
            Some(Ok(Err(error))) => Err(error),
            Some(Err(panic)) => Err(panic.into()),
            _ => Err(anyhow::anyhow!("a task of presence ended unexpectedly")),
        },
    };
    cancel.cancel();
    while tasks.join_next().await.is_some() {}
    // An answer proves that all that was sent before has left.
    if let Err(error) = nats.ping().await {
        tracing::debug!(%error, "the last signals may not have left");
    }
    outcome
}

struct Parts {
    nats: Nats,
    db: sql::Db,
    redis: Redis,
    metrics: Metrics,
}

fn health_of(parts: &Parts) -> Health {
    let (nats, db, redis) = (parts.nats.clone(), parts.db.clone(), parts.redis.clone());
    Health::new()
        .check("nats", move || {
            let nats = nats.clone();
            async move { nats.ping().await }
        })
        .check("postgres", move || {
            let db = db.clone();
            async move { db.ping().await }
        })
        .check("redis", move || {
            let redis = redis.clone();
            async move { redis.ping().await }
        })
}

impl Parts {
    fn start(self, settings: &Settings, cancel: &CancellationToken, tasks: &mut JoinSet<anyhow::Result<()>>) {
        let Self { nats, db, redis, metrics } = self;
        let registry = Registry::new(redis.clone(), settings.timing.hysteresis_ms);
        let receipts = ReceiptKeeper {
            nats: nats.clone(),
            db: db.clone(),
            window: settings.timing.receipts_window(),
            metrics: metrics.clone(),
        };
        let stop = cancel.clone();
        tasks.spawn(async move {
            receipts.run(&stop).await;
            Ok(())
        });
        let connections =
            Connections { nats: nats.clone(), registry: registry.clone(), metrics: metrics.clone() };
        let mut announcer = Announcer::new(nats.clone(), db, registry, settings.timing.clone(), metrics);
        let stop = cancel.clone();
        tasks.spawn(async move {
            let listening = Listening::default();
            // May be cancelled at any point: what is in hand is in Redis still, and another instance takes it up.
            tokio::select! {
                () = stop.cancelled() => {}
                () = connections.run(&listening) => {}
                () = announcer.run(&listening) => {}
                () = listening::probe(&listening, &nats, &redis) => {}
            }
            Ok(())
        });
    }
}
