//! `cargo xtask`: the chores of the workspace.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod dependencies;
mod doctor;
mod guard;
mod settings;
mod suite;
mod up;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The chores of the workspace")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build and run the whole product on this machine, until Ctrl-C.
    Up(up::UpArgs),
    /// Run the whole test suite against servers that are started for it.
    Test(suite::TestArgs),
    /// Say what is missing on this machine, and how it will be got.
    Doctor,
    /// Check licences, advisories, bans and sources of the dependencies with cargo-deny.
    Deny,
    /// Look for dependencies that no code uses with cargo-shear.
    Unused,
    /// Write .env.example from what the services say about themselves.
    Settings(settings::SettingsArgs),
    /// Ends what a killed run has left. Started by the other tasks.
    #[command(hide = true)]
    Guard { run: String },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Up(args) => up::run(&args),
        Task::Test(args) => suite::run(&args),
        Task::Doctor => doctor::run(),
        Task::Settings(args) => settings::run(&args),
        Task::Deny => dependencies::deny(),
        Task::Unused => dependencies::unused(),
        Task::Guard { run } => guard::watch(&run),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
