//! nats-server: its configuration and its readiness.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::options::{Options, fair_threads};
use super::password::write_private;
use super::port;
use super::probe::http_get;
use crate::binaries::Binary;
use crate::process::Launch;

const CONFIG: &str = "nats.conf";
/// The file that holds the port of the monitoring endpoint of this run.
const MONITOR: &str = "monitor.port";

/// Who the services are, where they must say so.
pub(super) const USER: &str = "mini-telegram";

/// How many threads run Go code at once.
const THREADS: &str = "GOMAXPROCS";

pub(super) fn launch(
    binary: &Binary,
    dir: &Path,
    port: u16,
    options: &Options,
    log: &Path,
) -> Result<Launch> {
    let monitor = port::choose(None)?;
    fs::write(dir.join(MONITOR), monitor.to_string())?;
    let config = dir.join(CONFIG);
    write_private(&config, &text(dir, port, monitor, options))?;
    let launch = Launch::new(&binary.path, log).args(["--config", &config.to_string_lossy()]);
    if std::env::var_os(THREADS).is_some() {
        return Ok(launch);
    }
    Ok(launch.env([(THREADS.to_owned(), fair_threads().to_string())]))
}

fn text(dir: &Path, port: u16, monitor: u16, options: &Options) -> String {
    let store = dir.join("jetstream");
    let extra = options.extra.join("\n");
    let authorization = options.password.as_ref().map_or_else(String::new, |password| {
        format!("authorization {{ user: {USER:?}, password: {:?} }}", password.reveal())
    });
    format!(
        r#"# Written at every start.
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor}"
server_name: "mini-telegram-{port}"
max_payload: 1MB
# A client that is cut off is noticed within seconds.
ping_interval: "5s"
ping_max: 2
jetstream {{
  store_dir: {store:?}
  # One replica: at most a second of writes is lost with the machine. `always` costs 160 times as much.
  sync_interval: "1s"
  max_memory_store: 1GB
  max_file_store: 100GB
  # Each gateway owns a consumer per partition; the default stops at 1,000.
  limits {{ default_max_consumers: -1 }}
}}
{authorization}
{extra}
"#
    )
}

/// The health endpoint says ok once JetStream has recovered its streams.
pub(super) fn ready(dir: &Path) -> bool {
    health(dir).is_some_and(|(status, _)| status == 200)
}

/// Why the server stores nothing any more, if a write of its has failed. It keeps that for good, also when the disk has
/// room again.
pub(super) fn failed_write(dir: &Path) -> Option<String> {
    let (status, body) = health(dir)?;
    (status != 200 && body.contains("write error")).then_some(body)
}

fn health(dir: &Path) -> Option<(u16, String)> {
    let monitor = fs::read_to_string(dir.join(MONITOR)).ok()?;
    http_get(&format!("http://127.0.0.1:{}/healthz", monitor.trim()), Duration::from_secs(1))
}
