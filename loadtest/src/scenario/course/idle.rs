//! The memory that sockets cost: idle, after a burst, after a storm, and after most have left.

use std::time::Duration;

use anyhow::Result;

use super::steps::Course;
use crate::{clock::now_ns, measure::memory_of};

const MIB: f64 = 1_048_576.0;
/// One in so many stays at the end.
const STAYS: usize = 10;

impl Course {
    pub(super) fn idle(&mut self) -> Result<()> {
        let empty = self.gateways_pss();
        self.figure("PSS of the gateways before", empty / MIB, "MiB");
        self.connect()?;
        self.quiet("idle")?;

        self.step("burst");
        let each = self.params.messages_each;
        self.measured(|course| {
            let now = now_ns();
            course.swarm.tally.window = now..u64::MAX;
            course.announce(each)
        })?;
        self.settle()?;
        self.quiet("after a burst")?;

        self.step("storm");
        self.drop_all();
        let seconds = self.resume_all()?;
        self.figure("all devices live again", seconds * 1e3, "ms");
        self.settle()?;
        self.quiet("after a storm")?;

        self.step("leave");
        for at in (0..self.swarm.devices.len()).filter(|at| at % STAYS != 0) {
            self.swarm.drop_link(at);
            self.swarm.devices[at].by_choice = true;
        }
        self.quiet("after 90 % left")
    }

    /// Waits for the quiet and notes the gateways' memory.
    fn quiet(&mut self, name: &str) -> Result<()> {
        self.step(name);
        self.swarm.run_for(Duration::from_secs(self.params.quiet_s))?;
        let pss = self.gateways_pss();
        self.figure(format!("PSS of the gateways, {name}"), pss / MIB, "MiB");
        self.figure(format!("PSS per live socket, {name}"), pss / f64::from(self.swarm.live.max(1)), "bytes");
        Ok(())
    }

    fn gateways_pss(&self) -> f64 {
        let gateways = self.processes.iter().filter(|process| process.name.starts_with("gateway"));
        // A gateway without devices says nothing about sockets.
        let used = gateways.take(self.swarm.gateways.len());
        used.map(|process| memory_of(process.pid).pss as f64).sum()
    }
}
