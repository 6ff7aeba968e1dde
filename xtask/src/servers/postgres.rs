//! Postgres: initdb once, its arguments, its readiness. It refuses to run as root, so root runs it as another user.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ::postgres::{Config, NoTls};
use anyhow::{Context as _, Result, ensure};

use super::options::Options;
use super::owner;
use super::password::Password;
use crate::binaries::Binary;
use crate::process::{Launch, Signal};
use crate::progress::step;

/// Two gateways, projectors, presence and a test's own connections, over all tests that run at once.
const MAX_CONNECTIONS: u32 = 400;

/// Who is let in, where a password is asked for. Nobody connects from elsewhere: the server listens on no other address.
const HBA: &str = "# Written by xtask.\nhost all all 127.0.0.1/32 scram-sha-256\n";

pub(super) fn url(port: u16, database: &str, password: Option<&Password>) -> String {
    let password = password.map_or_else(String::new, |password| format!(":{}", password.reveal()));
    format!("postgres://postgres{password}@127.0.0.1:{port}/{database}")
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// Makes the cluster unless there is one, and has it ask for the password from then on.
pub(super) fn prepare(binary: &Binary, dir: &Path, log: &Path, password: Option<&Password>) -> Result<()> {
    let data = data(dir);
    // initdb writes this file last of all that matters; a killed initdb leaves a folder without it.
    if data.join("PG_VERSION").exists() && data.join("global/pg_control").exists() {
        check_version(binary, &data)?;
    } else {
        create(binary, dir, &data, log)?;
    }
    let Some(password) = password else { return Ok(()) };
    // A cluster of an earlier build let everybody in.
    let hba = data.join("pg_hba.conf");
    if std::fs::read_to_string(&hba).is_ok_and(|text| text == HBA) {
        return Ok(());
    }
    set_password(binary, dir, &data, password)?;
    std::fs::write(&hba, HBA).with_context(|| format!("writing {}", hba.display()))
}

/// Tells the cluster the superuser's password while no server runs on it.
fn set_password(binary: &Binary, dir: &Path, data: &Path, password: &Password) -> Result<()> {
    let mut command = owner::command(&binary.path)?;
    let mut single = command
        .args(["--single", "-D"])
        .arg(data)
        .arg("postgres")
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("running Postgres alone")?;
    if let Some(mut stdin) = single.stdin.take() {
        writeln!(stdin, "ALTER ROLE postgres PASSWORD '{}'", password.reveal())?;
    }
    let output = single.wait_with_output()?;
    ensure!(output.status.success(), "setting the password: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn create(binary: &Binary, dir: &Path, data: &Path, log: &Path) -> Result<()> {
    if data.exists() {
        std::fs::remove_dir_all(data).context("removing what a killed initdb left")?;
    }
    owner::give(dir)?;
    step("creating the Postgres cluster");
    let mut command = owner::command(&binary.sibling("initdb"))?;
    let output = command
        .args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
            "--pgdata",
        ])
        .arg(data)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .context("running initdb")?;
    std::fs::write(log, &output.stdout).context("writing Postgres's log")?;
    ensure!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn check_version(binary: &Binary, data: &Path) -> Result<()> {
    let version = std::fs::read_to_string(data.join("PG_VERSION"))?;
    ensure!(
        version.trim() == binary.version.0.to_string(),
        "the data in {} is of Postgres {}, but {} is {}: start afresh (--fresh), or bring that version back",
        data.display(),
        version.trim(),
        binary.path.display(),
        binary.version
    );
    Ok(())
}

pub(super) fn launch(
    binary: &Binary,
    dir: &Path,
    port: u16,
    options: &Options,
    log: &Path,
) -> Result<Launch> {
    let mut settings = vec![
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        // No socket file: its default folder may not exist, or be somebody else's.
        "unix_socket_directories=".to_owned(),
        format!("max_connections={MAX_CONNECTIONS}"),
        "shared_buffers=128MB".to_owned(),
    ];
    if options.throwaway {
        settings.extend(["fsync=off", "full_page_writes=off", "synchronous_commit=off"].map(str::to_owned));
    }
    let mut launch = Launch::new(&binary.path, log).args(["-D", &data(dir).to_string_lossy()]);
    launch = launch.args(settings.iter().flat_map(|setting| ["-c", setting])).args(options.extra.clone());
    // An immediate shutdown takes the backends along and gives the shared memory back.
    launch.death_signal = Signal::QUIT;
    launch.user = owner::user_of(&data(dir))?;
    Ok(launch)
}

pub(super) fn ready(url: &str) -> bool {
    let Ok(mut config) = url.parse::<Config>() else { return false };
    config.connect_timeout(Duration::from_secs(1));
    crate::thread::off_runtime(|| config.connect(NoTls).is_ok())
}
