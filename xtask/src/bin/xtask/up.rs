//! `cargo xtask up`: the whole product on this machine, from nothing, until Ctrl-C.
//!
//! The life cycle, top to bottom: build, servers, set-up, services, ready, watch, drain. Whatever ends it, nothing of it
//! is left running.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use anyhow::{Context as _, Result, bail};
use xtask::progress::step;

use crate::guard::Guard;
use crate::suite::workspace;

mod backing;
mod build;
mod description;
mod docker;
mod example;
mod fleet;
mod stop;

use build::Profile;
use stop::{LOOK, Stop};

#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// Use dev builds: checked arithmetic and debug assertions, slow to run.
    #[arg(long)]
    debug: bool,
    /// Use release builds, as images and benchmarks do: twice as long to build, the fastest to run.
    #[arg(long, conflicts_with = "debug")]
    release: bool,
    /// Use the binaries in this folder and build nothing.
    #[arg(long, conflicts_with_all = ["debug", "release"])]
    bin: Option<PathBuf>,
    /// Begin with no data: accounts, chats and keys of earlier runs are removed.
    #[arg(long)]
    fresh: bool,
    /// How many gateways, on ports that follow each other.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    gateways: u16,
    /// The address that the gateways listen on: 0.0.0.0 lets other machines in.
    #[arg(long, default_value = "127.0.0.1")]
    host: std::net::IpAddr,
    /// The first gateway's port. The next free one is taken if it is in use.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Where the data is kept between runs.
    #[arg(long, default_value = ".data")]
    data: PathBuf,
    /// Run compose.yaml with Docker instead.
    #[arg(long, conflicts_with_all = ["bin", "debug", "release", "fresh", "gateways", "data"])]
    docker: bool,
}

impl UpArgs {
    fn profile(&self) -> Profile {
        match (self.debug, self.release) {
            (true, _) => Profile::Dev,
            (_, true) => Profile::Release,
            _ => Profile::Up,
        }
    }
}

pub(crate) fn run(args: &UpArgs) -> Result<ExitCode> {
    let stop = Stop::on_signals()?;
    let guard = Guard::start()?;
    let outcome = if args.docker { docker::run(&stop) } else { life(args, &stop) };
    drop(guard);
    match outcome {
        // Whatever a signal interrupted has failed for that reason.
        _ if stop.is_set() && outcome.is_err() => {
            step("stopped before everything was up");
            Ok(ExitCode::SUCCESS)
        }
        outcome => outcome.map(|()| ExitCode::SUCCESS),
    }
}

fn life(args: &UpArgs, stop: &Stop) -> Result<()> {
    let data = absolute(&args.data)?;
    fs::create_dir_all(&data).with_context(|| format!("creating {}", data.display()))?;
    backing::close(&data)?;
    let _lock = lock(&data)?;
    if args.fresh {
        step(format!("removing the data in {}", data.display()));
        backing::wipe(&data)?;
    }
    backing::rotate_logs(&data)?;

    let bin = match &args.bin {
        Some(bin) => bin.canonicalize().with_context(|| format!("looking at {}", bin.display()))?,
        None => build::services(args.profile(), stop)?,
    };
    let mut backing = backing::Backing::start(&data, stop)?;
    let setting = fleet::Setting { bin, logs: data.join(backing::LOGS), env: backing.env(&data) };
    fleet::set_up(&setting, stop)?;
    let mut fleet = fleet::Fleet::start(&setting, args.gateways, args.host, args.port)?;
    fleet.wait_ready(stop)?;

    let _description = description::Description::write(&fleet, &backing, &setting.env, &data)?;
    // A reader that has gone (`up | head`) is no reason to stop.
    writeln!(std::io::stdout(), "{}", example::text(&fleet, &backing, &data)).ok();
    step("running; Ctrl-C stops it");
    let ended = watch(&mut fleet, &mut backing, stop);
    step("draining");
    fleet.drain()?;
    backing.stop()?;
    step("stopped");
    ended
}

fn watch(fleet: &mut fleet::Fleet, backing: &mut backing::Backing, stop: &Stop) -> Result<()> {
    while !stop.is_set() {
        fleet.check()?;
        backing.check()?;
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Relative to the workspace: cargo runs this from wherever the user stands.
fn absolute(path: &Path) -> Result<PathBuf> {
    Ok(workspace().canonicalize()?.join(path))
}

/// Two runs on the same data would destroy it.
fn lock(data: &Path) -> Result<File> {
    let path = data.join("lock");
    let lock = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    if lock.try_lock().is_err() {
        bail!("another `cargo xtask up` uses {}; give this one its own with --data", data.display());
    }
    Ok(lock)
}
