//! Debian's packages: only where nothing else helps, as they change the system.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::search;
use crate::progress::step;

/// There is apt, and we are root or may become it without a password.
pub(super) fn possible() -> bool {
    search::in_path(&["apt-get"]).is_some() && (is_root() || sudo_works())
}

/// `apt-get install`, after an update.
pub(super) fn install(package: &str) -> Result<()> {
    step(format!("apt-get install {package}"));
    // A list that is old or in part unreachable may still have the package: the install decides.
    apt_get(&["update", "-q"]).ok();
    apt_get(&["install", "-y", "-q", "--no-install-recommends", package])
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn sudo_works() -> bool {
    let sudo = Command::new("sudo").args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    sudo.is_ok_and(|status| status.success())
}

fn apt_get(args: &[&str]) -> Result<()> {
    let mut command = if is_root() {
        crate::process::command("apt-get")
    } else {
        let mut sudo = crate::process::command("sudo");
        sudo.args(["-n", "apt-get"]);
        sudo
    };
    let output = command
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("running apt-get")?;
    ensure!(
        output.status.success(),
        "apt-get {} failed:\n{}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
