//! Connections: the queue for them, the upgrade, reading and writing, and the end.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    time::Duration,
};

use mio::{Interest, Token, net::TcpStream};
use rand::Rng;
use socket2::{Domain, Socket, Type};

use super::{
    device::{Link, Phase},
    state::{Due, Gateway, Swarm},
    wire,
};
use crate::{client::socket::source_of, clock::now_ns, oracle::Breach};

/// A handshake that takes longer has failed.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// Refused connections are tried again with growing pauses up to this.
const LONGEST_PAUSE_MS: u64 = 2_000;

impl Swarm {
    /// Tells a device to connect after that time.
    pub fn come_back(&mut self, at: usize, after: Duration) {
        let now = now_ns();
        let due = now + after.as_nanos() as u64;
        let device = &mut self.devices[at];
        if device.resume_from_ns == 0 {
            device.resume_from_ns = due;
        }
        self.at(due, at, Due::Connect);
    }

    /// Puts a device into the queue for a connection.
    pub fn queue(&mut self, at: usize) {
        let device = &mut self.devices[at];
        if device.phase == Phase::Away {
            device.phase = Phase::Waiting;
            self.waiting.push_back(at as u32);
        }
    }

    pub(super) fn start_connects(&mut self, now: u64) {
        let between_ns =
            if self.habits.connects_per_s > 0.0 { (1e9 / self.habits.connects_per_s) as u64 } else { 0 };
        while self.handshakes < self.habits.handshakes && self.next_connect_ns <= now {
            let Some(at) = self.waiting.pop_front() else { return };
            // A pause of the queue is no credit for a burst.
            self.next_connect_ns = self.next_connect_ns.max(now.saturating_sub(between_ns)) + between_ns;
            self.connect(at as usize, now);
        }
    }

