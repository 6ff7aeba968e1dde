//! The last line against processes that are left behind: a process of its own that waits for the run's end, however
//! that comes, and then ends whatever still carries the run's mark in its environment.
//!
//! Servers and services die with their parent anyway (see `xtask::process`). The guard gets the rest: compilers, test
//! runners and tests, which others start. It can't be missed by a kill of the run: it sees the end of a pipe.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, kill_process};
use xtask::process::{RUN_MARK, Signal, mark_children};

/// What dies by itself gets this long, Postgres's immediate shutdown above all.
const GRACE: Duration = Duration::from_secs(1);
/// A process that was being started during one look is seen by the next.
const LOOK: Duration = Duration::from_millis(100);
const CLEAN_LOOKS: u32 = 3;
/// After that the guard gives up: what can't be killed is the kernel's.
const LIMIT: Duration = Duration::from_secs(10);

/// Held by a run for as long as it lasts.
#[derive(Debug)]
pub(crate) struct Guard {
    child: Child,
}

impl Guard {
    /// Starts the guard, and marks every child from now on.
    pub(crate) fn start() -> Result<Self> {
        let run = format!("{:016x}", rand::random::<u64>());
        let child = Command::new(std::env::current_exe().context("finding this program")?)
            .args(["guard", &run])
            // The guard must not carry a mark, not even that of a run around this one.
            .env_remove(RUN_MARK)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting the guard")?;
        mark_children(run);
        Ok(Self { child })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("the guard is lost: {error}");
        }
    }
}

/// The guard's own life.
pub(crate) fn watch(run: &str) -> Result<ExitCode> {
    // Nobody writes; the pipe ends with the last holder of its other end.
    std::io::stdin().read_to_end(&mut Vec::new()).context("waiting for the run's end")?;
    let mark = format!("{RUN_MARK}={run}");
    let start = Instant::now();
    let mut clean_looks = 0;
    while clean_looks < CLEAN_LOOKS && start.elapsed() < LIMIT {
        let marked = marked(&mark);
        if marked.is_empty() {
            clean_looks += 1;
        } else {
            clean_looks = 0;
            if start.elapsed() >= GRACE {
                marked.into_iter().for_each(kill);
            }
        }
        thread::sleep(LOOK);
    }
    Ok(ExitCode::SUCCESS)
}

fn marked(mark: &str) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|process| {
            let pid = Pid::from_raw(process.file_name().to_str()?.parse().ok()?)?;
            // Empty for zombies, unreadable for other users' processes: neither is ours to kill.
            let environ = fs::read(process.path().join("environ")).ok()?;
            environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()).then_some(pid)
        })
        .collect()
}

fn kill(pid: Pid) {
    // It may have ended since it was seen.
    kill_process(pid, Signal::KILL).ok();
}
