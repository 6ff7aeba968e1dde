//! The state of one device: a few hundred bytes, so that ten thousand devices fit into the CPU's cache.

use std::collections::VecDeque;

use mio::net::TcpStream;

/// The phase of a device's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Without a connection, and none is asked for.
    Away,
    /// In the queue for a connection.
    Waiting,
    Connecting,
    /// The upgrade is asked for.
    Upgrading,
    /// Between the upgrade and the first `Live`.
    Replaying,
    /// Fed from the log for a while.
    Lagging,
    Live,
}

impl Phase {
    pub const fn is_handshake(self) -> bool {
        matches!(self, Self::Connecting | Self::Upgrading)
    }
}

/// The place of a device in a chat.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    pub chat: u64,
    /// The chat's place in the judge's list.
    pub at: u32,
    /// The last sequence that the device got.
    pub seq: u64,
}

/// A command without a final answer.
#[derive(Debug)]
pub struct Pending {
    pub number: u32,
    pub frame: Box<[u8]>,
    pub attempts: u32,
    /// It is on its way over the current connection.
    pub out: bool,
    pub not_before_ns: u64,
}

/// An open connection.
#[derive(Debug)]
pub struct Link {
    pub stream: TcpStream,
    /// The begin of a frame whose end has not come.
    pub rest: Vec<u8>,
    /// Bytes that the kernel did not take yet.
    pub unsent: Vec<u8>,
}

/// Frames that a device got beside the durable ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct Signals {
    pub receipts: u32,
    pub presence: u32,
    pub typing: u32,
}

#[derive(Debug)]
pub struct Device {
    pub user: u64,
    pub token: Box<str>,
    /// The gateway that it connects to next.
    pub gateway: usize,
    pub phase: Phase,
    pub link: Option<Link>,
    /// Ascending by chat.
    pub heads: Vec<Head>,
    pub cursor: Vec<u8>,
    pub pending: VecDeque<Pending>,
    pub in_flight: u32,
    pub signals: Signals,
    /// The scenario dropped it, so its latencies say nothing about the server.
    pub by_choice: bool,
    /// Speakers only send and never drop.
    pub speaker: bool,
    /// Failed attempts to connect in a row.
    pub failures: u32,
    /// Counts connections, so that a timeout of an old one is not taken for the current one's.
    pub generation: u32,
    /// When it was told to come back; zero once it is live.
    pub resume_from_ns: u64,
}

impl Device {
    pub fn new(user: u64, token: &str, gateway: usize, speaker: bool) -> Self {
        Self {
            user,
            token: token.into(),
            gateway,
            phase: Phase::Away,
            link: None,
            heads: Vec::new(),
            cursor: Vec::new(),
            pending: VecDeque::new(),
            in_flight: 0,
            signals: Signals::default(),
            by_choice: false,
            speaker,
            failures: 0,
            generation: 0,
            resume_from_ns: 0,
        }
    }

    pub fn head_mut(&mut self, chat: u64) -> Option<&mut Head> {
        let at = self.heads.binary_search_by_key(&chat, |head| head.chat).ok()?;
        self.heads.get_mut(at)
    }
}
