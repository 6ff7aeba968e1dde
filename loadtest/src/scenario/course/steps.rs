//! The steps that every course is made of: connect, load, measure, drop and resume, settle.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::fleet::Fleet;
use crate::{
    measure::{
        Watched, cpu_s, memory_of,
        window::{Figure, Window, WindowUse},
    },
    memory,
    params::Params,
    swarm::{Action, Swarm},
    target::Target,
};

/// How long all devices may take to be live.
const CONNECT: Duration = Duration::from_secs(180);
/// The time that an overloaded generator may need to fire the actions that were due.
const OVERTIME: Duration = Duration::from_secs(10);
/// The pause between two checks that walk over all devices.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// A run under way: the swarm, what is measured of it, and the steps so far.
pub struct Course {
    pub(super) params: Params,
    pub(super) swarm: Swarm,
    pub(super) processes: Vec<Watched>,
    pub(super) target: Target,
    pub(super) fleet: Option<Fleet>,
    pub(super) window: Window,
    pub(super) figures: Vec<Figure>,
    pub(super) steps: Vec<(f64, String)>,
}

impl Course {
    pub fn new(
        params: Params,
        swarm: Swarm,
        processes: Vec<Watched>,
        target: Target,
        fleet: Option<Fleet>,
    ) -> Self {
        let (window, figures, steps) = (Window::default(), Vec::new(), Vec::new());
        Self { params, swarm, processes, target, fleet, window, figures, steps }
    }

    pub(super) fn step(&mut self, name: &str) {
        self.swarm.step(name);
        self.steps.push((self.swarm.at_s(), name.to_owned()));
    }

    pub(super) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit });
    }

    /// Connects all devices and waits until they are live.
    pub(super) fn connect(&mut self) -> Result<()> {
        self.step("connect");
        for at in 0..self.swarm.devices.len() {
            self.swarm.queue(at);
        }
        self.all_live(CONNECT)
    }

    pub(super) fn all_live(&mut self, limit: Duration) -> Result<()> {
        let all = self.swarm.devices.len() as u32;
        let done = self.swarm.run_until(limit, |swarm| swarm.live == all)?;
        let (live, counts) = (self.swarm.live, &self.swarm.tally.counts);
        ensure!(done, "{live} of {all} devices are live after {limit:?}: {counts:?}");
        Ok(())
    }

    /// Fires that load for that time.
    pub(super) fn load(&mut self, rates: &[(Action, f64)], time: Duration) -> Result<()> {
        self.swarm.load.away_ms = self.params.away_ms;
        self.swarm.load.start(rates, time);
        self.swarm.run_until(time + OVERTIME, |swarm| swarm.load.is_over())?;
        Ok(())
    }

    /// Does something and notes what the processes used meanwhile.
    pub(super) fn measured(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let own = std::process::id();
        let pss_begin: Vec<u64> = self.processes.iter().map(|process| memory_of(process.pid).pss).collect();
        let counts = self.swarm.tally.counts;
        let cpu: Vec<f64> = self.processes.iter().map(|process| cpu_s(process.pid)).collect();
        // Gateways of the run's own are its children, and not part of it.
        let own_cpu_s = || memory::cpu_s(own).unwrap_or_default();
        let (own_cpu, since) = (own_cpu_s(), Instant::now());
        act(self)?;
        let (own_cpu_s, seconds) = (own_cpu_s() - own_cpu, since.elapsed().as_secs_f64());
        let processes =
            self.processes.iter().zip(&cpu).zip(&pss_begin).map(|((process, cpu), pss_begin)| WindowUse {
                name: process.name.clone(),
                cpu_s: (cpu_s(process.pid) - cpu).max(0.0),
                pss_begin: *pss_begin,
                pss_end: memory_of(process.pid).pss,
            });
        let now = self.swarm.tally.counts;
        self.window = Window {
            seconds,
            sent: now.sent - counts.sent,
            acked: now.acks - counts.acks,
            delivered: now.delivered - counts.delivered,
            own_cpu_s,
            processes: processes.collect(),
        };
        Ok(())
    }

    /// Waits until every send has its answer and every device all events of its chats. What is missing after the
    /// time is the judge's matter.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.step("settle");
        let until = Instant::now() + Duration::from_secs(self.params.settle_s);
        while self.swarm.outstanding() > 0 && Instant::now() < until {
            self.swarm.run_for(LOOK)?;
        }
        // Events that nothing waits for, such as duplicates, come now.
        self.swarm.run_for(Duration::from_millis(500))
    }

    /// Drops all devices but the speakers.
    pub(super) fn drop_all(&mut self) {
        for at in 0..self.swarm.devices.len() {
            if !self.swarm.devices[at].speaker {
                self.swarm.drop_link(at);
                self.swarm.devices[at].by_choice = true;
            }
        }
    }

    /// All that are away come back, at once; returns the seconds until the last is live.
    pub(super) fn resume_all(&mut self) -> Result<f64> {
        // The pace is for the start; a storm has none.
        self.swarm.habits.connects_per_s = 0.0;
        let since = Instant::now();
        for at in 0..self.swarm.devices.len() {
            if self.swarm.devices[at].by_choice {
                self.swarm.come_back(at, Duration::ZERO);
            }
        }
        self.all_live(CONNECT)?;
        Ok(since.elapsed().as_secs_f64())
    }

    /// Lets speakers give each device that number of messages, at the scenario's rate, and waits for the acks.
    pub(super) fn announce(&mut self, each: usize) -> Result<()> {
        let rounds = each.div_ceil(self.params.chats_per_user);
        let total = rounds * self.swarm.judge.chats.len();
        let time = Duration::from_secs_f64(total as f64 / self.params.messages);
        self.load(&[(Action::Announce, self.params.messages)], time)?;
        self.swarm.run_until(Duration::from_secs(self.params.settle_s), |swarm| swarm.judge.open == 0)?;
        Ok(())
    }
}
