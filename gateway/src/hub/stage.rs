//! For tests: a hub, a log that feeds it and devices that listen to it, without a socket, a server or a database.
//!
//! - [`Log`] makes entries and knows the whole history. From it come the states that a loader would have read from
//!   the projection, and the events that a user is entitled to, which tests compare with what a device got.
//! - [`Stage`] is a hub that is fed from such a log.
//! - [`Device`] is the client of one session. It reads the session's outbox as a socket would, decodes the frames
//!   and applies them by the rules of docs/protocol.md. It panics at a gap.
//!
//! Chats and users are plain numbers here; sequences begin at 1.

mod device;
mod facts;
mod log;

use std::sync::Arc;

use clap::Parser;
use prometheus_client::registry::Registry;
use shared::{
    cursor::{Cursor, Sealer},
    event::Fact,
    id::{ChatId, Position, Seq, UserId},
};
use streams::Entry;
use uuid::Uuid;

pub(crate) use self::{
    device::{Device, in_short},
    facts::*,
    log::Log,
};
use super::{
    Hub,
    attach::{Attached, Step},
};
use crate::{
    infra::{clock::Clock, metrics::Metrics},
    session::{Identity, Session, settings::SessionSettings, wire::Encoding},
};

pub(crate) fn user(id: u64) -> UserId {
    UserId::new(id).unwrap()
}

pub(crate) fn chat(id: u64) -> ChatId {
    ChatId::new(id).unwrap()
}

/// A ring that holds whatever a test puts into it.
const LARGE_RING: usize = 8 << 20;

/// A hub that serves, and the log that it follows.
pub(crate) struct Stage {
    pub(crate) hub: Arc<Hub>,
    pub(crate) log: Log,
    /// Of the sessions that are made from now on.
    pub(crate) settings: SessionSettings,
}

impl Stage {
    /// A hub at the beginning of an empty log.
    pub(crate) fn new() -> Self {
        Self::with_ring(LARGE_RING)
    }

    /// The same with a ring of so many bytes.
    pub(crate) fn with_ring(bytes: usize) -> Self {
        let metrics = Arc::new(Metrics::new(&mut Registry::default()));
        let hub = Arc::new(Hub::new(bytes, Clock::start(), Sealer::new(&[7; 32]), metrics));
        hub.begin(Position::default(), 0);
        hub.open();
        Self { hub, log: Log::default(), settings: settings() }
    }

    /// A hub with group 1, which these users founded, the first as its owner. All of them are loaded.
    pub(crate) fn with_group(members: &[u64]) -> Self {
        let mut stage = Self::new();
        stage.append(1, members[0], created(members));
        for member in members {
            stage.load_user(*member);
        }
        stage
    }

    /// Appends an event to the log and lets the hub apply it.
    pub(crate) fn append(&mut self, chat: u64, actor: u64, fact: Fact) -> Seq {
        let entry = self.log.append(chat, actor, fact);
        self.apply(&entry)
    }

    /// Lets the hub apply an entry that the log made.
    pub(crate) fn apply(&self, entry: &Entry) -> Seq {
        self.hub.apply(std::slice::from_ref(entry)).unwrap();
        entry.seq
    }

    /// Installs the chat, as of the hub's position.
    pub(crate) fn load_chat(&self, id: u64) {
        let pin = self.hub.pin();
        let loaded = self.log.chat(chat(id), self.hub.position(), pin.floor);
        self.hub.install_chat(loaded, pin.epoch).unwrap();
    }

    /// Installs the user and all their chats, as of the hub's position.
    pub(crate) fn load_user(&self, id: u64) {
        let pin = self.hub.pin();
        let loaded = self.log.user(user(id), self.hub.position());
        for chat in self.hub.missing(loaded.intervals.iter().map(|interval| interval.chat)) {
            let loaded = self.log.chat(chat, self.hub.position(), pin.floor);
            self.hub.install_chat(loaded, pin.epoch).unwrap();
        }
        self.hub.install_user(&loaded, pin.epoch).unwrap();
    }

    /// A session that is not attached yet.
    pub(crate) fn session(&self, id: u64) -> Arc<Session> {
        let (device, encoding) = ("web".into(), Encoding::Json);
        let identity = Identity { user: user(id), family: Uuid::nil(), device, encoding };
        Arc::new(Session::new(identity, u64::MAX, &self.settings, self.hub.clock.now_ms()))
    }

    /// A device that has what its user is entitled to up to `upto`. Its session is not attached yet.
    pub(crate) fn device(&self, id: u64, upto: Seq) -> Device {
        Device::new(self.session(id), self.log.entitled(user(id), upto))
    }

    /// A device that wants only what comes. It is live, and has read its `Live`.
    pub(crate) fn connect(&self, id: u64) -> Device {
        let mut device = self.device(id, self.hub.position());
        assert_eq!(self.hub.attach(&device.session, None), Attached::Live);
        assert_eq!(device.hears(), ["Live"]);
        device
    }

    /// A device that comes back with the cursor of a position.
    pub(crate) fn resume(&self, id: u64, from: Seq) -> (Device, Attached) {
        let device = self.device(id, from);
        let attached = self.hub.attach(&device.session, Some(self.cursor(from)));
        (device, attached)
    }

    /// The cursor of a position, in the hub's epoch.
    pub(crate) fn cursor(&self, seq: Seq) -> Cursor {
        Cursor { epoch: self.hub.epoch(), position: self.log.position(seq) }
    }

    /// What a device's last cursor says.
    pub(crate) fn opened(&self, device: &Device) -> Option<Cursor> {
        device.cursor.as_ref().map(|text| self.hub.sealer.open(device.session.user(), text).unwrap())
    }

    /// Feeds a session as its catch-up does, while its device reads, until no more comes from the ring.
    pub(crate) fn catch_up(&self, device: &mut Device) -> Step {
        loop {
            device.hears();
            match self.hub.advance(&device.session) {
                Step::More => {}
                step => return step,
            }
        }
    }

    /// The log loses all above `seq`, and the hub learns of it. The sessions that are to be attached again.
    pub(crate) fn lose_tail(&mut self, seq: Seq) -> Vec<Arc<Session>> {
        let cut = self.log.cut(seq);
        self.hub.cut(cut, self.hub.epoch() + 1)
    }
}

/// As a gateway has them that is told nothing.
pub(crate) fn settings() -> SessionSettings {
    #[derive(Parser)]
    struct Defaults {
        #[command(flatten)]
        session: SessionSettings,
    }
    Defaults::parse_from(["test"]).session
}
