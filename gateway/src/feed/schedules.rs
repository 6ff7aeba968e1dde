//! Thousands of schedules of hub, sessions, catch-ups, loads and devices, each another order of the same kinds of steps.
//!
//! Chance, by a seed, takes one step after the other on one thread: entries are appended and applied, devices come,
//! read a few bytes and go, tasks that were woken are polled once, loads and reads of the projection take their time,
//! the log loses its tail, the clock moves. At the end nothing is appended any more and all devices read: each must then
//! have exactly the events that its user is entitled to, each once and in order, no cursor may ever have covered what
//! was not sent, and no task may still wait.
//!
//! The hub, the sessions and the catch-up are the product's own. The socket, the loader, the projection and the scan of
//! the log are stand-ins with the same steps in the same order. `SCHEDULES` sets how many run in each test. `SEED` runs
//! that one alone, and tells its steps.

mod book;
mod device;
mod tasks;

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use shared::{
    code::Code,
    cursor::{Cursor, Sealer},
    event::{Event, Fact, History},
    id::{ChatId, Position, Seq, UserId},
    permission::Role,
};
use sql::{Checkpoint, replay::Replay};
use tokio::runtime::Runtime;
use uuid::Uuid;

use self::{
    book::Book,
    device::{CLOSE, Device, Pipe, Violation},
    tasks::{Random, Tasks, Work, pause},
};
use super::catch_up::{self, Past};
use crate::{
    command::Failure,
    hub::{
        Hub,
        attach::Attached,
        install::Stale,
        stage::{self, chat, user},
    },
    infra::{clock::Clock, metrics::Metrics},
    session::{
        Identity, Lane, Session,
        close::Close,
        outbox::{LOW_WATER_BYTES, Queued},
        settings::SessionSettings,
        wire::{self, Encoding},
    },
};

/// How many schedules each of the eight tests runs by default: 10,000 in all, which take a minute of one core.
const SCHEDULES: u64 = 1_250;
/// Chats and users of a schedule, numbered from 1.
const CHATS: u64 = 4;
const USERS: u64 = 4;
/// As in `socket/start.rs`: how long a cursor from a gateway that is ahead may wait.
const AHEAD_PATIENCE: Duration = Duration::from_secs(2);
/// As in `loader.rs`.
const LOAD_PATIENCE: Duration = Duration::from_secs(5);
const LOAD_ATTEMPTS: usize = 8;
/// Steps after which everything must have come to rest. Schedules need a tenth of it.
const REST: usize = 200_000;

/// What the tasks of one schedule share.
struct World {
    hub: Hub,
    book: Mutex<Book>,
    random: Mutex<Random>,
    settings: SessionSettings,
    /// Tasks that begin.
    begun: Mutex<Vec<(&'static str, Work)>>,
    /// Events in one page of the projection.
    page: usize,
    /// Sources fail now and then.
    unreliable: bool,
}

impl World {
    fn begin(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.begun.lock().push((name, Box::pin(work)));
    }

