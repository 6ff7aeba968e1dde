//! The outcome of a smoke run: the verdict, the latencies, and the use of the gateways.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;

use super::load::Load;
use crate::{
    latency::Summary,
    memory::{self, Memory},
    oracle::{Oracle, check::Verdict, log},
    target::Target,
};

/// The outcome of a run.
#[derive(Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    pub delivery: Summary,
    pub ack: Summary,
    /// Messages per second that were really handed over.
    pub sent_per_s: f64,
    pub deliveries_per_s: f64,
    pub postponed: BTreeMap<String, u64>,
    pub gateways: Vec<GatewayUse>,
}

/// The memory and CPU of one gateway.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayUse {
    pub url: String,
    pub memory: Option<Memory>,
    /// Cores, while messages were sent.
    pub cores: Option<f64>,
}

pub(super) fn cpu_of(target: &Target) -> Vec<Option<f64>> {
    target.gateways.iter().map(|gateway| gateway.pid.and_then(memory::cpu_s)).collect()
}

pub(super) fn uses(target: &Target, cpu_before: &[Option<f64>], seconds: f64) -> Vec<GatewayUse> {
    target
        .gateways
        .iter()
        .zip(cpu_before)
        .map(|(gateway, before)| {
            let used = gateway.pid.and_then(memory::cpu_s).zip(*before).map(|(now, before)| now - before);
            GatewayUse {
                url: gateway.url.clone(),
                memory: gateway.pid.and_then(memory::of),
                cores: used.map(|used| used / seconds),
            }
        })
        .collect()
}

const MIB: f64 = 1_048_576.0;

impl Outcome {
    /// Adds what the log itself says.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn check_log(&mut self, oracle: &Oracle, target: &Target) -> Result<()> {
        let url = target.nats_url.as_ref().context("no natsUrl in the file of `cargo xtask up`")?;
        let prefix = target.env.get("MT_STREAM_PREFIX").map(String::as_str).unwrap_or_default();
        let entries = log::read(url, prefix).await?;
        println!("{} entries in the log compared", entries.len());
        self.verdict.violations.extend(oracle.check_log(&entries));
        Ok(())
    }

    pub fn print(&self) {
        println!("{}", self.verdict);
        println!("sent {:.0}/s, delivered {:.0}/s", self.sent_per_s, self.deliveries_per_s);
        println!("delivery  {}", self.delivery);
        println!("ack       {}", self.ack);
        if !self.postponed.is_empty() {
            println!("temporary errors {:?}", self.postponed);
        }
        for GatewayUse { url, memory, cores } in &self.gateways {
            let memory = memory.map(|Memory { pss, rss }| {
                format!("{:.1} MiB PSS, {:.1} MiB RSS", pss as f64 / MIB, rss as f64 / MIB)
            });
            let cores = cores.map(|cores| format!("{cores:.2} cores"));
            println!(
                "gateway {url}: {}, {}",
                memory.as_deref().unwrap_or("memory unknown"),
                cores.as_deref().unwrap_or("CPU unknown")
            );
        }
    }

    pub(super) fn json(&self, load: &Load) -> serde_json::Value {
        let counts: BTreeMap<String, usize> =
            self.verdict.counts().iter().map(|(breach, count)| (format!("{breach:?}"), *count)).collect();
        serde_json::json!({
            "load": load,
            "clean": self.verdict.is_clean(),
            "violations": counts,
            "examples": self.verdict.violations.iter().take(100).map(ToString::to_string).collect::<Vec<_>>(),
            "sent": self.verdict.sent,
            "acked": self.verdict.acked,
            "refused": self.verdict.refused,
            "received": self.verdict.received,
            "sessions": self.verdict.sessions,
            "resumed": self.verdict.resumes,
            "lagged": self.verdict.lagged,
            "sentPerS": self.sent_per_s,
            "deliveriesPerS": self.deliveries_per_s,
            "deliveryMs": self.delivery,
            "ackMs": self.ack,
            "temporaryErrors": self.postponed,
            "gateways": self.gateways,
        })
    }
}
