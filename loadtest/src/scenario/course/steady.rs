//! A fixed load after a warm-up.

use std::time::Duration;

use anyhow::Result;

use super::steps::Course;
use crate::{clock::now_ns, swarm::Device};

impl Course {
    pub(super) fn steady(&mut self) -> Result<()> {
        self.connect()?;
        let rates = self.params.rates();
        self.step("warm-up");
        self.load(&rates, Duration::from_secs(self.params.warmup_s))?;
        self.step("measure");
        let before = self.signals();
        let seconds = self.params.seconds;
        self.measured(|course| {
            let time = Duration::from_secs(seconds);
            // The window is that of the load, which begins at once.
            let now = now_ns();
            course.swarm.tally.window = now..now + time.as_nanos() as u64 + 1_000_000;
            course.load(&rates, time)
        })?;
        self.signal_figures(before);
        Ok(())
    }

    /// Receipts, presence and typing frames so far.
    fn signals(&self) -> [u64; 3] {
        let counts = &self.swarm.tally.counts;
        [counts.receipts, counts.presence, counts.typing]
    }

    fn signal_figures(&mut self, before: [u64; 3]) {
        if self.params.typing + self.params.reads + self.params.presence + self.params.flaps == 0.0 {
            return;
        }
        let now = self.signals();
        let sessions = self.params.sockets as f64 * self.window.seconds;
        for (name, (now, before)) in
            ["receipts", "presence", "typing"].into_iter().zip(now.into_iter().zip(before))
        {
            self.figure(format!("{name} frames per session"), (now - before) as f64 / sessions, "/s");
        }
        let most = |count: fn(&Device) -> u32| self.swarm.devices.iter().map(count).max().unwrap_or_default();
        let (receipts, presence) =
            (most(|device| device.signals.receipts), most(|device| device.signals.presence));
        self.figure("receipts frames of the busiest session, whole run", f64::from(receipts), "");
        self.figure("presence frames of the busiest session, whole run", f64::from(presence), "");
    }
}
