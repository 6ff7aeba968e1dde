//! The result of a measured run: the one structure that is written, shown and compared.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    latency::{Summary, summary},
    measure::{
        Machine,
        watch::Sample,
        window::{Figure, Window},
    },
    params::Params,
    swarm::{Counts, Judge, Row, Tally},
};

/// A distribution and its curve.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Distribution {
    #[serde(flatten)]
    pub summary: Summary,
    /// Percentile and milliseconds.
    pub curve: Vec<(f64, f64)>,
}

impl Distribution {
    /// From a histogram of microseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let curve = histogram
            .iter_quantiles(4)
            .map(|step| (step.percentile(), step.value_iterated_to() as f64 / 1_000.0))
            .collect();
        Self { summary: summary(histogram), curve }
    }
}

/// The use of one process in the window.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessUse {
    pub name: String,
    pub cores: f64,
    /// CPU per message that came to another device.
    pub us_per_delivery: f64,
    pub pss_begin: u64,
    pub pss_end: u64,
}

/// The cost of the generator itself, and its delay.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Generator {
    pub cores: f64,
    pub us_per_delivery: f64,
    pub late: Summary,
}

/// The verdict of the oracle.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    pub clean: bool,
    pub violations: BTreeMap<String, u64>,
    pub examples: Vec<String>,
    pub acked: u64,
    pub histories: usize,
}

/// The result of a run; its JSON form is the result file.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub scenario: String,
    /// Unix ms.
    pub began_ts: u64,
    pub machine: Machine,
    pub params: Params,
    pub judgement: Judgement,
    /// The length of the measured window.
    pub window_s: f64,
    pub sent_per_s: f64,
    pub delivered_per_s: f64,
    /// CPU of all processes of the product and its servers.
    pub server_us_per_delivery: f64,
    pub server_us_per_message: f64,
    pub delivery: Distribution,
    pub ack: Distribution,
    pub replayed: Distribution,
    pub resume: Distribution,
    /// Names of the processes in the samples.
    pub watched: Vec<String>,
    pub processes: Vec<ProcessUse>,
    pub generator: Generator,
    pub projector_lag_s_max: Option<f64>,
    pub projector_lag_s_end: Option<f64>,
    pub nats_pending_max: Option<u64>,
    pub figures: Vec<Figure>,
    pub counts: Counts,
    /// Steps of the run and when they began, for the charts.
    pub steps: Vec<(f64, String)>,
    pub rows: Vec<Row>,
    pub samples: Vec<Sample>,
}

/// Everything that a run leaves behind for its report.
#[derive(Debug)]
pub struct Material {
    pub tally: Tally,
    pub judge: Judge,
    pub window: Window,
    pub figures: Vec<Figure>,
    pub steps: Vec<(f64, String)>,
    pub samples: Vec<Sample>,
    /// How many histories were read after the run.
    pub histories: usize,
}

const MIB: f64 = 1_048_576.0;
/// If the generator is later than this, the figures measure the other work of the machine.
const LATE_MS: f64 = 5.0;

impl Outcome {
    /// The result before the run: everything that is known of it.
    pub fn begin(scenario: &str, params: Params, machine: Machine, began_ts: u64) -> Self {
        Self { scenario: scenario.to_owned(), params, machine, began_ts, ..Self::default() }
    }

    /// Fills in the results of the run.
    pub fn take(&mut self, material: Material) {
        let Material { tally, judge, window, figures, steps, samples, histories } = material;
        let breaches = judge.breaches;
        self.judgement = Judgement {
            clean: breaches.total() == 0,
            violations: breaches.counts,
            examples: breaches.examples,
            acked: judge.acked,
            histories,
        };
        self.delivery = Distribution::of(&tally.delivery);
        self.ack = Distribution::of(&tally.ack);
        self.replayed = Distribution::of(&tally.replayed);
        self.resume = Distribution::of(&tally.resume);
        self.generator.late = summary(&tally.late);
        self.take_window(window);
        let lags = || samples.iter().filter_map(|sample| sample.projector_lag_s);
        self.projector_lag_s_max = lags().reduce(f64::max);
        self.projector_lag_s_end = lags().next_back();
        self.nats_pending_max = samples.iter().filter_map(|sample| sample.nats_pending).max();
        self.counts = tally.counts;
        self.rows = tally.rows;
        (self.figures, self.steps, self.samples) = (figures, steps, samples);
    }

