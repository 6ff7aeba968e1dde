//! Samples the product while a scenario runs, and prints a line for each sample: CPU every second, and the figures that
//! cost more (memory, lag) less often. It runs beside the swarm and never touches it.

use std::{
    io::{IsTerminal, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use async_nats::jetstream::consumer::Info;
use parking_lot::Mutex;
use serde::Serialize;

use super::{Watched, cpu_s, memory_of};
use crate::{memory, swarm::Progress, target::Target};

/// One sample.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    pub at_s: f64,
    /// Cores since the look before, in the order of the processes.
    pub cores: Vec<f64>,
    /// PSS in bytes; empty when it was not looked at.
    pub pss: Vec<u64>,
    pub projector_lag_events: Option<f64>,
    pub projector_lag_s: Option<f64>,
    /// Messages that NATS has not yet delivered to its consumers.
    pub nats_pending: Option<u64>,
    pub own_cores: f64,
}

const EVERY: Duration = Duration::from_secs(1);
/// Reading a process's PSS walks its page tables; asking NATS and the projector costs them something.
const COSTLY_EVERY: u32 = 5;
const ASK: Duration = Duration::from_secs(2);

/// The connections by which the product is sampled.
pub struct Watch {
    processes: Vec<Watched>,
    target: Target,
    http: reqwest::Client,
    nats: Option<async_nats::jetstream::Context>,
}

impl Watch {
    /// # Errors
    /// When the HTTP client can't be built.
    pub async fn new(target: &Target, processes: Vec<Watched>) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(ASK).build()?;
        let nats = match &target.nats_url {
            Some(url) => crate::target::nats(url).await.ok().map(async_nats::jetstream::new),
            None => None,
        };
        Ok(Self { processes, target: target.clone(), http, nats })
    }

    /// Looks until it is dropped; `began` is the zero of the samples' time.
    pub async fn run(self, began: Instant, progress: Arc<Mutex<Progress>>, samples: Arc<Mutex<Vec<Sample>>>) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let own = std::process::id();
        let cpu = |processes: &[Watched]| -> Vec<f64> {
            processes
                .iter()
                .map(|process| cpu_s(process.pid))
                .chain([memory::cpu_s(own).unwrap_or_default()])
                .collect()
        };
        ticks.tick().await;
        let (mut before, mut then) = (cpu(&self.processes), Instant::now());
        for round in 1_u32.. {
            ticks.tick().await;
            let now = cpu(&self.processes);
            let seconds = then.elapsed().as_secs_f64();
            then = Instant::now();
            let mut cores: Vec<f64> =
                now.iter().zip(&before).map(|(now, before)| (now - before) / seconds).collect();
            let own_cores = cores.pop().unwrap_or_default();
            before = now;
            let mut sample =
                Sample { at_s: began.elapsed().as_secs_f64(), cores, own_cores, ..Sample::default() };
            if round % COSTLY_EVERY == 0 {
                self.costly(&mut sample).await;
            }
            self.print(&progress.lock(), &sample);
            samples.lock().push(sample);
        }
    }

    async fn costly(&self, sample: &mut Sample) {
        sample.pss = self.processes.iter().map(|process| memory_of(process.pid).pss).collect();
        sample.projector_lag_events = self.projector("projector_lag_events").await;
        sample.projector_lag_s = self.projector("projector_lag_seconds").await;
        sample.nats_pending = self.pending().await;
    }

    async fn projector(&self, metric: &str) -> Option<f64> {
        let url = format!("{}/metrics", self.target.projector.as_ref()?.url);
        let text = self.http.get(url).send().await.ok()?.text().await.ok()?;
        value(&text, metric)
    }

    async fn pending(&self) -> Option<u64> {
        use futures_util::TryStreamExt;
        let prefix = self.target.env.get("MT_STREAM_PREFIX").map(String::as_str).unwrap_or_default();
        let name = format!("{}CHAT_0", prefix.to_uppercase());
        let look = async {
            let stream = self.nats.as_ref()?.get_stream_no_info(name).await.ok()?;
            // A consumer whose reader is gone stays for a while, with its pending messages; it does not count.
            let bound = |consumer: Info| if consumer.push_bound { consumer.num_pending } else { 0 };
            stream.consumers().try_fold(0, async |sum, consumer| Ok(sum + bound(consumer))).await.ok()
        };
        tokio::time::timeout(ASK, look).await.ok()?
    }

    fn print(&self, progress: &Progress, sample: &Sample) {
        let row = &progress.row;
        let cores: Vec<String> = self
            .processes
            .iter()
            .zip(&sample.cores)
            .map(|(process, cores)| format!("{} {cores:.2}", process.name))
            .collect();
        let line = format!(
            "{:5.0}s {:<10} live {:>6}  out {:>6}/s  in {:>7}/s  p50 {:.2}  p99 {:.2}  max {:.1} ms  | {}  self {:.2}",
            sample.at_s,
            progress.step,
            row.live,
            row.sent,
            row.delivered,
            row.p50_ms,
            row.p99_ms,
            row.max_ms,
            cores.join("  "),
            sample.own_cores
        );
        let mut out = std::io::stdout().lock();
        // A terminal keeps one line; a log gets one now and then. A closed stdout ends nothing.
        let written = if out.is_terminal() {
            write!(out, "\r\x1b[2K{line}").and_then(|()| out.flush())
        } else if sample.pss.is_empty() {
            Ok(())
        } else {
            writeln!(out, "{line}")
        };
        drop(written);
    }
}

/// The value of a metric in Prometheus's text format, summed over its labels.
pub fn value(text: &str, metric: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(metric)?;
        let rest = if rest.starts_with('{') { rest.split_once('}')?.1 } else { rest };
        rest.strip_prefix(' ')?.split_whitespace().next()?.parse::<f64>().ok()
    });
    values.reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_with_and_without_labels() {
        let text = "# HELP lag x\nlag{p=\"0\"} 3\nlag{p=\"1\"} 4.5\nlag_other 9\nplain 2\n";
        assert_eq!(value(text, "lag"), Some(7.5));
        assert_eq!(value(text, "plain"), Some(2.0));
        assert_eq!(value(text, "none"), None);
    }
}
