//! A test's own log, filled with a random history, and the projector's binary on it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use shared::{event::Event, id::Seq};
use streams::{Appender, Entry, Nats, NatsSettings, Partition, Scan};
use xtask::{service::Service, testing::Isolated};

use crate::{
    Rng, Store, history,
    store::{connect, dump},
};

/// What anything may take on a loaded machine before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Log {
    pub(crate) corner: Isolated,
    pub(crate) nats: Nats,
    pub(crate) appender: Appender,
    pub(crate) rows: tokio_postgres::Client,
}

impl Log {
    pub(crate) async fn open(corner: Isolated) -> Self {
        let settings = NatsSettings {
            nats_url: corner.nats_url().to_owned(),
            stream_prefix: corner.stream_prefix().to_owned(),
            ..NatsSettings::default()
        };
        let nats = Nats::connect(&settings, "tests").await.unwrap();
        eventually("streams", async || streams::stream::apply(&nats).await.is_ok()).await;
        let rows = connect(&corner.postgres_url()).await;
        Self { appender: Appender::start(&nats), nats, corner, rows }
    }

    /// Appends a random history; corrupt and chat-less entries of it are left out.
    pub(crate) async fn fill(&self, seed: u64, length: u64) {
        for entry in history(&mut Rng(seed), length) {
            let (Some(chat), Ok(event)) = (entry.chat, Event::decode(&entry.payload)) else { continue };
            let deadline = tokio::time::Instant::now() + PATIENCE;
            self.appender.append(chat, &event, deadline).await.unwrap();
        }
    }

    /// Puts bytes on the subject of a chat, as no appender would: without an id, whatever they are.
    pub(crate) fn publish_raw(&self, chat: u64, payload: &[u8]) {
        let address = self.corner.nats_url().trim_start_matches("nats://");
        let mut socket = TcpStream::connect(address).unwrap();
        let subject = format!("{}chat.0.{chat}", self.corner.stream_prefix());
        write!(socket, "CONNECT {{\"verbose\":false}}\r\nPUB {subject} {}\r\n", payload.len()).unwrap();
        socket.write_all(payload).unwrap();
        socket.write_all(b"\r\nPING\r\n").unwrap();
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&answer).contains("PONG") {
            let read = socket.read(&mut buffer).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..read]);
        }
    }

    pub(crate) fn projector(&self, label: &str) -> (Service, SocketAddr) {
        self.corner.spawn("projector", label, &[("MT_PROJECTOR_BATCH", "50")]).unwrap()
    }

    pub(crate) async fn end(&self) -> Seq {
        self.nats.bounds(Partition::FIRST).await.unwrap().last
    }

    pub(crate) async fn checkpoint(&self) -> (i32, Seq) {
        let row = self.rows.query_one("SELECT epoch, seq FROM checkpoints", &[]).await.unwrap();
        (row.get(0), Seq::from(row.get::<_, i64>(1)))
    }

    /// Waits until the projection has come to the end of the log.
    pub(crate) async fn caught_up(&self) {
        let end = self.end().await;
        eventually("the projection", async || self.checkpoint().await.1 >= end).await;
    }

    pub(crate) async fn entries(&self) -> Vec<Entry> {
        let mut scan = Scan::new(&self.nats, Partition::FIRST, Seq::ZERO, self.end().await);
        let mut entries = Vec::new();
        while let Some(batch) = scan.next().await.unwrap() {
            entries.extend(batch);
        }
        entries
    }

    /// The rows are those that the whole log gives when it is folded at once.
    pub(crate) async fn verify(&self) {
        self.caught_up().await;
        let mut store = Store::open("verify").await;
        store.apply(&self.entries().await).await;
        assert_eq!(dump(&self.rows).await, store.dump().await);
    }
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The status and body of a GET.
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// The value of a metric of the projector.
pub(crate) fn metric(address: SocketAddr, name: &str) -> f64 {
    let (_, text) = get(address, "/metrics");
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
}
