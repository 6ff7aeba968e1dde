//! `cargo xtask deny` and `cargo xtask unused`: what the workspace may depend on, and what it need not.

use std::path::Path;
use std::process::{ExitCode, ExitStatus};

use anyhow::{Context as _, Result};
use xtask::binaries;
use xtask::process::command;
use xtask::progress::step;

use crate::suite::{exit_code, workspace};

/// Runs cargo-deny. The advisories need their database, which needs the network: without it they are left out.
pub(crate) fn deny() -> Result<ExitCode> {
    let deny = binaries::deny().context("cargo-deny is missing and can't be got")?;
    step("licences, bans and sources");
    let status = check(&deny, &["bans", "licenses", "sources"])?;
    if !status.success() {
        return Ok(exit_code(status));
    }
    step("advisories");
    let fetched = command(&deny).args(["fetch", "db"]).current_dir(workspace()).output()?;
    if !fetched.status.success() {
        step("SKIPPED the advisories: their database can't be reached from here");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(exit_code(check(&deny, &["advisories"])?))
}

fn check(deny: &Path, what: &[&str]) -> Result<ExitStatus> {
    let mut run = command(deny);
    run.args(["--workspace", "--all-features", "check"]).args(what).current_dir(workspace());
    run.status().context("running cargo-deny")
}

/// Runs cargo-shear: each dependency is used by its crate, and one that only tests use is a dev-dependency.
pub(crate) fn unused() -> Result<ExitCode> {
    let shear = binaries::shear().context("cargo-shear is missing and can't be got")?;
    step("unused dependencies");
    let mut run = command(&shear);
    run.args(["--locked", "--deny-warnings"]).current_dir(workspace());
    Ok(exit_code(run.status().context("running cargo-shear")?))
}