    /// A source takes its time, or fails.
    async fn ask(&self) -> Result<(), Failure> {
        pause().await;
        if self.unreliable && self.random.lock().one_in(8) {
            return Err(Failure::temporary(Code::ServerUnavailable, 1_000, "by chance"));
        }
        Ok(())
    }
}

/// `loader.rs`, with the book in the place of Postgres and the log.
async fn load(world: &World, who: Option<UserId>, mut chats: BTreeSet<ChatId>) -> Result<(), Failure> {
    let failed = || Failure::temporary(Code::ServerUnavailable, 1_000, "not loaded");
    for _ in 0..LOAD_ATTEMPTS {
        let pin = world.hub.pin();
        let who = who.filter(|user| !world.hub.knows(*user));
        // What lies between the projection and the ring is read from the log, which may have lost it.
        let upto = |book: &Book| Some(book.checkpoint.max(pin.floor)).filter(|upto| *upto <= book.tip());
        world.ask().await?;
        let loaded = who.map(|user| {
            let book = world.book.lock();
            Some(book.user(user, upto(&book)?))
        });
        let loaded = match loaded {
            Some(None) => return Err(failed()),
            Some(Some(loaded)) => Some(loaded),
            None => None,
        };
        let intervals = loaded.iter().flat_map(|user| &user.intervals);
        let within = intervals.filter(|interval| interval.reaches_above(pin.floor));
        chats.extend(within.map(|interval| interval.chat));
        world.ask().await?;
        let states: Vec<_> = {
            let book = world.book.lock();
            let upto = upto(&book).ok_or_else(failed)?;
            let missing = world.hub.missing(chats.iter().copied());
            missing.into_iter().map(|chat| book.chat(chat, upto, pin.floor)).collect()
        };
        let most = states.iter().map(|chat| chat.upto).chain(loaded.iter().map(|user| user.upto)).max();
        let passed = world.hub.passed(most.unwrap_or_default());
        tokio::time::timeout(LOAD_PATIENCE, passed).await.map_err(|_| failed())?;
        pause().await;
        let mut complete = true;
        for chat in states {
            complete &= world.hub.install_chat(chat, pin.epoch).is_ok();
        }
        if let Some(user) = loaded {
            match world.hub.install_user(&user, pin.epoch) {
                Ok(()) => {}
                Err(Stale::Ring) => complete = false,
                Err(Stale::Chats(unknown)) => {
                    complete = false;
                    chats.extend(unknown);
                }
            }
        }
        if complete {
            return Ok(());
        }
    }
    Err(failed())
}

impl Past for World {
    async fn load(&self, user: UserId) -> Result<(), Failure> {
        load(self, Some(user), BTreeSet::new()).await
    }

    async fn replay(&self, user: UserId, after: Seq) -> Result<(Checkpoint, Replay), Failure> {
        self.ask().await?;
        let answer = self.book.lock().replay(user, after, self.page);
        pause().await;
        Ok(answer)
    }

