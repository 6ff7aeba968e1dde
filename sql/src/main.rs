//! `sql up | down | status`: migrates the schema of an existing database.

use anyhow::Context;
use clap::{Parser, Subcommand};
use sql::migrations;

/// Migrates the schema of Mini-Telegram's database
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    sql: sql::SqlSettings,
}

#[derive(Subcommand)]
enum Command {
    /// Apply what is missing
    Up,
    /// Take back every migration above a version: 0 empties the database
    Down {
        /// The version that stays
        #[arg(long, default_value_t = 0)]
        to: i64,
    },
    /// Show what is applied; fails if something is missing or altered
    Status,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let url = &cli.sql.postgres_url;
    match cli.command {
        Command::Up => migrations::up(url).await.context("sql up")?,
        Command::Down { to } => migrations::down(url, to).await.context("sql down")?,
        Command::Status => {}
    }
    let status = migrations::status(url).await.context("sql status")?;
    for step in &status {
        let state = match (step.applied, step.altered) {
            (_, true) => "altered",
            (true, _) => "applied",
            (false, _) => "missing",
        };
        println!("{:04} {:<12} {state}", step.version, step.name);
    }
    let complete = status.iter().all(|step| step.applied && !step.altered);
    anyhow::ensure!(complete || !matches!(cli.command, Command::Status), "the schema is not up to date");
    Ok(())
}
