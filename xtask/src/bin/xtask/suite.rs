//! `cargo xtask test`: the whole suite, against servers that are started for it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context as _, Result, ensure};
use xtask::process::command;
use xtask::progress::step;
use xtask::testing::{BIN_DIR, NATS_URL, POSTGRES_URL, REDIS_URL, Stack, fresh_dir};
use xtask::{binaries, servers};

use crate::guard::Guard;

#[derive(Debug, clap::Args)]
pub(crate) struct TestArgs {
    /// Passed to `cargo nextest run`, such as a filter. Default: the whole workspace.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    nextest: Vec<String>,
}

/// Builds everything once, starts the servers, runs the suite, ends the servers. The exit code is nextest's.
pub(crate) fn run(args: &TestArgs) -> Result<ExitCode> {
    let _guard = Guard::start()?;
    let nextest = binaries::nextest().context("cargo-nextest is missing and can't be got")?;

    step("building the binaries");
    succeed(cargo().args(["build", "--workspace", "--bins"]))?;
    step("building the tests");
    succeed(nextest_command(&nextest, args).arg("--no-run"))?;

    step("starting the servers");
    let dir = fresh_dir("suite")?;
    let stack = Stack::start(&dir)?;
    let addresses = stack.addresses();
    for server in [&stack.nats, &stack.postgres, &stack.redis] {
        let binary = server.binary();
        step(format!("{} ({}, {})", server.url(), binary.path.display(), binary.version));
    }

    step("running the tests");
    let status = nextest_command(&nextest, args)
        .env(NATS_URL, &addresses.nats_url)
        .env(POSTGRES_URL, &addresses.postgres_url)
        .env(REDIS_URL, &addresses.redis_url)
        .env(BIN_DIR, target_dir()?.join("debug"))
        .status()
        .context("running cargo-nextest")?;
    drop(stack);
    if status.success() {
        servers::wipe(&dir)?;
    } else {
        step(format!("the servers' logs are in {}", dir.display()));
    }
    Ok(exit_code(status))
}

pub(crate) fn cargo() -> Command {
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("running {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn target_dir() -> Result<PathBuf> {
    let dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    dir.canonicalize().with_context(|| format!("looking at {}", dir.display()))
}

fn nextest_command(nextest: &Path, args: &TestArgs) -> Command {
    let mut run = command(nextest);
    run.current_dir(workspace()).args(["nextest", "run"]);
    let selects = args.nextest.iter().any(|arg| matches!(arg.as_str(), "-p" | "--package" | "--workspace"));
    if !selects {
        run.arg("--workspace");
    }
    run.args(&args.nextest);
    run
}

pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    // A signal has no code: 1 it is.
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
