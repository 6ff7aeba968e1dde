//! The projector's process: connect, project every partition, answer health, stop on SIGTERM.

use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use projector::{Config, config::Command, health, metrics::Metrics, partition::Projector, rebuild::Rebuild};
use prometheus_client::registry::Registry;
use streams::nap::{self, Rest};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    let rest = Arc::new(Rest::default());
    nap::runtime(rest.clone())?.block_on(run(config, rest))
}

async fn run(config: Config, rest: Arc<Rest>) -> anyhow::Result<()> {
    let _flushes_at_the_end = otel::init("projector", &config.otel)?;
    match config.command {
        None => serve(config, rest).await,
        Some(Command::Verify) => verify(config).await,
        Some(Command::Rebuild) => replace(config).await,
    }
}

async fn rebuild(config: Config) -> anyhow::Result<Rebuild> {
    let nats = streams::Nats::connect(&config.nats, "projector").await?;
    let db = sql::Db::new(&config.sql, "projector")?;
    Ok(Rebuild { nats, db, settings: config.projector })
}

async fn verify(config: Config) -> anyhow::Result<()> {
    let rebuild = rebuild(config).await?;
    let mut same = true;
    for partition in streams::Partition::all() {
        for (live, folded) in rebuild.verify(partition).await? {
            same = false;
            println!(
                "{}: {} rows live, {} rows folded anew, and they differ",
                live.table, live.rows, folded.rows
            );
        }
    }
    anyhow::ensure!(same, "the projection is not what the log says; `projector rebuild` replaces it");
    println!("the projection is what the log says");
    Ok(())
}

async fn replace(config: Config) -> anyhow::Result<()> {
    let rebuild = rebuild(config).await?;
    for partition in streams::Partition::all() {
        rebuild.replace(partition).await?;
    }
    println!("the projection was replaced");
    Ok(())
}

async fn serve(config: Config, rest: Arc<Rest>) -> anyhow::Result<()> {
    let nats = streams::Nats::connect(&config.nats, "projector").await?;
    let db = sql::Db::new(&config.sql, "projector")?;
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let router = health::checks(&nats, &db, &metrics).router(Arc::new(registry));
    let listener =
        TcpListener::bind(config.addr).await.with_context(|| format!("listen on {}", config.addr))?;

    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let stopped = stop.clone();
    tasks.spawn(async move { otel::health::serve(listener, router, stopped.cancelled_owned()).await });
    let settings = Arc::new(config.projector);
    for partition in streams::Partition::all() {
        let projector = Projector {
            nats: nats.clone(),
            db: db.clone(),
            metrics: metrics.clone(),
            settings: settings.clone(),
            rest: rest.clone(),
        };
        let stop = stop.clone();
        tasks.spawn(async move {
            projector.run(partition, stop).await;
            Ok(())
        });
    }
    let outcome = tokio::select! {
        () = terminated() => Ok(()),
        // None of them ends by itself.
        Some(ended) = tasks.join_next() => ended.context("a task panicked").and_then(|ended| Ok(ended?)),
    };
    tracing::info!("stopping");
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task panicked")??;
    }
    outcome
}

async fn terminated() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the process, which is as good.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
