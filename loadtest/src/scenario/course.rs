//! The course of a run, on the swarm's thread: connect, do what the scenario is about, settle, judge.

pub mod fleet;

mod ceiling;
mod deploy;
mod idle;
mod steady;
mod storm;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use self::fleet::Fleet;
use super::{
    params::{self, Params},
    swarm::{Action, Swarm},
};
use crate::{
    measure::{Watched, cpu_s, memory_of},
    memory,
    report::outcome::Figure,
    target::Target,
};

/// How long all devices may take to be live.
const CONNECT: Duration = Duration::from_secs(180);
/// What an overloaded generator may need to fire what was due.
const OVERTIME: Duration = Duration::from_secs(10);
/// Between two looks at something that costs a walk over all devices.
const LOOK: Duration = Duration::from_millis(50);

/// What was used and done between two moments.
#[derive(Debug, Default)]
pub struct Window {
    pub seconds: f64,
    pub sent: u64,
    pub acked: u64,
    pub delivered: u64,
    pub own_cpu_s: f64,
    pub processes: Vec<WindowUse>,
}

#[derive(Debug)]
pub struct WindowUse {
    pub name: String,
    pub cpu_s: f64,
    pub pss_begin: u64,
    pub pss_end: u64,
}

/// What a course leaves behind.
pub struct Finished {
    pub swarm: Swarm,
    pub window: Window,
    pub figures: Vec<Figure>,
    pub steps: Vec<(f64, String)>,
    /// The run's own gateways live as long as this.
    pub fleet: Option<Fleet>,
}

impl Finished {
    /// Gateways that are up.
    pub fn urls(&self) -> Vec<String> {
        self.swarm.gateways.iter().filter(|gateway| gateway.up).map(|gateway| gateway.url()).collect()
    }
}

/// See the module.
pub struct Course {
    params: Params,
    swarm: Swarm,
    processes: Vec<Watched>,
    target: Target,
    fleet: Option<Fleet>,
    window: Window,
    figures: Vec<Figure>,
    steps: Vec<(f64, String)>,
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

    /// From the first connection to the judgement.
    ///
    /// # Errors
    /// When the product is not there or a step is not finished in time.
    pub fn run(mut self) -> Result<Finished> {
        match self.params.course {
            params::Course::Steady => self.steady()?,
            params::Course::Idle => self.idle()?,
            params::Course::Storm => self.storm()?,
            params::Course::Ceiling => self.ceiling()?,
            params::Course::Deploy => self.deploy()?,
        }
        self.settle()?;
        self.swarm.judge_heads();
        self.swarm.judge.close();
        let Self { swarm, window, figures, steps, fleet, .. } = self;
        Ok(Finished { swarm, window, figures, steps, fleet })
    }

    fn step(&mut self, name: &str) {
        self.swarm.step(name);
        self.steps.push((self.swarm.at_s(), name.to_owned()));
    }

    fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit });
    }

    /// Connects all devices and waits until they are live.
    fn connect(&mut self) -> Result<()> {
        self.step("connect");
        for at in 0..self.swarm.devices.len() {
            self.swarm.queue(at);
        }
        self.all_live(CONNECT)
    }

    fn all_live(&mut self, limit: Duration) -> Result<()> {
        let all = self.swarm.devices.len() as u32;
        let done = self.swarm.run_until(limit, |swarm| swarm.live == all)?;
        let (live, counts) = (self.swarm.live, &self.swarm.tally.counts);
        ensure!(done, "{live} of {all} devices are live after {limit:?}: {counts:?}");
        Ok(())
    }

    /// Fires that load for that time.
    fn load(&mut self, rates: &[(Action, f64)], time: Duration) -> Result<()> {
        self.swarm.load.away_ms = self.params.away_ms;
        self.swarm.load.start(rates, time);
        self.swarm.run_until(time + OVERTIME, |swarm| swarm.load.is_over())?;
        Ok(())
    }

    /// Does something and notes what the processes used meanwhile.
    fn measured(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
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
    fn settle(&mut self) -> Result<()> {
        self.step("settle");
        let until = Instant::now() + Duration::from_secs(self.params.settle_s);
        while self.swarm.outstanding() > 0 && Instant::now() < until {
            self.swarm.run_for(LOOK)?;
        }
        // What comes in excess comes now.
        self.swarm.run_for(Duration::from_millis(500))
    }

    /// Drops all devices but the speakers.
    fn drop_all(&mut self) {
        for at in 0..self.swarm.devices.len() {
            if !self.swarm.devices[at].speaker {
                self.swarm.drop_link(at);
                self.swarm.devices[at].by_choice = true;
            }
        }
    }

    /// All that are away come back, at once; returns the seconds until the last is live.
    fn resume_all(&mut self) -> Result<f64> {
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
    fn announce(&mut self, each: usize) -> Result<()> {
        let rounds = each.div_ceil(self.params.chats_per_user);
        let total = rounds * self.swarm.judge.chats.len();
        let time = Duration::from_secs_f64(total as f64 / self.params.messages);
        self.load(&[(Action::Announce, self.params.messages)], time)?;
        self.swarm.run_until(Duration::from_secs(self.params.settle_s), |swarm| swarm.judge.open == 0)?;
        Ok(())
    }
}
