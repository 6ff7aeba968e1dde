//! Gateways that the run starts itself, so that it can replace them. The gateways of `cargo xtask up` cannot be
//! replaced: it stops the whole product when one of them ends.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::http::get;
use crate::target::{Service, Target};

/// A gateway fills its ring before it turns ready.
const READY: Duration = Duration::from_secs(60);
/// Longer than the grace period of a drain.
const DRAIN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// A gateway process; killed if it is still there when this is dropped.
#[derive(Debug)]
pub struct Own {
    child: Child,
    log: PathBuf,
    pub url: String,
}

/// The gateways of this run.
#[derive(Debug)]
pub struct Fleet {
    binary: PathBuf,
    env: BTreeMap<String, String>,
    pub gateways: Vec<Own>,
}

impl Fleet {
    /// Starts that many and makes them the target's.
    ///
    /// # Errors
    /// When one does not turn ready.
    pub fn start(count: usize, binary: &Path, target: &mut Target) -> Result<Self> {
        let mut fleet = Self { binary: binary.to_owned(), env: target.env.clone(), gateways: Vec::new() };
        for _ in 0..count {
            let own = fleet.spawn()?;
            fleet.gateways.push(own);
        }
        let service = |own: &Own| Service { url: own.url.clone(), pid: Some(own.child.id()) };
        target.gateways = fleet.gateways.iter().map(service).collect();
        Ok(fleet)
    }

    /// One more gateway, ready.
    ///
    /// # Errors
    /// When it does not turn ready.
    pub fn spawn(&self) -> Result<Own> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = std::env::temp_dir().join(format!("loadtest-{}-gateway-{number}.log", std::process::id()));
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let child = Command::new(&self.binary)
            .envs(&self.env)
            .env("MT_HTTP_ADDR", "127.0.0.1:0")
            .env_remove("MT_OPS_ADDR")
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output)
            .spawn()
            .with_context(|| format!("run {}", self.binary.display()))?;
        let mut own = Own { child, log, url: String::new() };
        own.wait_ready()?;
        Ok(own)
    }
}

impl Own {
    fn wait_ready(&mut self) -> Result<()> {
        let until = Instant::now() + READY;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                bail!("a gateway ended with {status}: {}", self.log_text());
            }
            if self.url.is_empty() {
                self.url = self.log_text().lines().find_map(listening).unwrap_or_default();
            } else if get(&self.url, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        bail!("a gateway is not ready after {READY:?}: {}", self.log_text())
    }

    /// Tells it to drain.
    ///
    /// # Errors
    /// When it is gone.
    pub fn terminate(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::TERM)?)
    }

    /// Waits for the end of the drain, which must be clean.
    ///
    /// # Errors
    /// When it is not, or takes too long.
    pub fn wait(&mut self) -> Result<Duration> {
        let since = Instant::now();
        while since.elapsed() < DRAIN {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "a drained gateway ended with {status}: {}", self.log_text());
                return Ok(since.elapsed());
            }
            std::thread::sleep(LOOK);
        }
        bail!("a gateway still drains after {DRAIN:?}")
    }

    fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Ending and removing what is there no more is no failure.
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_file(&self.log).ok();
    }
}

/// The address in the line that a service logs when it listens.
fn listening(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = &line["fields"];
    (fields["message"] == "listening").then(|| Some(format!("http://{}", fields["addr"].as_str()?)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_the_log() {
        let line =
            r#"{"level":"INFO","fields":{"message":"listening","addr":"127.0.0.1:4711"},"target":"x"}"#;
        assert_eq!(listening(line).as_deref(), Some("http://127.0.0.1:4711"));
        assert_eq!(listening(r#"{"fields":{"message":"other"}}"#), None);
        assert_eq!(listening("no JSON"), None);
    }
}
