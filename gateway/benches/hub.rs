//! The hub's hot paths, each as the product runs it, without sockets.
//!
//! - `ring_push`: one entry into a full ring, which gives up its oldest: what an event costs that nobody here wants.
//! - `missed`: a device that comes back after 5 messages in each of its 20 chats, read from the ring's chains.
//! - `resume`: the same with its frames queued and its session made live.
//! - `fan_out`: one message to a chat whose members have that many live sessions here.

use std::sync::Arc;

use bytes::Bytes;
use clap::Parser;
use divan::{Bencher, counter::ItemsCount};
use gateway::{
    hub::{
        Hub,
        attach::Attached,
        install::{LoadedChat, LoadedUser},
        judge::Looked,
        ring::{self, Ring, Verdict},
        user::Interval,
    },
    infra::{clock::Clock, metrics::Metrics},
    session::{Identity, Session, settings::SessionSettings, wire::Encoding},
};
use prometheus_client::registry::Registry;
use shared::{
    cursor::{Cursor, Sealer},
    event::{ChatCreated, Event, Fact, History, Kind, MemberRole, MessageSent},
    fold,
    id::{ChatId, EventId, Position, Seq, UserId},
    permission::{ChatType, Role},
    window::Window,
};
use streams::Entry;
use uuid::Uuid;

fn main() {
    divan::main();
}

/// The gateway's default.
const RING_BYTES: usize = 8 << 20;
const SESSIONS: usize = 1_000;
const CHATS: u64 = 20;
const MESSAGES: u64 = 5;
/// Events of other chats between two of the device's own: the ring holds the whole partition.
const FOREIGN: u64 = 50;

fn chat(id: u64) -> ChatId {
    ChatId::new(id).expect("in range")
}

/// When all uuids are made and all entries are stored.
const MADE_MS: u64 = 0x0192_c3f0_0000;

fn user(id: u64) -> UserId {
    UserId::new(id).expect("in range")
}

fn message(number: u64) -> Bytes {
    let fact =
        MessageSent { body: "How about Thursday at noon?".into(), reply_to: None, mentions: Vec::new() };
    let uuid = Uuid::from_u64_pair(MADE_MS << 16 | 0x7000, 1 << 63 | number);
    let device = "web:3f2a".to_owned();
    Event { actor: user(1), device, uuid, fact: Fact::MessageSent(fact), unique_as_of: None }.encode().into()
}

fn entry(seq: u64, at: ChatId, payload: Bytes) -> Entry {
    let id = EventId(seq);
    Entry { seq: Seq(seq), id, ts_ms: MADE_MS, appended_ns: 0, chat: Some(at), payload, traceparent: None }
}

fn ring_entry(number: u64, payload: Bytes) -> ring::Entry {
    ring::Entry {
        id: EventId(number),
        ts: 0,
        chat: Some(chat(1 + number % 5_000)),
        link: Seq::ZERO,
        prev: Seq::ZERO,
        verdict: Verdict::Unknown,
        kind: Kind::MessageSent,
        // As spread as a hash.
        command: number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        alike: 0,
        deleted: false,
        payload,
    }
}

#[divan::bench]
fn ring_push(bencher: Bencher) {
    let mut ring = Ring::new(Position::default(), RING_BYTES);
    let mut number = 0;
    let mut next = || {
        number += 1;
        ring_entry(number, message(number))
    };
    while ring.floor().seq == Seq::ZERO {
        ring.push(next());
    }
    bencher.counter(ItemsCount::new(1_u64)).with_inputs(next).bench_local_values(|entry| ring.push(entry));
}

/// A hub that has loaded chats, all of whose members are known.
struct Stage {
    hub: Hub,
    settings: SessionSettings,
    next: u64,
}

impl Stage {
    fn new(chats: u64, members: u64) -> Self {
        let metrics = Arc::new(Metrics::new(&mut Registry::default()));
        let hub = Hub::new(RING_BYTES, Clock::start(), Sealer::new(&[7; 32]), metrics);
        hub.set_window(Window { ms: 120_000 });
        hub.begin(Position::default(), 0);
        hub.open();
        for id in 1..=chats {
            hub.install_chat(loaded(chat(id), members), 0).expect("nothing has changed meanwhile");
        }
        for id in 1..=members {
            let interval = |id| Interval { chat: chat(id), from: Seq::ZERO, to: None };
            let intervals = (1..=chats).map(interval).collect();
            let user = LoadedUser { user: user(id), upto: Seq::ZERO, intervals };
            hub.install_user(&user, 0).expect("its chats are there");
        }
        Self { hub, settings: settings(), next: 1 }
    }