    fn take_window(&mut self, window: Window) {
        let deliveries = (window.delivered as f64).max(1.0);
        let us = |cpu_s: f64| cpu_s * 1e6 / deliveries;
        let seconds = window.seconds.max(f64::MIN_POSITIVE);
        self.window_s = window.seconds;
        self.sent_per_s = window.sent as f64 / seconds;
        self.delivered_per_s = window.delivered as f64 / seconds;
        self.generator.cores = window.own_cpu_s / seconds;
        self.generator.us_per_delivery = us(window.own_cpu_s);
        let servers_cpu_s: f64 = window.processes.iter().map(|process| process.cpu_s).sum();
        self.server_us_per_delivery = us(servers_cpu_s);
        self.server_us_per_message =
            if window.acked == 0 { 0.0 } else { servers_cpu_s * 1e6 / window.acked as f64 };
        self.processes = window
            .processes
            .into_iter()
            .map(|process| ProcessUse {
                cores: process.cpu_s / seconds,
                us_per_delivery: us(process.cpu_s),
                name: process.name,
                pss_begin: process.pss_begin,
                pss_end: process.pss_end,
            })
            .collect();
    }

    /// Prints the result to the terminal.
    pub fn print(&self) {
        println!(
            "\n{} at {} on {} × {}",
            self.scenario, self.machine.commit, self.machine.cores, self.machine.cpu
        );
        self.print_judgement();
        if self.delivery.summary.count > 0 {
            println!(
                "sent {:.0}/s, delivered {:.0}/s for {:.0} s",
                self.sent_per_s, self.delivered_per_s, self.window_s
            );
            println!("delivery  {}", self.delivery.summary);
            println!("ack       {}", self.ack.summary);
        }
        for (name, distribution) in [("replayed", &self.replayed), ("resume", &self.resume)] {
            if distribution.summary.count > 0 {
                println!("{name:<9} {}", distribution.summary);
            }
        }
        self.print_processes();
        for Figure { name, value, unit } in &self.figures {
            println!("{name}: {value:.2} {unit}");
        }
        let Generator { cores, us_per_delivery, late } = &self.generator;
        if late.p99_ms > LATE_MS {
            println!("the generator itself was late, which the latencies include: is the machine busy?");
        }
        println!(
            "generator {cores:.2} cores, {us_per_delivery:.1} µs/delivery, late p99 {:.2} ms",
            late.p99_ms
        );
    }

    fn print_judgement(&self) {
        let Judgement { clean, violations, examples, acked, histories } = &self.judgement;
        let Counts {
            delivered, echoes, events, repeated, temporary_errors, connects, closed, lagged, ..
        } = self.counts;
        println!(
            "{}: {acked} acked, {delivered} delivered + {echoes} echoes + {events} events ({repeated} again after a \
             resume), {connects} connects, {closed} closed by the server, {lagged} lagged, {temporary_errors} temporary \
             errors, {histories} histories read",
            if *clean { "no promise broken" } else { "PROMISES BROKEN" }
        );
        for (breach, count) in violations {
            println!("  {breach}: {count}");
        }
        for example in examples.iter().take(10) {
            println!("    {example}");
        }
    }

    fn print_processes(&self) {
        for ProcessUse { name, cores, us_per_delivery, pss_begin, pss_end } in &self.processes {
            let (begin, end) = (*pss_begin as f64 / MIB, *pss_end as f64 / MIB);
            println!(
                "{name:<10} {cores:.2} cores  {us_per_delivery:6.1} µs/delivery  PSS {begin:.1} → {end:.1} MiB"
            );
        }
        println!(
            "servers together {:.1} µs/delivery, {:.1} µs/message; projector lag {:.1} s at most; NATS pending {} at most",
            self.server_us_per_delivery,
            self.server_us_per_message,
            self.projector_lag_s_max.unwrap_or(f64::NAN),
            self.nats_pending_max.map_or("?".to_owned(), |pending| pending.to_string()),
        );
    }
}
