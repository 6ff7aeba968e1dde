//! The events that one device got, and the promises that a device can check alone: rising order, no duplicate, an
//! unbroken `prev` chain across resumes, `Live.replayed` as counted.
//!
//! A device may hold events that its last cursor does not cover; after a resume they come again. Each chat therefore
//! has two heads: the last event that was delivered, and the last event that the cursor covers. A resume goes on from
//! the second.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::breach::{Breach, Violation};
use crate::frame::{Change, Durable, Incoming, Kind};

/// A durable event as delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) seq: u64,
    pub(crate) prev: u64,
    pub(crate) from: u64,
    pub(crate) kind: Kind,
    pub(crate) uuid: Uuid,
    pub(crate) body: u64,
    pub(crate) effect: Effect,
}

/// The effect of an event, as far as the checker must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    Joined(Box<[u64]>),
    Left(u64),
    Deleted(u64),
}

/// The record of one device, with the breaches that the device saw itself.
#[derive(Debug)]
pub struct DeviceLog {
    pub user: u64,
    pub label: String,
    received: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    chats: HashMap<u64, Chat>,
    /// Chats with events that the last cursor does not cover.
    uncovered: Vec<u64>,
    violations: Vec<Violation>,
    /// When the device first became live with an unbroken chain since.
    baseline: Option<u64>,
    with_cursor: bool,
    replaying: bool,
    replayed: u64,
    sessions: u64,
    resumes: u64,
    lagged: u64,
    finished: bool,
}

#[derive(Debug, Default)]
struct Chat {
    /// The last event of this session's chain; 0 before the first.
    head: u64,
    covered: u64,
    resets: u64,
    events: Vec<Delivered>,
    /// Events that `Fetch` brought.
    fetched: Vec<Delivered>,
}

impl DeviceLog {
    pub(super) fn new(user: u64, label: String) -> Self {
        Self { user, label, received: AtomicU64::new(0), state: Mutex::default() }
    }

    /// A connection is about to be used.
    pub fn connecting(&self, with_cursor: bool) {
        let mut state = self.state.lock();
        state.with_cursor = with_cursor;
        for chat in state.chats.values_mut() {
            chat.head = if with_cursor { chat.covered } else { 0 };
        }
        if !with_cursor {
            state.baseline = None;
        }
        state.uncovered.clear();
        (state.replaying, state.replayed) = (true, 0);
    }

    pub fn welcome(&self, resumed: bool) {
        let mut state = self.state.lock();
        state.sessions += 1;
        state.resumes += u64::from(resumed);
        if resumed != state.with_cursor {
            let text = format!("{}: Welcome.resumed is {resumed}", self.label);
            state.violations.push(Violation::new(Breach::Protocol, text));
            if !resumed {
                state.baseline = None;
                for chat in state.chats.values_mut() {
                    chat.head = 0;
                }
            }
        }
    }

    /// `Live`, at a tick of the oracle; it covers all before it.
    pub fn live(&self, tick: u64, replayed: u64) {
        let mut state = self.state.lock();
        if state.replaying && state.replayed != replayed {
            let text = format!("{}: Live.replayed is {replayed}, came {}", self.label, state.replayed);
            state.violations.push(Violation::new(Breach::Protocol, text));
        }
        state.replaying = false;
        state.baseline.get_or_insert(tick);
        state.cover();
    }

    /// A cursor came: a resume goes on from here.
    pub fn cursor(&self) {
        self.state.lock().cover();
    }

    /// A durable event came. Returns the head after which something is missing, if something is.
    pub fn durable(&self, event: &Durable<'_>, live: bool) -> Option<u64> {
        self.received.fetch_add(1, Ordering::Relaxed);
        let delivered = Delivered::of(event);
        let mut state = self.state.lock();
        let state = &mut *state;
        state.replayed += u64::from(!live);
        let chat = state.chats.entry(event.chat).or_default();
        let complaint = chat.judge(&delivered, self.user);
        let gap = complaint.as_ref().is_some_and(|(breach, _)| *breach == Breach::Gap).then_some(chat.head);
        if delivered.seq > chat.head {
            chat.head = delivered.seq;
            state.uncovered.push(event.chat);
        }
        if let Some((breach, text)) = complaint {
            let text = format!("{}: chat {}: {text}", self.label, event.chat);
            state.violations.push(Violation::new(breach, text));
        }
        if let Some(text) = chat.keep(delivered) {
            let text = format!("{}: chat {}: {text}", self.label, event.chat);
            state.violations.push(Violation::new(Breach::Disagreement, text));
        }
        gap
    }

    /// Takes a page that `Fetch` brought; the gap itself was noted before.
    pub fn page(&self, chat: u64, events: &[&RawValue]) {
        for event in events {
            match Incoming::parse(event.get()) {
                Ok(Incoming::Durable(event)) if event.chat == chat => {
                    let delivered = Delivered::of(&event);
                    self.state.lock().chats.entry(chat).or_default().fetched.push(delivered);
                }
                _ => self.protest(format!("a page of chat {chat} with {event}")),
            }
        }
    }

    /// The log lost its tail: what was after `after` is void.
    pub fn reset(&self, chat: u64, after: u64) {
        let mut state = self.state.lock();
        let chat = state.chats.entry(chat).or_default();
        chat.resets += 1;
        chat.events.retain(|event| event.seq <= after);
        chat.fetched.retain(|event| event.seq <= after);
        chat.head = chat.head.min(chat.events.last().map_or(0, |event| event.seq));
        chat.covered = chat.head;
    }

