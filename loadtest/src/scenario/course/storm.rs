//! A reconnect storm: every device drops, misses messages, and all resume at once.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::Result;

use super::Course;

/// What a gateway needs to notice that its sockets are gone.
const NOTICE: Duration = Duration::from_secs(1);
/// How long a gateway may take to answer /metrics.
const ASK: Duration = Duration::from_secs(5);

impl Course {
    pub(super) fn storm(&mut self) -> Result<()> {
        self.connect()?;
        let mut times = Vec::new();
        for round in 1..=self.params.rounds {
            self.step(&format!("away {round}"));
            self.drop_all();
            self.swarm.run_for(NOTICE)?;
            self.announce(self.params.messages_each)?;
            self.step(&format!("storm {round}"));
            let before = self.replays();
            let mut seconds = 0.0;
            self.measured(|course| {
                seconds = course.resume_all()?;
                Ok(())
            })?;
            times.push(seconds);
            self.figure(format!("storm {round}: all live"), seconds * 1e3, "ms");
            for (source, events) in self.replays() {
                let events = events - before.get(&source).copied().unwrap_or_default();
                self.figure(format!("storm {round}: events replayed from {source}"), events, "");
            }
            self.settle()?;
        }
        times.sort_by(f64::total_cmp);
        if let Some(median) = times.get(times.len() / 2) {
            self.figure("all live, median", median * 1e3, "ms");
        }
        Ok(())
    }

    /// Events that the gateways replayed so far, by source.
    fn replays(&self) -> BTreeMap<String, f64> {
        let mut replays = BTreeMap::new();
        for gateway in &self.target.gateways {
            // A gateway with its metrics elsewhere tells nothing here.
            let text = get(&gateway.url, "/metrics").unwrap_or_default();
            for line in text.lines().filter(|line| line.starts_with("gateway_replay_events_total{")) {
                let Some((labels, value)) = line.rsplit_once("} ") else { continue };
                let source = labels.split('"').nth(1).unwrap_or_default().to_owned();
                *replays.entry(source).or_default() += value.trim().parse().unwrap_or(0.0);
            }
        }
        replays
    }
}

/// A plain GET from the swarm's thread, between two steps.
pub(super) fn get(url: &str, path: &str) -> Result<String> {
    let host = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(ASK))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
