//! For tests: a hub that is fed from a real log and a real projection, each as far as the test wants.
//!
//! Nothing moves by itself. [`World::apply_to`] is the tail, [`World::project_to`] is the projector, so a test decides
//! how far the hub, its ring and the projection lie apart. What the devices should have in the end is told by the
//! stage's copy of the log, which is judged by itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use projector::{folder::Folder, projection::slices};
use shared::{
    cursor::Cursor,
    event::{Event, Fact},
    id::{EventId, Position, Seq},
};
use streams::{Appender, Entry, Nats, NatsSettings, Partition, Scan, append::Request};
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use xtask::testing::Isolated;

use super::{Feed, catch_up::CatchUps, epochs::Epochs, loader::Loader};
use crate::{
    hub::{
        attach::Attached,
        stage::{Device, Stage, sent, user},
    },
    infra::redis::{Redis, RedisSettings},
    presence::{Presence, PresenceSettings},
    session::Lane,
};

/// What anything may take on a loaded machine before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) stage: Stage,
    pub(crate) nats: Nats,
    pub(crate) db: sql::Db,
    pub(crate) redis: Redis,
    pub(crate) appender: Appender,
    pub(crate) epochs: Arc<Epochs>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) loader: Loader,
    pub(crate) catch_ups: Arc<CatchUps>,
    pub(crate) tracker: TaskTracker,
    /// The log as NATS has it, in full.
    pub(crate) entries: Vec<Entry>,
    folder: Folder,
    /// Ends with the test.
    pub(crate) tasks: JoinSet<()>,
    pub(crate) corner: Isolated,
}

