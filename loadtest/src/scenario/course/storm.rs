//! A reconnect storm: every device drops, misses messages, and all resume at once.

use std::time::Duration;

use anyhow::Result;

use super::{http::get, steps::Course};

/// The time in which a gateway notices that its sockets are gone.
const NOTICE: Duration = Duration::from_secs(1);

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

    /// How many events the gateways have replayed so far from other places than their rings.
    fn replayed_from_elsewhere(&self) -> f64 {
        let read =
            |line: &str| line.rsplit_once("} ").and_then(|(_, value)| value.trim().parse::<f64>().ok());
        // A gateway that serves its metrics at another address counts as zero.
        let texts =
            self.target.gateways.iter().map(|gateway| get(&gateway.url, "/metrics").unwrap_or_default());
        let of_one = |text: String| -> f64 {
            let lines = text.lines().filter(|line| line.starts_with("gateway_replay_events_total{"));
            lines.filter(|line| !line.contains("\"ring\"")).filter_map(read).sum()
        };
        texts.map(of_one).sum()
    }
}
