//! One service of the product as a process: its log line tells where it listens, signals tell it to end.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::{Child, Launch, POLL, Signal};

/// Lines of the log that an error shows.
const TAIL_LINES: usize = 20;

/// A spawned service. Dropped, it is killed.
#[derive(Debug)]
pub struct Service {
    name: String,
    launch: Launch,
    child: Child,
    /// Where this run's lines begin: the log is kept from run to run.
    log_start: u64,
}

impl Service {
    pub fn spawn(
        name: &str,
        program: impl Into<PathBuf>,
        args: &[&str],
        env: impl IntoIterator<Item = (String, String)>,
        log: impl Into<PathBuf>,
    ) -> Result<Self> {
        let launch = Launch::new(program, log).args(args.iter().copied()).env(env);
        let log_start = std::fs::metadata(&launch.log).map_or(0, |log| log.len());
        let child = Child::spawn(&launch)?;
        Ok(Self { name: name.to_owned(), launch, child, log_start })
    }

    /// Ends what is left of it and starts it again, with the same settings. With port 0 it gets another port.
    pub fn restart(&mut self) -> Result<()> {
        self.child.kill9()?;
        self.log_start = std::fs::metadata(&self.launch.log).map_or(0, |log| log.len());
        self.child = Child::spawn(&self.launch)?;
        Ok(())
    }

    /// Changes a setting for the next [`Service::restart`], such as the port that it got the first time.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.launch.env.retain(|(other, _)| other != name);
        self.launch.env.push((name.to_owned(), value.to_owned()));
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub fn log_path(&self) -> &Path {
        &self.launch.log
    }

    /// Waits for its first "listening" line of this run.
    pub fn wait_listening(&mut self, timeout: Duration) -> Result<SocketAddr> {
        let line = self.wait_log(timeout, |fields| {
            (fields["message"] == "listening").then(|| fields["addr"].as_str().map(str::to_owned)).flatten()
        })?;
        line.parse().with_context(|| format!("the address {line} of {}", self.name))
    }

    /// Waits until `pick` finds what it looks for in the `fields` of one of this run's log lines.
    pub fn wait_log<T>(&mut self, timeout: Duration, pick: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + timeout;
        loop {
            let ended = self.child.exited()?;
            let found = self.log()?.lines().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                pick(&line["fields"])
            });
            if let Some(found) = found {
                return Ok(found);
            }
            if let Some(status) = ended {
                bail!("{} ended with {status}:\n{}", self.name, self.log_tail());
            }
            if Instant::now() >= deadline {
                bail!("{} did not say it within {timeout:?}:\n{}", self.name, self.log_tail());
            }
            thread::sleep(POLL);
        }
    }

    /// What it has logged in this run.
    pub fn log(&self) -> Result<String> {
        let mut file = File::open(&self.launch.log)?;
        file.seek(SeekFrom::Start(self.log_start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last lines of this run.
    pub fn log_tail(&self) -> String {
        let log = self.log().unwrap_or_else(|error| format!("(no log: {error})"));
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.exited()
    }

    /// Asks it to drain and end.
    pub fn sigterm(&mut self) -> Result<()> {
        self.child.signal(Signal::TERM)
    }

    pub fn sigstop(&mut self) -> Result<()> {
        self.child.signal(Signal::STOP)
    }

    pub fn sigcont(&mut self) -> Result<()> {
        self.child.signal(Signal::CONT)
    }

    pub fn kill9(&mut self) -> Result<()> {
        self.child.kill9()
    }

    /// SIGTERM, and SIGKILL when it has not ended after `grace`.
    pub fn stop(&mut self, grace: Duration) -> Result<Option<ExitStatus>> {
        self.child.stop(Signal::TERM, grace)?;
        self.child.exited()
    }

    pub fn wait_exit(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        self.child.wait(timeout)
    }
}
