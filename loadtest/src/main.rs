//! `loadtest`: scenarios against a running product. `--help` is the reference.

use anyhow::Result;
use clap::{Parser, Subcommand};
use loadtest::{
    attack::{self, AttackArgs},
    report::compare::{self, CompareArgs},
    scenario::{self, RunArgs, RunFlags},
    smoke::{self, SmokeArgs},
};

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
    /// A measured scenario from a file: idle, direct, group, storm, deploy, soak, mixed, lively.
    Run(Box<RunArgs>),
    /// The scenario `lively`: everything that makes a chat feel alive, at once.
    Lively(Box<RunFlags>),
    /// One attacker within all limits, each way alone: what the gateway held, and what an honest user felt.
    Attack(Box<AttackArgs>),
    /// The ratios of two results.
    Compare(CompareArgs),
}

/// One thread: the machine's other cores belong to the product that is measured.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Cli::parse().scenario {
        Scenario::Smoke(args) => smoke::run(*args).await,
        Scenario::Run(args) => scenario::run(*args).await,
        Scenario::Lively(flags) => {
            scenario::run(RunArgs { scenario: "lively".to_owned(), flags: *flags }).await
        }
        Scenario::Attack(args) => attack::run(*args).await,
        Scenario::Compare(args) => compare::run(&args),
    }
}
