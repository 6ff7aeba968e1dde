//! `--docker`: the same product from compose.yaml, where there is an engine for it.

use anyhow::{Result, bail};
use xtask::process::command;
use xtask::progress::step;

use super::stop::{Stop, run_until};
use crate::doctor::succeeds;
use crate::suite::{succeed, workspace};

pub(crate) fn run(stop: &Stop) -> Result<()> {
    if !succeeds("docker", &["info"]) {
        bail!(
            "--docker needs a running Docker engine (`docker info` fails); leave it out to run without Docker"
        );
    }
    if !succeeds("docker", &["compose", "version"]) {
        bail!(
            "--docker needs the compose plugin (`docker compose version` fails); leave it out to run without Docker"
        );
    }
    step("docker compose up; the gateway will be at http://127.0.0.1:8080");
    let ended = run_until(&mut compose(&["up", "--build"]), stop);
    step("docker compose stop");
    succeed(&mut compose(&["stop"]))?;
    if stop.is_set() { Ok(()) } else { ended }
}

fn compose(args: &[&str]) -> std::process::Command {
    let mut compose = command("docker");
    compose.arg("compose").args(args).current_dir(workspace());
    compose
}
