//! The gateway's process: parse, initialise, run until told to stop.

use clap::Parser;
use gateway::config::{Cli, Task};
use mimalloc::MiMalloc;

/// Gives memory back after a storm of connections, where glibc keeps 7 KB a socket.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.task {
        Some(Task::Keys) => gateway::keys::create(&cli.settings.auth.keys_dir).map_err(Into::into),
        Some(Task::Provision(args)) => gateway::provision::run(&cli.settings, &args).await,
        None => {
            let guard = otel::init("gateway", &cli.settings.otel)?;
            let outcome = gateway::serve::run(cli.settings, gateway::serve::signalled()).await;
            drop(guard);
            outcome
        }
    }
}
