//! The course of a run, on the swarm's thread: connect, run the scenario's own steps, settle, judge.
//!
//! Each course is a file of its own, made of the common steps in `steps`. Files from the top: `course.rs`; `ceiling`,
//! `deploy`, `idle`, `steady`, `storm`; `steps`; `fleet`; `http`.

pub mod fleet;

mod ceiling;
mod deploy;
mod http;
mod idle;
mod steady;
mod steps;
mod storm;

use anyhow::Result;

use self::fleet::Fleet;
pub use self::steps::Course;
use crate::{
    measure::window::{Figure, Window},
    params,
    swarm::Swarm,
};

/// The state at the end of a course.
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

impl Course {
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
}