    /// `lagging.rs`, for one session.
    async fn read_log(&self, session: &Arc<Session>) -> Result<(), Failure> {
        let (epoch, upto) = self.hub.begins();
        self.ask().await?;
        let mut seq = session.fed();
        while seq < upto {
            seq = seq.next();
            // The log may have been cut since, and this gateway may not know it yet.
            if self.book.lock().epoch() != epoch {
                return Ok(());
            }
            let now_ms = self.hub.clock.now_ms();
            let fed = self.hub.while_in(epoch, |sights| {
                let book = self.book.lock();
                let mine = book.get(seq).filter(|judged| judged.readers.contains(&session.user()));
                let event = mine.and_then(|judged| {
                    let sight = sights.of(session.user(), judged.entry.chat?);
                    Some(book.frame(judged, &sight, true))
                });
                let before = Seq(seq.get() - 1);
                if session.lane() == Lane::CatchUp
                    && self.hub.step(session, before, seq)
                    && let Some(frame) = event
                {
                    session.push_covering(wire::encode(&frame, session.identity.encoding), seq, now_ms);
                    session.mark_dirty();
                }
            });
            if fed.is_none() {
                return Ok(());
            }
            if seq.get().is_multiple_of(4) {
                pause().await;
            }
        }
        Ok(())
    }
}

async fn catch_up(world: Arc<World>, session: Arc<Session>) {
    catch_up::feed(&world.hub, &*world, &session).await;
}

async fn reattach(world: Arc<World>, session: Arc<Session>, epoch: u32) {
    if catch_up::attach_again(&world.hub, &*world, &session, epoch).await {
        catch_up(world, session).await;
    }
}

/// One connection: `socket/start.rs`, then `socket.rs`.
async fn connection(
    world: Arc<World>,
    session: Arc<Session>,
    cursor: Option<Cursor>,
    pipe: Arc<Mutex<Pipe>>,
) {
    if start(&world, &session, cursor, &pipe).await.is_err() {
        session.close(Close::Internal, world.hub.clock.now_ms());
    }
    let mut close_sent = false;
    std::future::poll_fn(|cx| {
        let now_ms = world.hub.clock.now_ms();
        if session.cursor_is_due(now_ms) {
            world.hub.send_cursors(std::slice::from_ref(&session), now_ms);
        }
        session.wake(cx.waker());
        let mut pipe = pipe.lock();
        if session.is_ended() || pipe.device_is_gone {
            return Poll::Ready(());
        }
        if let Some(code) = session.closing().filter(|_| !close_sent) {
            close_sent = true;
            world.hub.detach(&session);
            if code == Close::TooSlow.code() || code == Close::Revoked.code() {
                session.outbox().clear();
            }
            // As tungstenite does: behind what is queued, where nothing else can follow.
            let close = Queued { bytes: Bytes::from_static(&CLOSE), covers: Seq::ZERO, stored_us: 0 };
            session.outbox().push(close, now_ms);
        }
        let mut buffer = vec![0; pipe.room - pipe.bytes.len()];
        let mut outbox = session.outbox();
        let written = outbox.gather(&mut buffer).len();
        if written > 0 {
            pipe.bytes.extend(&buffer[..written]);
            outbox.advance(written, now_ms);
            outbox.wake_if_drained(LOW_WATER_BYTES);
        }
        pipe.writer = Some(cx.waker().clone());
        Poll::Pending
    })
    .await;
    pipe.lock().server_is_gone = true;
    session.end();
    pause().await;
    world.hub.detach(&session);
}

async fn start(
    world: &Arc<World>,
    session: &Arc<Session>,
    mut from: Option<Cursor>,
    pipe: &Mutex<Pipe>,
) -> Result<(), ()> {
    let hub = &world.hub;
    if let Some(cursor) = from {
        let entered = async {
            while hub.epoch() < cursor.epoch || hub.epoch() != world.book.lock().epoch() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(AHEAD_PATIENCE, entered).await.map_err(drop)?;
        let Position { seq, id } = world.book.lock().kept_of(cursor);
        tokio::time::timeout(AHEAD_PATIENCE, hub.passed(seq)).await.map_err(drop)?;
        let known = hub.id_at(seq);
        if hub.epoch() == world.book.lock().epoch() {
            assert!(known.is_none_or(|known| known == id), "a cursor that was given is known");
        }
        pause().await;
    }
    loop {
        let (began, epoch) = (hub.position(), hub.epoch());
        match hub.attach(session, from) {
            attached @ (Attached::Live | Attached::CatchUp) => {
                pipe.lock().epoch = epoch;
                if from.is_none() {
                    let cut = world.book.lock().lowest_after(epoch).map_or(began, |cut| cut.seq);
                    pipe.lock().began = Some(began.min(cut));
                }
                if attached == Attached::CatchUp {
                    world.begin("catch-up", catch_up(world.clone(), session.clone()));
                }
                return Ok(());
            }
            Attached::Unknown => load(world, Some(session.user()), BTreeSet::new()).await.map_err(drop)?,
            Attached::Cut => {
                let cursor = from.ok_or(())?;
                let cut = world.book.lock().lowest_after(cursor.epoch).ok_or(())?;
                world.ask().await.map_err(drop)?;
                let left: Vec<ChatId> = {
                    let book = world.book.lock();
                    let user = book.user(session.user(), book.checkpoint);
                    let left = user.intervals.iter().filter(|interval| interval.reaches_above(cut.seq));
                    left.map(|interval| interval.chat).collect()
                };
                pause().await;
                from = hub.carry_over(session, cursor, cut, &left).or(from);
            }
        }
        pause().await;
    }
}

/// A device's connection, in the schedule's eyes.
struct Link {
    session: Arc<Session>,
    pipe: Arc<Mutex<Pipe>>,
}

/// One schedule.
struct Schedule {
    world: Arc<World>,
    runtime: Arc<Runtime>,
    random: Random,
    tasks: Tasks,
    devices: Vec<(Device, Option<Link>)>,
    /// The tail has applied entries, and what this leaves to be done is yet to be looked at.
    follow_up: bool,
    /// The size of the largest body.
    body: u64,
    pipe_room: u64,
    may_repeat: bool,
    may_cut: bool,
    /// Tells its steps, for whoever looks at one seed.
    is_told: bool,
}

impl Schedule {
    fn new(seed: u64, runtime: Arc<Runtime>) -> Self {
        let mut random = Random::new(seed);
        // Most schedules have small rooms everywhere, so that all of them fill; the others have the product's sizes, at
        // which a catch-up stops and goes on.
        let is_large = random.one_in(6);
        let body = if is_large { 9_000 } else { 60 };
        let ring = match random.below(3) {
            0 => 4 << 20,
            _ => random.between(1_500, 6_000) + 10 * body,
        };
        let mut settings = stage::settings();
        settings.outbox_bytes = random.between(500, 3_000) as usize + 10 * body as usize;
        settings.outbox_frames = random.between(3, 40) as usize;
        let metrics = Arc::new(Metrics::new(&mut Registry::default()));
        let hub = Hub::new(ring as usize, Clock::start(), Sealer::new(&[7; 32]), metrics);
        hub.begin(Position::default(), 0);
        hub.open();
        let world = World {
            hub,
            book: Mutex::default(),
            random: Mutex::new(Random::new(seed ^ 1)),
            settings,
            begun: Mutex::default(),
            page: random.between(1, 6) as usize,
            unreliable: random.one_in(3),
        };
        let mut devices = Vec::new();
        for _ in 0..random.between(2, 5) {
            let encoding = if random.one_in(2) { Encoding::Json } else { Encoding::MessagePack };
            devices.push((Device::new(user(random.between(1, USERS)), encoding), None));
        }
        Self {
            world: Arc::new(world),
            runtime,
            tasks: Tasks::default(),
            devices,
            follow_up: false,
            body,
            pipe_room: random.between(20, 800) + body,
            // Another copy of a command is told by the ring, which must still have the first.
            may_repeat: ring == 4 << 20,
            may_cut: random.one_in(2),
            is_told: number("SEED").is_some(),
            random,
        }
    }

    fn run(mut self) -> Result<(), Violation> {
        for _ in 0..self.random.between(60, 250) {
            self.step()?;
        }
        self.come_to_rest()
    }

    fn step(&mut self) -> Result<(), Violation> {
        match self.random.below(100) {
            0..12 => self.append(),
            12..26 => _ = self.tail(),
            26..32 => _ = self.project(),
            32..52 => self.read()?,
            52..58 => self.connect(),
            58..61 => self.disconnect(),
            61 => self.cut(),
            62..65 => self.sweep(),
            65..68 => self.advance_clock(),
            68 => self.close(),
            _ => _ = self.poll(),
        }
        Ok(())
    }

    fn tell(&self, step: impl FnOnce() -> String) {
        if self.is_told {
            let hub = &self.world.hub;
            println!("{}/{}..{}: {}", hub.epoch(), hub.floor().seq, hub.position(), step());
        }
    }

    fn poll(&mut self) -> bool {
        let polled = self.tasks.step(&mut self.random);
        for (name, work) in self.world.begun.lock().drain(..) {
            self.tasks.add(name, work);
        }
        if let Some(name) = polled {
            self.tell(|| format!("poll a {name}"));
        }
        polled.is_some()
    }

    fn advance_clock(&mut self) {
        let ms = [1, 60, 350, 1_000, 6_000, 20_000][self.random.below(6) as usize];
        self.runtime.block_on(tokio::time::advance(Duration::from_millis(ms)));
    }

    /// One to eight entries of any kind, valid or not.
    fn append(&mut self) {
        let world = self.world.clone();
        let mut book = world.book.lock();
        for _ in 0..self.random.between(1, 8) {
            let to = chat(self.random.between(1, CHATS));
            if self.random.one_in(25) {
                let bytes: &[u8] = if self.random.one_in(2) { b"?" } else { &[0x96, 1, 2] };
                book.append(Some(to).filter(|_| self.random.one_in(2)), Bytes::from_static(bytes));
                continue;
            }
            let members: Vec<u64> =
                book.state(to).iter().flat_map(|state| state.members.users().map(UserId::get)).collect();
            let owner = book.state(to).and_then(|state| state.members.iter().find(|m| m.role == Role::Owner));
            let anyone = self.random.between(1, USERS);
            let actor = match self.random.below(10) {
                0 => anyone,
                1..6 => owner.map_or(anyone, |owner| owner.user_id.get()),
                _ if members.is_empty() => anyone,
                _ => members[self.random.below(members.len() as u64) as usize],
            };
            let earlier = {
                let own: Vec<Seq> = book
                    .entries
                    .iter()
                    .rev()
                    .take(40)
                    .filter(|judged| judged.entry.chat == Some(to) && judged.verdict.is_ok())
                    .filter(|judged| {
                        matches!(&judged.event, Some(it) if it.actor == user(actor)
                        && matches!(it.fact, Fact::MessageSent(_)))
                    })
                    .map(|judged| judged.entry.seq)
                    .collect();
                if own.is_empty() { None } else { Some(own[self.random.below(own.len() as u64) as usize]) }
            };
            // The append of a chat's creation demands that the log has nothing of the chat.
            let begins = !book.entries.iter().any(|judged| judged.entry.chat == Some(to));
            let fact = if begins && !self.random.one_in(10) {
                let others = (1..=USERS).filter(|other| *other != actor && self.random.one_in(2));
                stage::created(&std::iter::once(actor).chain(others).collect::<Vec<_>>())
            } else {
                match (self.random.below(20), earlier) {
                    (0..3, _) => stage::joined(&[anyone]),
                    (3..5, _) => stage::removed(anyone),
                    (5, _) => stage::left(actor),
                    (6, _) => stage::role_changed(anyone, Role::Admin),
                    (7, _) => stage::titled("title"),
                    (8, _) => stage::history(History::Join),
                    (9..11, Some(seq)) => stage::edited(seq, actor),
                    (14, Some(seq)) => stage::replied(seq),
                    (11..13, Some(seq)) => stage::deleted(seq, actor),
                    (13, Some(seq)) => stage::reacted(seq),
                    _ => stage::sent(&"x".repeat(self.random.between(1, self.body) as usize)),
                }
            };
            let event = Event {
                actor: user(actor),
                device: String::new(),
                uuid: book.next_uuid(),
                fact,
                unique_as_of: Some(book.tip()),
            };
            let payload = Bytes::from(event.encode());
            self.tell(|| format!("append {} to {to} by {actor}: {:?}", book.tip().next(), event.fact));
            book.append(Some(to), payload.clone());
            if self.may_repeat && self.random.one_in(20) {
                book.append(Some(to), payload);
            }
        }
    }

    /// The tail follows a cut, or does what the last entries left to do, or applies the next ones. `false`: nothing.
    fn tail(&mut self) -> bool {
        let hub = &self.world.hub;
        if std::mem::take(&mut self.follow_up) {
            let left = hub.take_follow_ups();
            self.tell(|| format!("follow up: {} behind, {:?} wanted", left.behind.len(), left.wanted));
            for session in left.behind {
                self.world.begin("catch-up", catch_up(self.world.clone(), session));
            }
            for chat in left.wanted {
                let world = self.world.clone();
                self.world.begin("load", async move {
                    while load(&world, None, BTreeSet::from([chat])).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                });
            }
            return true;
        }
        let book = self.world.book.lock();
        if let Some(cut) = book.lowest_after(hub.epoch()) {
            let epoch = book.epoch();
            drop(book);
            self.tell(|| format!("the hub is cut to {} in {epoch}", cut.seq));
            for session in hub.cut(cut, epoch) {
                self.world.begin("reattach", reattach(self.world.clone(), session, epoch));
            }
            return true;
        }
        let position = hub.position();
        let most = self.random.between(1, 6) as usize;
        let next = book.entries.iter().skip(position.get() as usize).take(most);
        let entries: Vec<_> = next.map(|judged| judged.entry.clone()).collect();
        drop(book);
        if entries.is_empty() {
            return false;
        }
        self.tell(|| format!("apply {}", entries.len()));
        hub.apply(&entries).unwrap();
        self.follow_up = true;
        true
    }

    /// The projection comes further.
    fn project(&mut self) -> bool {
        let mut book = self.world.book.lock();
        let tip = book.tip();
        let before = book.checkpoint;
        book.checkpoint = tip.min(Seq(before.get() + self.random.between(1, 12)));
        book.checkpoint > before
    }

    /// The log loses its tail.
    fn cut(&mut self) {
        if !self.may_cut || !self.random.one_in(2) {
            return;
        }
        let mut book = self.world.book.lock();
        let tip = book.tip().get();
        let seq = Seq(tip - self.random.below(tip.min(25) + 1));
        self.tell(|| format!("the log is cut from {tip} to {seq}"));
        book.cut(seq);
        for (device, link) in &mut self.devices {
            device.go_back(seq);
            if let Some(link) = link {
                let mut pipe = link.pipe.lock();
                pipe.began = pipe.began.map(|began| began.min(seq));
            }
        }
    }

    fn connect(&mut self) {
        let index = self.random.below(self.devices.len() as u64) as usize;
        self.connect_device(index);
    }

    fn connect_device(&mut self, index: usize) {
        let (device, link) = &mut self.devices[index];
        if link.is_some() {
            return;
        }
        let cursor = device.connect(self.random.one_in(3), &self.world.book.lock());
        let who = device.user;
        let identity = Identity {
            user: device.user,
            family: Uuid::nil(),
            device: "web".into(),
            encoding: device.encoding,
        };
        let now_ms = self.world.hub.clock.now_ms();
        let session = Arc::new(Session::new(identity, u64::MAX, &self.world.settings, now_ms));
        let pipe = Pipe { room: self.pipe_room as usize, bytes: VecDeque::new(), ..Pipe::default() };
        let pipe = Arc::new(Mutex::new(pipe));
        *link = Some(Link { session: session.clone(), pipe: pipe.clone() });
        self.tell(|| format!("device {index} of {who} connects with {cursor:?}"));
        self.world.begin("connection", connection(self.world.clone(), session, cursor, pipe));
    }

    fn disconnect(&mut self) {
        let index = self.random.below(self.devices.len() as u64) as usize;
        self.disconnect_device(index);
    }

    fn disconnect_device(&mut self, index: usize) {
        if let Some(link) = self.devices[index].1.take() {
            self.tell(|| format!("device {index} goes"));
            let mut pipe = link.pipe.lock();
            pipe.device_is_gone = true;
            pipe.wake();
        }
    }

    /// A device reads some bytes.
    fn read(&mut self) -> Result<(), Violation> {
        let index = self.random.below(self.devices.len() as u64) as usize;
        let most = self.random.between(1, self.pipe_room) as usize;
        self.read_device(index, most).map(drop)
    }

    /// Whether there was anything to read.
    fn read_device(&mut self, index: usize, most: usize) -> Result<bool, Violation> {
        let (device, Some(link)) = &mut self.devices[index] else { return Ok(false) };
        let mut pipe = link.pipe.lock();
        if let Some(began) = pipe.began.take() {
            device.begin(began);
        }
        device.epoch = pipe.epoch;
        let most = most.min(pipe.bytes.len());
        let bytes: Vec<u8> = pipe.bytes.drain(..most).collect();
        if most > 0 {
            pipe.wake();
        }
        let is_over = pipe.server_is_gone && pipe.bytes.is_empty();
        drop(pipe);
        let told_to_go = device.read(&bytes, &self.world.book.lock(), &self.world.hub.sealer)?;
        if told_to_go || is_over {
            self.disconnect_device(index);
            return Ok(true);
        }
        Ok(most > 0)
    }

    /// `socket/sweep.rs`.
    fn sweep(&mut self) {
        let hub = &self.world.hub;
        let now_ms = hub.clock.now_ms();
        let dirty: Vec<_> = hub.sessions().into_iter().filter(|session| session.is_dirty()).collect();
        hub.send_cursors(&dirty, now_ms);
        if self.random.one_in(3) {
            self.tell(|| "forget".into());
            hub.forget_idle(now_ms);
        }
    }

    fn close(&mut self) {
        let index = self.random.below(self.devices.len() as u64) as usize;
        let close = [Close::TooSlow, Close::Internal, Close::Draining][self.random.below(3) as usize];
        if let (_, Some(link)) = &self.devices[index] {
            link.session.close(close, self.world.hub.clock.now_ms());
        }
    }

    /// Nothing is appended any more, and everybody reads what comes.
    fn come_to_rest(mut self) -> Result<(), Violation> {
        let mut quiet = 0;
        for _ in 0..REST {
            let mut moved = self.poll() | self.tail() | self.project();
            for index in 0..self.devices.len() {
                moved |= self.read_device(index, usize::MAX)?;
                if self.devices[index].1.is_none() {
                    self.connect_device(index);
                    moved = true;
                }
            }
            if moved {
                quiet = 0;
                continue;
            }
            // What waits for a moment goes on after it; what waits for a wake-up that was lost does not.
            quiet += 1;
            if quiet > 30 {
                return self.judge();
            }
            self.runtime.block_on(tokio::time::advance(Duration::from_secs(1)));
        }
        Err(format!("no rest; tasks: {:?}", self.tasks.names()))
    }

    fn judge(mut self) -> Result<(), Violation> {
        let tip = self.world.book.lock().tip();
        for (index, (device, link)) in self.devices.iter_mut().enumerate() {
            let book = self.world.book.lock();
            let lane = link.as_ref().map(|link| link.session.lane());
            let user = device.user;
            if let Some(lost) = device.missing(tip, &book) {
                return Err(format!(
                    "device {index} of {user}, {lane:?}, lacks {lost}; {:?}",
                    self.tasks.names()
                ));
            }
            if let Some(surplus) = device.surplus(&book) {
                return Err(format!("device {index} of {user}, {lane:?}, has {surplus}"));
            }
            if lane != Some(Lane::Live) || !device.is_live {
                return Err(format!("device {index} is not live: {lane:?}; tasks: {:?}", self.tasks.names()));
            }
        }
        let names = self.tasks.names();
        if names.len() != self.devices.len() {
            return Err(format!("tasks wait for ever: {names:?}"));
        }
        // The last cursors are checked as they are read.
        self.sweep();
        while self.poll() {}
        for index in 0..self.devices.len() {
            self.read_device(index, usize::MAX)?;
            self.disconnect_device(index);
        }
        while self.poll() {}
        let left = (self.tasks.names(), self.world.hub.sessions().len());
        if left != (Vec::new(), 0) {
            return Err(format!("left behind: {left:?}"));
        }
        Ok(())
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the schedules of these seeds, or those that the environment names.
fn explore(part: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = Arc::new(runtime.unwrap());
    let _guard = runtime.enter();
    let count = number("SCHEDULES").unwrap_or(SCHEDULES);
    let seeds: Range<u64> = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => part * count..(part + 1) * count,
    };
    for seed in seeds {
        let schedule = Schedule::new(seed, runtime.clone());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| schedule.run()));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(violation)) => panic!("SEED={seed}: {violation}"),
            Err(panic) => {
                eprintln!("SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// A test for each part of the seeds, so that the parts run side by side.
macro_rules! parts {
    ($($name:ident = $part:literal),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                explore($part);
            }
        )*
    };
}

parts! {
    no_schedule_has_a_gap_a_duplicate_or_a_lost_wake_up_1 = 0,
    no_schedule_has_a_gap_a_duplicate_or_a_lost_wake_up_2 = 1,
    no_schedule_has_a_gap_a_duplicate_or_a_lost_wake_up_3 = 2,
    no_schedule_has_a_gap_a_duplicate_or_a_lost_wake_up_4 = 3,
    no_schedule_has_a_gap_a_duplicate_or_a_lost_wake_up_5 = 4,
    no_schedule_has_a_gap_a_duplicate_or_a_lost_wake_up_6 = 5,
    no_schedule_has_a_gap_a_duplicate_or_a_lost_wake_up_7 = 6,
    no_schedule_has_a_gap_a_duplicate_or_a_lost_wake_up_8 = 7,
}