impl World {
    /// An empty log, an empty projection, and a hub with a ring of so many bytes.
    pub(crate) async fn new(name: &str, ring_bytes: usize) -> Self {
        let corner = Isolated::new(name).unwrap();
        let stage = Stage::with_ring(ring_bytes);
        let hub = stage.hub.clone();
        let nats = nats(&corner).await;
        let db = database(&corner);
        let redis = RedisSettings { url: corner.redis_url().to_owned(), prefix: corner.redis_prefix() };
        let redis = Redis::connect(&redis).unwrap();
        // Commands do not wait for the first connection.
        while redis.ping().await.is_err() {
            tokio::task::yield_now().await;
        }
        let settings = Presences::parse_from(["test"]).presence;
        let presence =
            Arc::new(Presence::new(hub.clone(), db.clone(), nats.clone(), redis.clone(), settings));
        let (loader, loads) = Loader::new(hub.clone(), db.clone(), nats.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(loads);
        let tracker = TaskTracker::new();
        let catch_ups = Arc::new(CatchUps::new(
            hub,
            (db.clone(), nats.clone()),
            loader.clone(),
            presence.clone(),
            tracker.clone(),
        ));
        Self {
            stage,
            appender: Appender::start(&nats),
            epochs: Arc::new(Epochs::new(db.clone())),
            folder: folder(&db).await,
            nats,
            db,
            redis,
            presence,
            loader,
            catch_ups,
            tracker,
            entries: Vec::new(),
            tasks,
            corner,
        }
    }

    /// Appends an event to the log. Neither the hub nor the projection has it yet.
    pub(crate) async fn append(&mut self, chat: u64, actor: u64, fact: Fact) -> Seq {
        let entry = self.stage.log.append(chat, actor, fact);
        let event = Event::decode(&entry.payload).unwrap();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let appended = self.appender.append(entry.chat.unwrap(), &event, deadline).await.unwrap();
        assert_eq!(appended.seq, entry.seq, "the log is the test's alone");
        entry.seq
    }

    /// Appends an event whose uuid is made `ahead_ms` from now. The entry, as the log has it.
    pub(crate) async fn append_ahead(&mut self, chat: u64, actor: u64, fact: Fact, ahead_ms: u64) -> Entry {
        let made_ms = crate::infra::clock::unix_ms() + ahead_ms;
        let uuid = uuid::Builder::from_unix_timestamp_millis(made_ms, &[7; 10]).into_uuid();
        let event = Event { actor: user(actor), device: "web".into(), uuid, fact, unique_as_of: None };
        self.append_event(chat, event).await;
        self.read().await;
        self.entries.last().unwrap().clone()
    }

    pub(crate) async fn append_event(&mut self, to: u64, event: Event) -> Seq {
        self.append_copy(to, event, None).await
    }

    /// Appends an event; `after`: although the log has it there already, as after the dedupe window.
    pub(crate) async fn append_copy(&mut self, to: u64, event: Event, after: Option<Seq>) -> Seq {
        let entry = self.stage.log.append_raw(Some(to), event.encode());
        let (chat, deadline) = (entry.chat.unwrap(), tokio::time::Instant::now() + PATIENCE);
        let request = Request { chat, event: &event, traceparent: None, first: false, anew_after: after };
        let appended = self.appender.send(request, deadline).await.unwrap();
        assert_eq!(appended.seq, entry.seq, "the log is the test's alone");
        entry.seq
    }

    /// Appends so many messages of a user to a chat.
    pub(crate) async fn say(&mut self, chat: u64, actor: u64, messages: usize) -> Seq {
        let mut last = self.stage.log.tip();
        for number in 0..messages {
            last = self.append(chat, actor, sent(&format!("message {number}"))).await;
        }
        last
    }

    /// Reads the entries that were appended since the last time.
    pub(crate) async fn read(&mut self) {
        let upto = self.nats.bounds(Partition::FIRST).await.unwrap().last;
        let mut scan = Scan::new(&self.nats, Partition::FIRST, Seq(self.entries.len() as u64), upto);
        while let Some(entries) = scan.next().await.unwrap() {
            self.entries.extend(entries);
        }
    }

    /// Lets the hub apply the log up to `seq`, as the tail would.
    pub(crate) async fn apply_to(&mut self, seq: Seq) {
        self.read().await;
        let from = self.stage.hub.position().get() as usize;
        self.stage.hub.apply(&self.entries[from..seq.get() as usize]).unwrap();
    }

    /// Starts the gateway's own reader of the log. From now on the hub follows the log by itself.
    pub(crate) fn follow(&mut self) -> CancellationToken {
        let cancel = CancellationToken::new();
        let feed = Feed {
            hub: self.stage.hub.clone(),
            db: self.db.clone(),
            nats: self.nats.clone(),
            epochs: self.epochs.clone(),
            loader: self.loader.clone(),
            catch_ups: self.catch_ups.clone(),
            tracker: self.tracker.clone(),
            cancel: cancel.clone(),
        };
        self.tasks.spawn(async move { feed.run().await.unwrap() });
        cancel
    }

    /// Folds the log up to `seq` into the projection.
    pub(crate) async fn project_to(&mut self, seq: Seq) {
        self.read().await;
        let from = self.folder.checkpoint().position.seq.get() as usize;
        fold(&mut self.folder, &self.entries[from..seq.get() as usize]).await;
    }

    /// Folds entries that follow the projection's checkpoint, whether the log has them or not.
    pub(crate) async fn fold(&mut self, entries: &[Entry]) {
        fold(&mut self.folder, entries).await;
    }

    /// The cursor of a position in the log, in the hub's epoch.
    pub(crate) fn cursor(&self, seq: Seq) -> Cursor {
        Cursor { epoch: self.stage.hub.epoch(), position: self.position(seq) }
    }

    pub(crate) fn position(&self, seq: Seq) -> Position {
        seq.get().checked_sub(1).map_or_else(Position::default, |at| self.entries[at as usize].position())
    }

    /// A device that has everything up to `from`, comes back, and needs a catch-up. Nobody feeds it yet.
    pub(crate) async fn behind(&self, id: u64, from: Seq) -> Device {
        self.loader.user(user(id)).await.unwrap();
        let device = self.stage.device(id, from);
        let attached = self.stage.hub.attach(&device.session, Some(self.cursor(from)));
        assert_eq!(attached, Attached::CatchUp);
        device
    }

    /// Reads for the device until its session is live and it has read everything.
    pub(crate) async fn until_live(&self, device: &mut Device) {
        until("the session is live", || {
            device.hears();
            device.session.lane() == Lane::Live
        })
        .await;
        device.hears();
    }

    /// The device has what its user is entitled to up to `upto`, each event once.
    #[track_caller]
    pub(crate) fn assert_complete(&self, device: &Device, upto: Seq) {
        assert_eq!(device.has(), self.stage.log.entitled(device.session.user(), upto));
        assert_eq!(device.twice, [], "no event came twice");
    }

    /// How many events were queued again from this source.
    pub(crate) fn replayed(&self, source: &'static str) -> u64 {
        self.stage.hub.metrics.replay_total.get_or_create(&vec![("source", source)]).get()
    }
}

/// An entry that the log does not have: the end of another history.
pub(crate) fn lost(entry: &Entry, seq: Seq) -> Entry {
    Entry { seq, id: EventId(u64::MAX - seq.get()), ..entry.clone() }
}

#[derive(Parser)]
struct Presences {
    #[command(flatten)]
    presence: PresenceSettings,
}

async fn nats(corner: &Isolated) -> Nats {
    let settings = NatsSettings {
        nats_url: corner.nats_url().to_owned(),
        stream_prefix: corner.stream_prefix().to_owned(),
        ..NatsSettings::default()
    };
    let nats = Nats::connect(&settings, "tests").await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    // The connection is made in the background.
    while let Err(error) = streams::stream::apply(&nats).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::task::yield_now().await;
    }
    nats
}

fn database(corner: &Isolated) -> sql::Db {
    let settings = sql::SqlSettings {
        postgres_url: corner.postgres_url(),
        postgres_pool: 8,
        postgres_timeout_ms: 10_000,
    };
    sql::Db::new(&settings, "tests").unwrap()
}

/// Chats' members that the projection keeps in memory: more than any test has.
const CACHE_MEMBERS: usize = 100_000;

async fn folder(db: &sql::Db) -> Folder {
    let writer = sql::projection::Writer::connect(db, sql::PARTITION).await.unwrap();
    Folder::new(writer, CACHE_MEMBERS).await.unwrap()
}

async fn fold(folder: &mut Folder, entries: &[Entry]) {
    for slice in slices(entries) {
        folder.apply(&slice).await.unwrap();
        assert!(slice.too_new.is_none());
    }
}

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
