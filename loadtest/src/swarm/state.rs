//! The state of the swarm and its parameters. The other files of the room work on it.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use mio::{Events, Poll, Token};
use parking_lot::Mutex;
use rand::{SeedableRng, rngs::SmallRng};

use super::{
    device::Device,
    judge::{Chat, Judge},
    load::Load,
    tally::{Row, Tally},
    timer::Timer,
};
use crate::clock::now_ns;

pub(super) const TIMER: Token = Token(usize::MAX);
/// Events taken from the kernel at a time.
const EVENTS: usize = 1_024;
/// Larger than any frame that a server sends, and large enough to empty a socket's buffer in a read or two.
const READ_BUFFER: usize = 256 * 1_024;
pub(super) const SECOND_NS: u64 = 1_000_000_000;

/// How the devices behave.
#[derive(Debug, Clone)]
pub struct Habits {
    /// New connections per second; zero: as fast as they go.
    pub connects_per_s: f64,
    /// Handshakes at a time. A listener's backlog is finite, and the kernel retries a dropped connection after a
    /// second; the run would then measure the kernel.
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

/// The line that the terminal shows while the swarm runs.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub step: String,
    pub row: Row,
}

/// Something that a device does at a set time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Connect,
    Flush,
    /// Gives up the handshake of that generation.
    Timeout(u32),
}

/// The marks that a device knows of a user in a chat: device, chat and user; read and delivered.
pub(super) type Marks = HashMap<(u32, u64, u64), (u64, u64)>;

/// All devices of a run and everything that is known of them.
pub struct Swarm {
    pub devices: Vec<Device>,
    pub gateways: Vec<Gateway>,
    pub judge: Judge,
    pub tally: Tally,
    pub load: Load,
    pub habits: Habits,
    pub live: u32,
    pub(super) progress: Arc<Mutex<Progress>>,
    pub(super) rng: SmallRng,
    pub(super) poll: Poll,
    pub(super) events: Events,
    pub(super) timer: Timer,
    /// The time to which the timer is set.
    pub(super) armed_ns: u64,
    pub(super) buffer: Vec<u8>,
    pub(super) scratch: Vec<u8>,
    pub(super) due: BinaryHeap<Reverse<(u64, u32, Due)>>,
    pub(super) marks: Marks,
    pub(super) waiting: VecDeque<u32>,
    pub(super) handshakes: usize,
    pub(super) next_connect_ns: u64,
    pub(super) began_ns: u64,
    pub(super) next_row_ns: u64,
    /// Unix time of the clock's zero.
    pub(super) epoch_ms: u64,
    pub(super) text: String,
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
            marks: Marks::new(),
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

    /// Notes something that is due at a time.
    pub(super) fn at(&mut self, at_ns: u64, device: usize, due: Due) {
        self.due.push(Reverse((at_ns, device as u32, due)));
    }

    /// Names the step that begins, for the terminal.
    pub fn step(&self, step: &str) {
        step.clone_into(&mut self.progress.lock().step);
    }

    /// Seconds since the swarm began: the charts' time.
    pub fn at_s(&self) -> f64 {
        (now_ns() - self.began_ns) as f64 / SECOND_NS as f64
    }
}
