//! The swarm: ten thousand devices in one thread.
//!
//! Owns the sockets and one event loop. A scenario runs on the same thread and calls [`Swarm::run_until`] between its
//! steps, so nothing is shared and nothing is locked. A clock fires the sends, whatever the server does, and each send
//! is timed from the moment that the clock meant. There is no task per device, no parsed tree per frame and no timer
//! per device, because the cost of the generator would be part of every figure.
//!
//! Files from the top: this loop; what devices do (`actions`) and what comes in (`frames`, `signals`); `commands`;
//! `link`; the `state` of all; and its parts `judge`, `tally`, `load`, `device`, `timer`, `wire`.

mod actions;
mod commands;
mod device;
mod frames;
pub mod judge;
mod link;
mod load;
mod signals;
mod state;
mod tally;
#[cfg(test)]
mod tests;
mod timer;
mod wire;

use std::{cmp::Reverse, time::Duration};

use anyhow::Result;
use mio::{Events, Token};

use self::state::{Due, SECOND_NS, TIMER};
pub use self::{
    device::{Device, Head, Phase},
    judge::{Chat, Judge},
    load::{Action, Load},
    state::{Gateway, Habits, Progress, Swarm},
    tally::{Counts, Row, Tally},
};
use crate::{clock::now_ns, oracle::Breach};

impl Swarm {
    /// Runs until the condition holds; `false` if the time was over before. The condition is asked once per turn.
    ///
    /// # Errors
    /// When the poll fails.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Result<bool> {
        let end_ns = now_ns() + limit.as_nanos() as u64;
        loop {
            if done(self) {
                return Ok(true);
            }
            if now_ns() >= end_ns {
                return Ok(false);
            }
            self.turn(end_ns)?;
        }
    }

    /// Runs for that time.
    ///
    /// # Errors
    /// When the poll fails.
    pub fn run_for(&mut self, time: Duration) -> Result<()> {
        self.run_until(time, |_| false).map(drop)
    }

    fn turn(&mut self, end_ns: u64) -> Result<()> {
        let now = now_ns();
        let wake = self.wake_ns(end_ns);
        if wake > now {
            if self.armed_ns != wake {
                self.timer.set(wake - now)?;
                self.armed_ns = wake;
            }
            self.wait(None)?;
        } else {
            self.wait(Some(Duration::ZERO))?;
        }
        self.handle_events();
        let now = now_ns();
        self.fire_due(now);
        self.fire_load(now);
        self.start_connects(now);
        self.roll(now);
        Ok(())
    }

    fn wait(&mut self, limit: Option<Duration>) -> Result<()> {
        match self.poll.poll(&mut self.events, limit) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The next time at which the swarm must act, even if no socket wakes it.
    fn wake_ns(&self, end_ns: u64) -> u64 {
        let due = self.due.peek().map_or(u64::MAX, |Reverse((at, ..))| *at);
        let may_connect = !self.waiting.is_empty() && self.handshakes < self.habits.handshakes;
        let connect = if may_connect { self.next_connect_ns } else { u64::MAX };
        end_ns.min(due).min(connect).min(self.next_row_ns).min(self.load.next_ns())
    }

    fn handle_events(&mut self) {
        // Taken out because handling an event needs all of the swarm.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                TIMER => self.armed_ns = 0,
                Token(at) => {
                    if event.is_writable() {
                        self.writable(at);
                    }
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        self.readable(at);
                    }
                }
            }
        }
        self.events = events;
    }

    fn fire_due(&mut self, now: u64) {
        while let Some(Reverse((at, device, due))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            match due {
                Due::Connect => self.queue(device as usize),
                Due::Flush => self.flush(device as usize),
                Due::Timeout(generation) => self.time_out(device as usize, generation),
            }
        }
    }

    fn roll(&mut self, now: u64) {
        while now >= self.next_row_ns {
            let at_s = (self.next_row_ns - self.began_ns) as f64 / SECOND_NS as f64;
            let row = self.tally.roll(at_s, self.live);
            self.progress.lock().row = row;
            self.next_row_ns += SECOND_NS;
        }
    }

    /// Names every chat's event that a device lacks at the end as lost.
    pub fn judge_heads(&mut self) {
        for (at, device) in self.devices.iter().enumerate() {
            for head in &device.heads {
                let last = self.judge.chats[head.at as usize].head();
                if head.seq < last {
                    let (chat, seq, phase) = (head.chat, head.seq, device.phase);
                    self.judge.breaches.add(Breach::Lost, || {
                        format!(
                            "device {at} ({phase:?}), chat {chat}: got up to {seq}, the chat is at {last}"
                        )
                    });
                }
            }
        }
    }

    /// Devices that lack an event of a chat, and chats' events that they lack: zero means that all have arrived.
    pub fn outstanding(&self) -> u64 {
        let behind = |device: &Device| {
            let lacks = |head: &&Head| head.seq < self.judge.chats[head.at as usize].head();
            device.heads.iter().filter(lacks).count() as u64
        };
        self.judge.open + self.devices.iter().map(behind).sum::<u64>()
    }
}