    fn say(&mut self, at: ChatId) {
        let entry = self.message(at);
        self.hub.apply(&[entry]).expect("a known kind of event");
    }

    fn message(&mut self, at: ChatId) -> Entry {
        let seq = self.next;
        self.next += 1;
        entry(seq, at, message(seq))
    }

    fn session(&self, id: u64) -> Arc<Session> {
        let (device, encoding) = ("web".into(), Encoding::Json);
        let identity = Identity { user: user(id), family: Uuid::nil(), device, encoding };
        Arc::new(Session::new(identity, u64::MAX, &self.settings, 0))
    }
}

/// Nothing is written here, so what is queued must have room.
fn settings() -> SessionSettings {
    #[derive(Parser)]
    struct Defaults {
        #[command(flatten)]
        session: SessionSettings,
    }
    let Defaults { session } = Defaults::parse_from(["bench"]);
    SessionSettings { outbox_bytes: usize::MAX, outbox_frames: usize::MAX, ..session }
}

fn loaded(id: ChatId, members: u64) -> LoadedChat {
    let members = (1..=members).map(|id| MemberRole { user_id: user(id), role: Role::Member }).collect();
    let fact = ChatCreated { chat_type: ChatType::Group, title: None, history: History::All, members };
    let device = String::new();
    let event = Event {
        actor: user(1),
        device,
        uuid: Uuid::nil(),
        fact: Fact::ChatCreated(fact),
        unique_as_of: None,
    };
    let mut state = None;
    fold::apply(&mut state, Seq(1), &event).expect("valid");
    let (upto, head) = (Seq::ZERO, Seq::ZERO);
    LoadedChat {
        chat: id,
        state,
        upto,
        head,
        floor: Seq::ZERO,
        floor_head: Seq::ZERO,
        void: Vec::new(),
        looked: Looked::default(),
    }
}

/// 5 messages in each of 20 chats among many of other chats, all after the returned position.
fn missed_messages() -> (Stage, Position) {
    let mut stage = Stage::new(CHATS, 1);
    stage.say(chat(1));
    let from = stage.hub.tip();
    for number in 0..CHATS * MESSAGES {
        stage.say(chat(1 + number % CHATS));
        for foreign in 0..FOREIGN {
            stage.say(chat(10_000 + foreign));
        }
    }
    (stage, from)
}

#[divan::bench]
fn missed(bencher: Bencher) {
    let (stage, from) = missed_messages();
    let (hub, most) = (&stage.hub, (CHATS * MESSAGES) as usize);
    assert_eq!(hub.missed(user(1), from.seq, most).map(|events| events.len()), Some(most));
    bencher.bench_local(|| hub.missed(user(1), from.seq, most));
}

#[divan::bench]
fn resume(bencher: Bencher) {
    let (stage, position) = missed_messages();
    let cursor = Cursor { epoch: 0, position };
    bencher.with_inputs(|| stage.session(1)).bench_local_values(|session| {
        assert_eq!(stage.hub.attach(&session, Some(cursor)), Attached::Live);
        stage.hub.detach(&session);
        session
    });
}

// One message at a time: between two of them the sessions' queues are emptied, as writing would.
#[divan::bench(args = [1, 100, SESSIONS], sample_size = 1, sample_count = 1_000)]
fn fan_out(bencher: Bencher, sessions: usize) {
    let mut stage = Stage::new(1, sessions as u64);
    let live: Vec<Arc<Session>> = (1..=sessions as u64).map(|id| stage.session(id)).collect();
    for session in &live {
        assert_eq!(stage.hub.attach(session, None), Attached::Live);
    }
    let entries: Vec<Entry> = (0..100_000).map(|_| stage.message(chat(1))).collect();
    let mut entries = entries.into_iter();
    let next = || {
        for session in &live {
            session.fall_behind();
        }
        entries.next().expect("more messages than samples")
    };
    bencher
        .counter(ItemsCount::new(sessions))
        .with_inputs(next)
        .bench_local_values(|entry| stage.hub.apply(&[entry]));
}
