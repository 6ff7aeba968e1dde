//! The presence service: settings, signals, exit code. Everything else is the library's.

use clap::Parser;
use presence::{config::Cli, serve};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Cli::parse().settings;
    let _guard = otel::init("presence", &settings.otel)?;
    serve::run(settings, serve::signalled()).await
}
