//! The CPU and memory of the product's processes, read from /proc and from their metrics, and the machine of the run.

use std::{fs, process::Command};

use serde::Serialize;

use crate::{
    memory::{self, Memory},
    target::Target,
};

pub mod watch;
pub mod window;

/// One process, or a server with its workers.
#[derive(Debug, Clone, Serialize)]
pub struct Watched {
    pub name: String,
    pub pid: u32,
}

/// The processes of the product that have a known id.
pub fn watched(target: &Target) -> Vec<Watched> {
    let gateways =
        target.gateways.iter().enumerate().map(|(n, gateway)| (format!("gateway-{}", n + 1), gateway.pid));
    let service = |name: &str, service: &Option<crate::target::Service>| {
        (name.to_owned(), service.as_ref().and_then(|service| service.pid))
    };
    let services = [
        service("projector", &target.projector),
        service("presence", &target.presence),
        service("nats", &target.servers.nats),
        service("postgres", &target.servers.postgres),
        service("redis", &target.servers.redis),
    ];
    gateways.chain(services).filter_map(|(name, pid)| Some(Watched { name, pid: pid? })).collect()
}

/// CPU alone: cheap enough for every second.
pub fn cpu_s(pid: u32) -> f64 {
    family(pid).into_iter().filter_map(memory::cpu_s).sum::<f64>() + reaped_s(pid)
}

/// Memory of the process and its children.
pub fn memory_of(pid: u32) -> Memory {
    family(pid)
        .into_iter()
        .filter_map(memory::of)
        .fold(Memory { pss: 0, rss: 0 }, |sum, one| Memory { pss: sum.pss + one.pss, rss: sum.rss + one.rss })
}

/// The process and its children: Postgres has one per connection.
fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    std::iter::once(pid).chain(children.split_whitespace().filter_map(|child| child.parse().ok())).collect()
}

/// CPU of children that have ended.
fn reaped_s(pid: u32) -> f64 {
    const TICKS_PER_S: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or_default();
    (ticks(13) + ticks(14)) / TICKS_PER_S
}

/// The machine and build on which the figures depend.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    pub load_average: String,
    pub commit: String,
}

impl Machine {
    /// This one, now.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default();
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: kib * 1_024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: read("/proc/loadavg").trim().to_owned(),
            commit: commit(),
        }
    }
}

/// The commit of the working directory, marked if it has changes.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty());
    if changed { format!("{commit}+changes") } else { commit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_counted_with_its_children() {
        let own = std::process::id();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(family(own).contains(&own));
        // The child of a thread is listed with that thread, and tests run in threads of their own.
        assert!(memory_of(own).pss > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(cpu_s(own) >= 0.0);
    }

    #[test]
    fn the_machine_is_described() {
        let machine = Machine::here();
        assert!(machine.cores > 0 && machine.memory_bytes > 0);
        assert!(!machine.commit.is_empty());
    }
}
