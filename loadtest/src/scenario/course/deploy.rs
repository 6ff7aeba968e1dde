//! A rolling deployment: each gateway is replaced by a new one under load. Its devices reconnect; no promise breaks.

use std::{
    sync::mpsc::{Receiver, TryRecvError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    fleet::{Fleet, Own},
    steps::{Course, LOOK},
};
use crate::swarm::Gateway;

/// The pause between two replacements.
const PAUSE: Duration = Duration::from_secs(2);

/// A message from the replacing thread to the swarm.
enum News {
    /// Ready after that time.
    Up(String, Duration),
    /// Drains from now on.
    Draining(usize),
    Gone(Duration),
}

impl Course {
    pub(super) fn deploy(&mut self) -> Result<()> {
        let fleet = self.fleet.take().context("no gateways to replace")?;
        self.processes.retain(|process| !process.name.starts_with("gateway"));
        self.connect()?;
        let rates = self.params.rates();
        self.step("warm-up");
        self.load(&rates, Duration::from_secs(self.params.warmup_s))?;
        self.step("deploy");
        // The replacement ends the load; its length is not known before.
        let time = Duration::from_secs(self.params.seconds.max(600));
        self.measured(|course| {
            course.swarm.load.start(&rates, time);
            let load = &course.swarm.load;
            course.swarm.tally.window = load.start_ns()..load.end_ns();
            let kept = course.replace_all(fleet)?;
            course.step("after");
            course.swarm.run_for(Duration::from_secs(course.params.warmup_s))?;
            course.swarm.load.stop();
            // The new ones are needed until the histories are read.
            course.fleet = Some(kept);
            Ok(())
        })
    }

    fn replace_all(&mut self, fleet: Fleet) -> Result<Fleet> {
        // Replacing waits for processes; the swarm must not.
        let (tell, news) = sync_channel(16);
        let task =
            thread::spawn(move || replace(fleet, &|what| tell.send(what).context("the swarm is gone")));
        self.follow(&news)?;
        match task.join() {
            Ok(fleet) => fleet,
            Err(_) => bail!("the replacement failed"),
        }
    }

    fn follow(&mut self, news: &Receiver<News>) -> Result<()> {
        loop {
            self.swarm.run_for(LOOK)?;
            match news.try_recv() {
                Ok(News::Up(url, took)) => {
                    self.swarm.gateways.push(Gateway::resolve(&url)?);
                    self.figure("start to ready", took.as_secs_f64() * 1e3, "ms");
                }
                Ok(News::Draining(at)) => {
                    self.swarm.gateways[at].up = false;
                    self.step(&format!("drain {}", at + 1));
                }
                Ok(News::Gone(time)) => self.figure("drain took", time.as_secs_f64() * 1e3, "ms"),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }
}

fn replace(mut fleet: Fleet, tell: &dyn Fn(News) -> Result<()>) -> Result<Fleet> {
    let old: Vec<Own> = std::mem::take(&mut fleet.gateways);
    for (at, mut own) in old.into_iter().enumerate() {
        let since = Instant::now();
        let new = fleet.spawn()?;
        tell(News::Up(new.url.clone(), since.elapsed()))?;
        fleet.gateways.push(new);
        own.terminate()?;
        tell(News::Draining(at))?;
        let took = own.wait()?;
        tell(News::Gone(took))?;
        thread::sleep(PAUSE);
    }
    Ok(fleet)
}
