//! The highest rate that is still served: rates rise step by step until one is too slow or history falls behind.

use std::time::Duration;

use anyhow::Result;

use super::{http::get, steps::Course};
use crate::{clock::now_ns, measure::watch::value, swarm::Action};

/// The projection may be this far behind at the end of a step.
const MOST_LAG_S: f64 = 1.0;
/// A product that is faster than these needs no finer measure.
const MOST_STEPS: u32 = 40;

impl Course {
    pub(super) fn ceiling(&mut self) -> Result<()> {
        self.connect()?;
        self.step("warm-up");
        let mut rate = self.params.messages;
        self.load(&[(Action::Message, rate)], Duration::from_secs(self.params.warmup_s))?;
        let mut highest = 0.0;
        for _ in 0..MOST_STEPS {
            self.step(&format!("{rate:.0}/s"));
            if !self.passes(rate)? {
                break;
            }
            highest = rate;
            rate *= self.params.step_factor;
        }
        self.figure("highest rate served", highest, "/s");
        Ok(())
    }

    /// One step; whether it was served in time. The report's latencies and costs are those of the last one.
    fn passes(&mut self, rate: f64) -> Result<bool> {
        let time = Duration::from_secs(self.params.seconds);
        self.swarm.tally.start_over();
        self.measured(|course| {
            course.swarm.tally.window = now_ns()..u64::MAX;
            course.load(&[(Action::Message, rate)], time)
        })?;
        let lag_s = self.projector_lag_s();
        // Late messages belong to this step, not to the next.
        self.swarm.run_until(Duration::from_secs(self.params.settle_s), |swarm| swarm.judge.open == 0)?;
        let ms = |quantile| self.swarm.tally.delivery.value_at_quantile(quantile) as f64 / 1e3;
        let (p50, p99) = (ms(0.5), ms(0.99));
        self.figure(format!("{rate:.0}/s: p50"), p50, "ms");
        self.figure(format!("{rate:.0}/s: p99"), p99, "ms");
        self.figure(format!("{rate:.0}/s: projector lag"), lag_s, "s");
        Ok(p99 <= self.params.p99_limit_ms && lag_s < MOST_LAG_S)
    }

    fn projector_lag_s(&self) -> f64 {
        let text = self.target.projector.as_ref().and_then(|projector| get(&projector.url, "/metrics").ok());
        text.and_then(|text| value(&text, "projector_lag_seconds")).unwrap_or(0.0)
    }
}
