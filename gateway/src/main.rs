//! The gateway's process: parse, initialise, run until told to stop.

use std::sync::Arc;

use clap::Parser;
use gateway::serve::{
    self,
    settings::{Cli, Task},
};
use mimalloc::MiMalloc;
use streams::nap::{self, WhileBusy};

/// Gives memory back after a storm of connections, where glibc keeps 7 KB a socket.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let naps = Arc::new(WhileBusy::new(cli.settings.nap()));
    nap::runtime(naps.clone())?.block_on(run(cli, &naps))
}

async fn run(cli: Cli, naps: &WhileBusy) -> anyhow::Result<()> {
    match cli.task {
        Some(Task::Keys) => gateway::auth::keys::create(&cli.settings.auth.keys_dir).map_err(Into::into),
        Some(Task::Provision(args)) => {
            serve::provision::run(&cli.settings.auth, &cli.settings.sql, &args).await
        }
        None => {
            let guard = otel::init("gateway", &cli.settings.otel)?;
            let outcome = serve::run(cli.settings, naps, serve::signalled()).await;
            drop(guard);
            outcome
        }
    }
}
