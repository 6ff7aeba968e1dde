//! What an idle session keeps on the heap, and how often the delivery of an event allocates: the two figures that
//! decide how many devices a gateway holds and how fast it feeds them. A change that costs every session a buffer,
//! or every delivery an allocation, shows here before it shows in a load test.
//!
//! The gateway runs in this process, against real servers. The devices do as well, but they are bare sockets that
//! share one buffer, so what is counted is the gateway's.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

#[path = "support/http.rs"]
mod support;

use std::{
    alloc::System,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use clap::Parser;
use gateway::serve::{self, settings::Cli};
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use streams::nap::WhileBusy;
use support::{Client, PATIENCE, until};
use uuid::Uuid;
use xtask::{
    servers::port,
    testing::{Isolated, off_runtime},
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Connected before anything is measured: pools, caches and thread-locals are filled once, whoever comes.
const EARLIER: usize = 100;
/// With both ends of all sockets here, the usual limit of 1,024 descriptors is kept.
const MEASURED: usize = 300;
const MEMBERS: usize = 200;
const ROUNDS: usize = 10;
const EVENTS_PER_ROUND: usize = 20;

/// Measured: 1,550. The session, its task with the socket's state, and its places in the hub's and the user's maps,
/// for a user without chats. A buffer of even half a kilobyte for each session is too much.
const PER_SESSION: f64 = 2_000.0;

/// Measured: 1.14. The queue of an outbox, which an idle session does not keep, is one; a member's share of what an
/// event costs once (append, frame, answer) is the rest. One more for each delivery is too much.
const PER_DELIVERY: f64 = 1.6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_deliveries_cost_no_more_than_they_must() {
    let (isolated, accounts) = off_runtime(|| {
        let isolated = Isolated::new("allocations").unwrap();
        isolated.set_up().unwrap();
        let accounts = provision(&isolated, EARLIER + MEASURED);
        (isolated, accounts)
    });
    let address = start(&isolated).await;
    let mut devices = Devices::with_capacity(accounts.len());
    let (earlier, measured) = accounts.split_at(EARLIER);
    devices.connect(&address, earlier);
    let before = settled_heap().await;
    devices.connect(&address, measured);
    let kept = settled_heap().await as f64 - before as f64;
    check("an idle session, bytes", kept / MEASURED as f64, PER_SESSION);

    let chat = create_group(&address, &accounts[..MEMBERS]).await;
    devices.exchange(chat, EVENTS_PER_ROUND);
    // The sweep sends `Cursor`s by the clock, so a slow machine has more of them in a round: the best one counts.
    let rounds = (0..ROUNDS).map(|_| {
        let region = Region::new(ALLOCATOR);
        devices.exchange(chat, EVENTS_PER_ROUND);
        region.change().allocations
    });
    let best = rounds.min().unwrap() as f64;
    check("a delivery, allocations", best / (EVENTS_PER_ROUND * MEMBERS) as f64, PER_DELIVERY);
}

fn check(what: &str, measured: f64, most: f64) {
    println!("{what}: {measured:.2}, at most {most}");
    assert!(measured <= most, "{what}: {measured:.2}, {most} expected");
}

struct Account {
    user: u64,
    token: String,
}

fn provision(isolated: &Isolated, users: usize) -> Vec<Account> {
    let output = isolated.run("gateway", &["provision", "--users", &users.to_string()]).unwrap();
    let account = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        Account {
            user: line["userId"].as_u64().unwrap(),
            token: line["accessToken"].as_str().unwrap().to_owned(),
        }
    };
    String::from_utf8(output.stdout).unwrap().lines().map(account).collect()
}

/// Starts a gateway in this process; it ends with the test's runtime. Where it listens.
async fn start(isolated: &Isolated) -> String {
    let address = format!("127.0.0.1:{}", port::choose(None).unwrap());
    let keys_dir = isolated.keys_dir();
    let settings = [
        ("--http-addr", address.as_str()),
        ("--nats-url", isolated.nats_url()),
        ("--stream-prefix", isolated.stream_prefix()),
        ("--postgres-url", &isolated.postgres_url()),
        ("--redis-url", isolated.redis_url()),
        ("--redis-prefix", &isolated.redis_prefix()),
        ("--keys-dir", keys_dir.to_str().unwrap()),
        // No pings, which would come by the clock.
        ("--heartbeat-ms", "600000"),
        // What waits for the next report is soon gone.
        ("--presence-report-ms", "10"),
        ("--commands-per-s", "1000000"),
        ("--commands-burst", "1000000"),
    ];
    let args = settings.iter().flat_map(|(name, value)| [*name, *value]);
    let cli = Cli::try_parse_from(std::iter::once("gateway").chain(args)).unwrap();
    tokio::spawn(async move {
        serve::run(cli.settings, &WhileBusy::default(), std::future::pending()).await.unwrap()
    });
    let client = Client::new(&format!("http://{address}"));
    until("the gateway is ready", async || {
        TcpStream::connect(&address).is_ok() && client.get("/readyz").await.status == 200
    })
    .await;
    address
}

async fn create_group(address: &str, members: &[Account]) -> u64 {
    let client = Client::new(&format!("http://{address}")).with_token(&members[0].token);
    let ids: Vec<u64> = members[1..].iter().map(|account| account.user).collect();
    let chat = client.post("/v1/chats", json!({ "type": 2, "memberIds": ids, "title": "all" })).await;
    chat.ok(201)["id"].as_u64().unwrap()
}

/// Looks at the heap in one window; the timers of the gateway all fire in it.
const LOOKS: usize = 30;
const PAUSE: Duration = Duration::from_millis(20);
/// Less than a hundredth of what is measured.
const STILL: usize = 4_096;

/// The bytes on the heap once what the connects needed for a moment is given back: when a window has the same
/// lowest figure as the one before. No event tells that a task has freed what it held, so this looks.
async fn settled_heap() -> usize {
    let mut before = usize::MAX;
    loop {
        let mut lowest = usize::MAX;
        for _ in 0..LOOKS {
            let stats = ALLOCATOR.stats();
            lowest = lowest.min(stats.bytes_allocated - stats.bytes_deallocated);
            tokio::time::sleep(PAUSE).await;
        }
        if before.abs_diff(lowest) < STILL {
            return lowest;
        }
        before = lowest;
    }
}

/// WebSocket clients that own nothing but their sockets. They block: the runtime's workers are the gateway's.
struct Devices {
    sockets: Vec<TcpStream>,
    buffer: Vec<u8>,
}

impl Devices {
    fn with_capacity(most: usize) -> Self {
        Self { sockets: Vec::with_capacity(most), buffer: vec![0; 65_536] }
    }

    /// One more session for each of the accounts; all of them are live.
    fn connect(&mut self, address: &str, accounts: &[Account]) {
        for account in accounts {
            let mut socket = TcpStream::connect(address).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.set_nodelay(true).unwrap();
            let request = format!(
                "GET /v1/ws?token={} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                account.token
            );
            socket.write_all(request.as_bytes()).unwrap();
            self.read_head(&mut socket);
            self.sockets.push(socket);
        }
        let first = self.sockets.len() - accounts.len();
        for socket in &mut self.sockets[first..] {
            read_until("Live", socket, &mut self.buffer);
        }
    }

    /// The answer to the upgrade, byte by byte: frames follow right behind it.
    fn read_head(&mut self, socket: &mut TcpStream) {
        let mut length = 0;
        while !self.buffer[..length].ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut self.buffer[length..=length]).unwrap();
            length += 1;
        }
        assert!(self.buffer.starts_with(b"HTTP/1.1 101 "));
    }

    /// The first member sends messages; each arrives everywhere before the next is sent, so none shares a queue.
    fn exchange(&mut self, chat: u64, messages: usize) {
        for _ in 0..messages {
            let uuid = Uuid::now_v7();
            let text = format!(r#"{{"type":"SendMessage","uuid":"{uuid}","chatId":{chat},"body":"hello"}}"#);
            // RFC 6455, 5.2: a final text frame, masked with zeros, so that the payload stays as it is.
            assert!(text.len() < 126, "the length fits into the first two bytes");
            self.sockets[0].write_all(&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0]).unwrap();
            self.sockets[0].write_all(text.as_bytes()).unwrap();
            for socket in &mut self.sockets[..MEMBERS] {
                read_until("Message", socket, &mut self.buffer);
            }
        }
    }
}

/// Reads frames up to and including one of this type.
fn read_until(wanted: &str, socket: &mut TcpStream, buffer: &mut [u8]) {
    loop {
        let mut header = [0; 2];
        socket.read_exact(&mut header).unwrap();
        let length = match header[1] {
            126 => {
                let mut extended = [0; 2];
                socket.read_exact(&mut extended).unwrap();
                usize::from(u16::from_be_bytes(extended))
            }
            127 => panic!("no frame here is that long"),
            short => usize::from(short),
        };
        let payload = &mut buffer[..length];
        socket.read_exact(payload).unwrap();
        let name = payload.strip_prefix(br#"{"type":""#).unwrap_or_default();
        if name.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.starts_with(b"\"")) {
            return;
        }
    }
}
