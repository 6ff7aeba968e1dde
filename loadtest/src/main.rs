//! `loadtest`: scenarios against a running product. `--help` is the reference.

use anyhow::Result;
use clap::{Parser, Subcommand};
use loadtest::smoke::{self, SmokeArgs};

/// Load scenarios with an independent oracle.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// Groups talk at a fixed rate while devices drop and resume; fails on any broken promise.
    Smoke(Box<SmokeArgs>),
}

/// One thread: the machine's other cores belong to the product that is measured.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Cli::parse().scenario {
        Scenario::Smoke(args) => smoke::run(*args).await,
    }
}
