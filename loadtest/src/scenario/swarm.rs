//! The swarm: ten thousand devices in one thread.
//!
//! Owns the sockets and one event loop. A scenario runs on the same thread and calls [`Swarm::run_until`] between its
//! steps, so nothing is shared and nothing is locked. Sends are fired by a clock, whatever the server does, and each
//! is timed from the moment that the clock meant. A task per device, a parse per frame and a timer per device are
//! what this avoids: its own cost would be part of every figure.

mod device;
mod give;
pub mod judge;
mod link;
mod load;
mod signals;
mod take;
mod tally;
#[cfg(test)]
mod tests;
mod timer;
mod wire;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use mio::{Events, Poll, Token};
use parking_lot::Mutex;
use rand::{SeedableRng, rngs::SmallRng};

use self::timer::Timer;
pub use self::{
    device::{Device, Head, Phase},
    judge::{Chat, Judge},
    load::{Action, Load},
    tally::{Counts, Row, Tally},
};
use crate::{clock::now_ns, oracle::Breach};

const TIMER: Token = Token(usize::MAX);
/// Events taken from the kernel at a time.
const EVENTS: usize = 1_024;
/// Larger than any frame that a server sends, and large enough to empty a socket's buffer in a read or two.
const READ_BUFFER: usize = 256 * 1_024;
const SECOND_NS: u64 = 1_000_000_000;

/// How the swarm behaves.
#[derive(Debug, Clone)]
pub struct Habits {
    /// New connections per second; zero: as fast as they go.
    pub connects_per_s: f64,
    /// Handshakes at a time. A listener's backlog is finite, and what it drops is retried by the kernel after a
    /// second: that would measure the kernel.
    pub handshakes: usize,
    /// A device that lost its connection comes back within this time (full jitter).
    pub back_ms: u64,
    /// Commands that a session may have in flight.
    pub in_flight: u32,
    /// Users whose presence each device watches.
    pub watch: usize,
    /// Bytes of text in a message.
    pub body_bytes: usize,
    pub seed: u64,
}

/// A gateway that devices connect to.
#[derive(Debug, Clone)]
pub struct Gateway {
    pub host: String,
    pub address: SocketAddr,
    pub up: bool,
}

impl Gateway {
    /// From `http://host:port`.
    ///
    /// # Errors
    /// When the host has no address.
    pub fn resolve(url: &str) -> Result<Self> {
        let host = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let mut addresses = host.to_socket_addrs().with_context(|| format!("resolve {host}"))?;
        let address = addresses.next().with_context(|| format!("no address for {host}"))?;
        Ok(Self { host, address, up: true })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }
}

/// What the terminal shows while the swarm runs.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub step: String,
    pub row: Row,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Connect,
    Flush,
    /// The handshake of that generation should be over.
    Timeout(u32),
}

pub struct Swarm {
    pub devices: Vec<Device>,
    pub gateways: Vec<Gateway>,
    pub judge: Judge,
    pub tally: Tally,
    pub load: Load,
    pub habits: Habits,
    pub live: u32,
    progress: Arc<Mutex<Progress>>,
    rng: SmallRng,
    poll: Poll,
    events: Events,
    timer: Timer,
    /// What the timer is set to.
    armed_ns: u64,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    due: BinaryHeap<Reverse<(u64, u32, Due)>>,
    marks: signals::Marks,
    waiting: VecDeque<u32>,
    handshakes: usize,
    next_connect_ns: u64,
    began_ns: u64,
    next_row_ns: u64,
    /// Unix time of the clock's zero.
    epoch_ms: u64,
    text: String,
}

impl Swarm {
    /// # Errors
    /// When the kernel gives no poll or timer.
    pub fn new(
        devices: Vec<Device>,
        chats: Vec<Chat>,
        gateways: Vec<Gateway>,
        habits: Habits,
        progress: Arc<Mutex<Progress>>,
    ) -> Result<Self> {
        let poll = Poll::new()?;
        let timer = Timer::new(poll.registry(), TIMER)?;
        let now = now_ns();
        let unix_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        Ok(Self {
            judge: Judge::new(chats, unix_ms ^ u64::from(std::process::id())),
            tally: Tally::default(),
            load: Load::default(),
            live: 0,
            progress,
            rng: SmallRng::seed_from_u64(habits.seed),
            poll,
            events: Events::with_capacity(EVENTS),
            timer,
            armed_ns: 0,
            buffer: vec![0; READ_BUFFER],
            scratch: Vec::new(),
            due: BinaryHeap::new(),
            marks: signals::Marks::new(),
            waiting: VecDeque::new(),
            handshakes: 0,
            next_connect_ns: 0,
            began_ns: now,
            next_row_ns: now + SECOND_NS,
            epoch_ms: unix_ms - now / 1_000_000,
            text: "x".repeat(habits.body_bytes),
            devices,
            gateways,
            habits,
        })
    }

    /// Names what happens now, for the terminal.
    pub fn step(&self, step: &str) {
        step.clone_into(&mut self.progress.lock().step);
    }

    /// Seconds since the swarm began: the charts' time.
    pub fn at_s(&self) -> f64 {
        (now_ns() - self.began_ns) as f64 / SECOND_NS as f64
    }

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

    /// When something must happen whether or not a socket wakes us.
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

    fn at(&mut self, at_ns: u64, device: usize, due: Due) {
        self.due.push(Reverse((at_ns, device as u32, due)));
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