    pub fn lagging(&self) {
        self.state.lock().lagged += 1;
    }

    /// Something that the contract forbids.
    pub fn protest(&self, text: String) {
        let text = format!("{}: {text}", self.label);
        self.state.lock().violations.push(Violation::new(Breach::Protocol, text));
    }

    /// The device is gone for good: nothing more is owed to it.
    pub fn finish(&self) {
        self.state.lock().finished = true;
    }

    /// The last event of a chat that came.
    pub fn head(&self, chat: u64) -> u64 {
        let state = self.state.lock();
        state.chats.get(&chat).and_then(|chat| chat.events.last()).map_or(0, |event| event.seq)
    }

    /// The number of `Reset`s that the device got for a chat.
    pub fn resets(&self, chat: u64) -> u64 {
        self.state.lock().chats.get(&chat).map_or(0, |chat| chat.resets)
    }

    /// Whether the device has been live and has not gone for good.
    pub fn expects_events(&self) -> bool {
        let state = self.state.lock();
        state.baseline.is_some() && !state.finished
    }

    /// Durable events that came, repeated ones included.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Sessions so far, and how many of them resumed.
    pub fn sessions(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.sessions, state.resumes)
    }

    /// The number of `Lagging` frames that the device got.
    pub fn lagged(&self) -> u64 {
        self.state.lock().lagged
    }

    pub(super) fn violations(&self) -> Vec<Violation> {
        self.state.lock().violations.clone()
    }

    /// The tick since which every event is owed to the device; `None` if the device is gone for good.
    pub(super) fn owed_since(&self) -> Option<u64> {
        let state = self.state.lock();
        state.baseline.filter(|_| !state.finished)
    }

    /// Visits each event that the device has, chat by chat, in order.
    pub(super) fn each(&self, mut visit: impl FnMut(u64, &Delivered)) {
        let state = self.state.lock();
        for (id, chat) in &state.chats {
            for event in chat.events.iter().chain(&chat.fetched) {
                visit(*id, event);
            }
        }
    }

    /// Whether the device has the event.
    pub(super) fn has(&self, chat: u64, seq: u64) -> bool {
        let state = self.state.lock();
        state.chats.get(&chat).is_some_and(|chat| chat.events.binary_search_by_key(&seq, |e| e.seq).is_ok())
    }
}

impl State {
    fn cover(&mut self) {
        for id in self.uncovered.drain(..) {
            if let Some(chat) = self.chats.get_mut(&id) {
                chat.covered = chat.head;
            }
        }
    }
}

impl Chat {
    fn judge(&self, event: &Delivered, user: u64) -> Option<(Breach, String)> {
        let Delivered { seq, prev, kind, .. } = event;
        let head = self.head;
        let starts = head == 0 || matches!(&event.effect, Effect::Joined(users) if users.contains(&user));
        if *seq <= head {
            let known = self.events.binary_search_by_key(seq, |event| event.seq).is_ok();
            let breach = if known { Breach::Duplicated } else { Breach::OutOfOrder };
            Some((breach, format!("{kind:?} {seq} came when {head} was there already")))
        } else if *prev >= *seq {
            Some((Breach::OutOfOrder, format!("{kind:?} {seq} has prev {prev}")))
        } else if !starts && *prev != head {
            Some((Breach::Gap, format!("{kind:?} {seq} has prev {prev}, but the head is {head}")))
        } else {
            None
        }
    }

    /// Keeps the event; complains if it contradicts what came under the same sequence before.
    fn keep(&mut self, event: Delivered) -> Option<String> {
        if self.events.last().is_none_or(|last| last.seq < event.seq) {
            self.events.push(event);
            return None;
        }
        match self.events.binary_search_by_key(&event.seq, |event| event.seq) {
            Ok(at) if self.events[at].same_as(&event) => None,
            Ok(at) => Some(format!("{} came as {:?} and as {event:?}", event.seq, self.events[at])),
            Err(at) => {
                self.events.insert(at, event);
                None
            }
        }
    }
}

/// The body of a message that was deleted before it was replayed.
const DELETED_BODY: &str = "";

impl Delivered {
    fn of(event: &Durable<'_>) -> Self {
        let change = || -> Change {
            event.data.and_then(|data| serde_json::from_str(data.get()).ok()).unwrap_or_default()
        };
        let effect = match event.kind {
            Kind::ChatCreated => Effect::Joined(change().member_ids.into()),
            Kind::MemberJoined => {
                Effect::Joined(change().members.iter().map(|member| member.user_id).collect())
            }
            Kind::MemberLeft => Effect::Left(change().user_id),
            Kind::Deleted => Effect::Deleted(change().seq),
            Kind::Message
            | Kind::RoleChanged
            | Kind::TitleChanged
            | Kind::SettingsChanged
            | Kind::Edited
            | Kind::Reaction
            | Kind::Noop
            | Kind::Unknown => Effect::None,
        };
        Self {
            seq: event.seq,
            prev: event.prev,
            from: event.from,
            kind: event.kind,
            uuid: event.uuid,
            body: fingerprint(&event.body),
            effect,
        }
    }

    /// Whether both tell the same story; a replay may come without the body of what was deleted since.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        let identity = |event: &Self| (event.seq, event.prev, event.from, event.kind, event.uuid);
        identity(self) == identity(other) && (self.body == other.body || self.is_blank() || other.is_blank())
    }

    pub(super) fn is_blank(&self) -> bool {
        self.body == fingerprint(DELETED_BODY)
    }
}

/// The fingerprint of a body. The bodies themselves would take most of the memory.
pub(super) fn fingerprint(body: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}