    fn connect(&mut self, at: usize, now: u64) {
        let device = &mut self.devices[at];
        if device.phase != Phase::Waiting {
            return;
        }
        let Some(gateway) = next_up(&self.gateways, device.gateway) else {
            device.phase = Phase::Away;
            return self.come_back(at, Duration::from_millis(LONGEST_PAUSE_MS));
        };
        device.gateway = gateway;
        device.generation += 1;
        let generation = device.generation;
        let opened = open(self.gateways[gateway].address, at).and_then(|mut stream| {
            self.poll.registry().register(&mut stream, Token(at), Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        self.devices[at].phase = Phase::Connecting;
        self.handshakes += 1;
        match opened {
            Ok(stream) => {
                self.devices[at].link = Some(Link { stream, rest: Vec::new(), unsent: Vec::new() });
                self.at(now + HANDSHAKE.as_nanos() as u64, at, Due::Timeout(generation));
            }
            Err(_) => self.lose(at, true),
        }
    }

    pub(super) fn time_out(&mut self, at: usize, generation: u32) {
        let device = &self.devices[at];
        if device.generation == generation && device.phase.is_handshake() {
            self.lose(at, true);
        }
    }

    pub(super) fn writable(&mut self, at: usize) {
        let Some(link) = &self.devices[at].link else { return };
        if self.devices[at].phase == Phase::Connecting {
            match link.stream.take_error() {
                Ok(None) if link.stream.peer_addr().is_ok() => self.upgrade(at),
                // Not there yet.
                Ok(None) => {}
                _ => self.lose(at, true),
            }
        } else {
            self.write(at, &[]);
        }
    }

    fn upgrade(&mut self, at: usize) {
        let device = &mut self.devices[at];
        device.phase = Phase::Upgrading;
        let host = &self.gateways[device.gateway].host;
        let cursor = String::from_utf8_lossy(&device.cursor);
        let cursor = if cursor.is_empty() { String::new() } else { format!("&cursor={cursor}") };
        let request = format!(
            "GET /v1/ws?token={}&device=load{cursor} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bG9hZHRlc3RzIHN3YXJtIQ==\r\n\r\n",
            device.token
        );
        self.write(at, request.as_bytes());
    }

    /// Sends bytes, behind those that still wait.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        let Some(link) = &mut self.devices[at].link else { return };
        if !link.unsent.is_empty() {
            link.unsent.extend_from_slice(bytes);
        }
        let queued = std::mem::take(&mut link.unsent);
        let bytes = if queued.is_empty() { bytes } else { &queued };
        if bytes.is_empty() {
            return;
        }
        self.tally.counts.writes += 1;
        match link.stream.write(bytes) {
            Ok(written) => link.unsent = bytes[written..].to_vec(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => link.unsent = bytes.to_vec(),
            Err(_) => self.lose(at, false),
        }
    }

    pub(super) fn readable(&mut self, at: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while self.read(at, &mut buffer) {}
        self.buffer = buffer;
    }

    /// One read and what it brought; whether there may be more.
    fn read(&mut self, at: usize, buffer: &mut [u8]) -> bool {
        let Some(link) = &mut self.devices[at].link else { return false };
        let had = link.rest.len();
        buffer[..had].copy_from_slice(&link.rest);
        self.tally.counts.reads += 1;
        let got = match link.stream.read(&mut buffer[had..]) {
            Ok(0) => {
                self.lose(at, self.devices[at].phase.is_handshake());
                return false;
            }
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(_) => {
                self.lose(at, self.devices[at].phase.is_handshake());
                return false;
            }
        };
        self.tally.counts.bytes_in += got as u64;
        let filled = &buffer[..had + got];
        let taken = self.take_all(at, filled);
        let Some(link) = &mut self.devices[at].link else { return false };
        link.rest.clear();
        link.rest.extend_from_slice(&filled[taken..]);
        had + got == buffer.len() && taken > 0
    }

    /// Takes all complete units at the buffer's start and returns their length.
    fn take_all(&mut self, at: usize, filled: &[u8]) -> usize {
        let mut taken = 0;
        if self.devices[at].phase.is_handshake() {
            let Some(end) = filled.windows(4).position(|four| four == b"\r\n\r\n") else { return 0 };
            if !filled.starts_with(b"HTTP/1.1 101") {
                self.refused(at, filled);
                return 0;
            }
            taken = end + 4;
            self.upgraded(at);
        }
        while self.devices[at].link.is_some() {
            match wire::first(&filled[taken..]) {
                Ok(Some(frame)) => {
                    self.receive(at, frame.opcode, frame.payload);
                    taken += frame.len;
                }
                Ok(None) => break,
                Err(error) => {
                    self.judge.breaches.add(Breach::Protocol, || format!("device {at}: {error}"));
                    self.lose(at, false);
                }
            }
        }
        taken
    }

    fn upgraded(&mut self, at: usize) {
        self.handshakes -= 1;
        self.tally.counts.connects += 1;
        let device = &mut self.devices[at];
        device.phase = Phase::Replaying;
        device.failures = 0;
    }

    fn refused(&mut self, at: usize, answer: &[u8]) {
        let text = String::from_utf8_lossy(&answer[..answer.len().min(400)]);
        let status: u16 =
            text.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        if !matches!(status, 429 | 500..) {
            self.judge.breaches.add(Breach::Protocol, || format!("device {at}: upgrade refused: {text}"));
        }
        self.lose(at, true);
    }

    /// The connection is gone. The device comes back by itself.
    pub(super) fn lose(&mut self, at: usize, failed: bool) {
        self.drop_link(at);
        let device = &mut self.devices[at];
        device.gateway += 1;
        let mut longest_ms = self.habits.back_ms;
        if failed {
            device.failures += 1;
            self.tally.counts.refused_connects += 1;
            longest_ms = (longest_ms << device.failures.min(8)).min(LONGEST_PAUSE_MS);
        } else {
            self.tally.counts.closed += 1;
        }
        let pause_ms = self.rng.random_range(0..=longest_ms.max(1));
        self.come_back(at, Duration::from_millis(pause_ms));
    }

    /// Drops the connection without a word, as a phone in a tunnel does.
    pub fn drop_link(&mut self, at: usize) {
        let device = &mut self.devices[at];
        if device.phase.is_handshake() {
            self.handshakes -= 1;
        }
        if device.phase == Phase::Live {
            self.live -= 1;
        }
        // Closing the descriptor also ends its registration.
        device.link = None;
        device.phase = Phase::Away;
        device.in_flight = 0;
        for pending in &mut device.pending {
            pending.out = false;
        }
    }
}

/// The next gateway that is up, from that one on.
fn next_up(gateways: &[Gateway], from: usize) -> Option<usize> {
    (0..gateways.len()).map(|step| (from + step) % gateways.len()).find(|at| gateways[*at].up)
}

fn open(address: SocketAddr, at: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if address.ip().is_loopback() && address.is_ipv4() {
        socket.bind(&SocketAddr::new(source_of(at), 0).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            Err(error)
        }
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}
