//! A reconnect storm: every device drops, misses messages, and all resume at once.

use std::{
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
            let before = self.replayed_from_elsewhere();
            let mut seconds = 0.0;
            self.measured(|course| {
                seconds = course.resume_all()?;
                Ok(())
            })?;
            times.push(seconds);
            self.figure(format!("storm {round}: all live"), seconds * 1e3, "ms");
            let from_elsewhere = self.replayed_from_elsewhere() - before;
            self.figure(format!("storm {round}: events not replayed from the ring"), from_elsewhere, "");
            self.settle()?;
        }
        times.sort_by(f64::total_cmp);
        if let Some(median) = times.get(times.len() / 2) {
            self.figure("all live, median", median * 1e3, "ms");
        }
        Ok(())
    }

    /// Events that the gateways so far had to read elsewhere than in their rings.
    fn replayed_from_elsewhere(&self) -> f64 {
        let read =
            |line: &str| line.rsplit_once("} ").and_then(|(_, value)| value.trim().parse::<f64>().ok());
        // A gateway with its metrics elsewhere tells nothing here.
        let texts =
            self.target.gateways.iter().map(|gateway| get(&gateway.url, "/metrics").unwrap_or_default());
        let of_one = |text: String| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with("gateway_replay_events_total{"));
            lines.filter(|line| !line.contains("\"ring\"")).filter_map(read).sum()
        };
        texts.map(of_one).sum()
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
