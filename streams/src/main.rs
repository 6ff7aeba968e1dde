//! `streams apply` creates or updates the streams of an installation, `streams check` reports what differs.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Parser, Subcommand};
use streams::{Nats, NatsSettings, stream};
use tokio::time::{Instant, sleep};

/// A cluster that was just started needs seconds to elect its leaders.
const PATIENCE: Duration = Duration::from_secs(20);

/// Definitions of the NATS streams.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    nats: NatsSettings,
}

#[derive(Subcommand)]
enum Command {
    /// Create the streams that are missing and update the others.
    Apply,
    /// Report what differs from the definitions; fails if anything does.
    Check,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let nats = Nats::connect(&cli.nats, "streams").await?;
    match cli.command {
        Command::Apply => apply(&nats).await,
        Command::Check => check(&nats).await,
    }
}

async fn apply(nats: &Nats) -> anyhow::Result<ExitCode> {
    until_answered(async || stream::apply(nats).await).await?;
    for config in stream::definitions(nats) {
        println!("applied {}", config.name);
    }
    Ok(ExitCode::SUCCESS)
}

async fn check(nats: &Nats) -> anyhow::Result<ExitCode> {
    let drifts = until_answered(async || stream::check(nats).await).await?;
    if drifts.is_empty() {
        println!("all streams are as defined");
        return Ok(ExitCode::SUCCESS);
    }
    for drift in drifts {
        println!("{drift}");
    }
    Ok(ExitCode::FAILURE)
}

async fn until_answered<T>(ask: impl AsyncFn() -> Result<T, streams::Unavailable>) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= deadline => return Err(error).context("gave up"),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}
