//! What a gateway holds: memory, descriptors, and what the kernel keeps for its sockets. Sampled from outside.

use std::{
    fmt, fs,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::memory;

const EVERY: Duration = Duration::from_millis(200);
/// What a gateway may keep after it has let go: an allocator's slack, and pools that stay open.
const SLACK_BYTES: u64 = 8 * 1_048_576;
const SLACK_DESCRIPTORS: usize = 8;
const SLACK_UNSENT: u64 = 1_048_576;

/// At one moment, or the most of each.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Held {
    /// The process's memory, as a proportional share.
    pub(super) pss: u64,
    pub(super) descriptors: usize,
    /// Bytes in the kernel's send queues of the gateway's connections.
    pub(super) unsent: u64,
}

impl Held {
    fn now(pid: u32, port: u16) -> Self {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        let pss = memory::of(pid).map_or(0, |memory| memory.pss);
        Self { pss, descriptors, unsent: unsent(port) }
    }

    fn most(self, other: Self) -> Self {
        Self {
            pss: self.pss.max(other.pss),
            descriptors: self.descriptors.max(other.descriptors),
            unsent: self.unsent.max(other.unsent),
        }
    }

    /// Whether this is no more than `before`, which is where an attack began.
    fn let_go(self, before: Self) -> bool {
        self.pss <= before.pss + before.pss / 2 + SLACK_BYTES
            && self.descriptors <= before.descriptors + SLACK_DESCRIPTORS
            && self.unsent <= before.unsent + SLACK_UNSENT
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: f64 = 1_048_576.0;
        let Self { pss, descriptors, unsent } = self;
        let (memory, unsent) = (*pss as f64 / MIB, *unsent as f64 / MIB);
        write!(f, "{memory:.1} MiB, {descriptors} descriptors, {unsent:.1} MiB unsent in the kernel")
    }
}

/// The bytes that wait in the send queues of the connections whose local port this is.
fn unsent(port: u16) -> u64 {
    let of = |path: &str| {
        let table = fs::read_to_string(path).unwrap_or_default();
        table.lines().skip(1).filter_map(|line| queue(line, port)).sum::<u64>()
    };
    of("/proc/net/tcp") + of("/proc/net/tcp6")
}

/// The send queue in a line of `/proc/net/tcp`, if the line is a connection of the port.
fn queue(line: &str, port: u16) -> Option<u64> {
    /// The state of a socket that listens: its queue counts connections.
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?.rsplit_once(':')?.1;
    let state = fields.nth(1)?;
    let (sent, _) = fields.next()?.split_once(':')?;
    let ours = u16::from_str_radix(local, 16) == Ok(port) && state != LISTEN;
    if ours { u64::from_str_radix(sent, 16).ok() } else { None }
}

/// Samples until it ends.
pub(super) struct Gauge {
    pid: u32,
    port: u16,
    before: Held,
    peak: Arc<Mutex<Held>>,
    _sampling: JoinSet<()>,
}

impl Gauge {
    pub(super) fn start(pid: u32, url: &str) -> Result<Self> {
        let port = url.rsplit_once(':').and_then(|(_, port)| port.trim_end_matches('/').parse().ok());
        let port = port.with_context(|| format!("no port in {url}"))?;
        let before = Held::now(pid, port);
        let peak = Arc::new(Mutex::new(before));
        let mut sampling = JoinSet::new();
        let most = peak.clone();
        sampling.spawn(async move {
            loop {
                let now = Held::now(pid, port);
                {
                    let mut most = most.lock();
                    *most = most.most(now);
                }
                tokio::time::sleep(EVERY).await;
            }
        });
        Ok(Self { pid, port, before, peak, _sampling: sampling })
    }

    /// How long the gateway takes to hold no more than before.
    pub(super) async fn recovery(&self, patience: Duration) -> Option<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if Held::now(self.pid, self.port).let_go(self.before) {
                return Some(begun.elapsed());
            }
            tokio::time::sleep(EVERY).await;
        }
        None
    }

    /// Before, and the most since.
    pub(super) fn end(self) -> (Held, Held) {
        let peak = *self.peak.lock();
        (self.before, peak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connections_queue_is_counted_and_a_listeners_is_not() {
        let connection = "   1: 0100007F:1F90 0100007F:D2A4 01 00000A10:00000000 00:00000000 00000000 0 0 1";
        let listener = "   0: 0100007F:1F90 00000000:0000 0A 00000005:00000000 00:00000000 00000000 0 0 1";
        assert_eq!(queue(connection, 8_080), Some(0xA10));
        assert_eq!(queue(connection, 8_081), None);
        assert_eq!(queue(listener, 8_080), None);
    }
}
