//! Clients that ask and never read: what waits for them is bounded in bytes, and they are ended in time.

use std::time::{Duration, Instant};

use loadtest::{memory, provision::Account};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::support::{
    cluster::{Build, Cluster, SOON, send},
    raw::{Raw, text},
    wait::{millis, secs, until},
};

const SESSIONS: usize = 20;
const FETCHES: usize = 60;
/// Six bytes of JSON each.
const CONTROL: char = '\u{1}';
/// Six times as much is less than the largest frame.
const BODY_BYTES: usize = 10_000;
/// More than a page holds.
const MESSAGES: usize = 40;
/// Memory for the pages of one user by the default, and as much again for what they are made of and the allocator.
const ALLOWED_GROWTH: u64 = 32 << 20;

/// A user, and a chat that is full of control characters.
async fn costly_chat(cluster: &mut Cluster) -> (Account, u64) {
    let account = cluster.accounts(1).await.remove(0);
    let chat = cluster.group(&[&account]).await;
    let (mut socket, _) = cluster.live(0, &account).await;
    for _ in 0..MESSAGES {
        send(&mut socket, chat, &format!("x{}", CONTROL.to_string().repeat(BODY_BYTES))).await;
    }
    // The first page of all: the pool, the caches and the allocator are warm.
    let page = cluster.api(0, &account).get(&format!("/v1/chats/{chat}/messages?limit=200")).await.unwrap();
    assert_eq!(page.status, 200);
    (account, chat)
}

/// The value of a metric of the first gateway, summed over its labels.
async fn metric(cluster: &Cluster, name: &str) -> f64 {
    let text = cluster.anonymous(0).get("/metrics").await.unwrap().text;
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    };
    text.lines().filter_map(value).sum()
}

/// The highest resident memory of the first gateway in so long.
async fn peak(cluster: &Cluster, long: Duration) -> u64 {
    let pid = cluster.gateways[0].pid();
    let end = Instant::now() + long;
    let mut highest = 0;
    while Instant::now() < end {
        highest = highest.max(memory::of(pid).unwrap().rss);
        tokio::time::sleep(millis(20)).await;
    }
    highest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_fetches_cost_bounded_memory_and_end_the_sessions() {
    // The sessions whose turn does not come are not stalled, but silent.
    let build = Build::new("unread_fetches").env("MT_STALL_MS", 8_000).env("MT_HEARTBEAT_MS", 5_000);
    let mut cluster = build.env("MT_LINGER_MS", 1_000).start().await;
    let (account, chat) = costly_chat(&mut cluster).await;
    let before = memory::of(cluster.gateways[0].pid()).unwrap().rss;
    let mut sockets = Vec::new();
    for _ in 0..SESSIONS {
        let query = format!("token={}", account.access_token);
        let mut raw = Raw::open(&cluster.urls[0], &query, &[]).await;
        raw.expect("Live", SOON).await;
        let fetch = || {
            let uuid = uuid::Uuid::now_v7();
            json!({"type": "Fetch", "uuid": uuid, "chatId": chat, "after": 0, "limit": 200}).to_string()
        };
        let fetches: Vec<u8> = (0..FETCHES).flat_map(|_| text(fetch().as_bytes())).collect();
        raw.send(&fetches).await;
        sockets.push(raw);
    }
    let highest = peak(&cluster, secs(6)).await;
    let grown = highest.saturating_sub(before);
    println!("grew by {} KiB", grown >> 10);
    assert!(grown < ALLOWED_GROWTH, "grew by {} MiB", grown >> 20);
    // None of them reads, so all are ended, and nothing of them stays.
    until("all are ended", secs(30), async || metric(&cluster, "gateway_ws_connections").await == 0.0).await;
    until("no page stays", SOON, async || metric(&cluster, "gateway_pages_bytes").await == 0.0).await;
    assert!(metric(&cluster, "gateway_ws_choked_total").await > 0.0);
    drop(sockets);
}

/// Sockets that never read, and the messages to them: more than a gateway keeps for a reader and the smallest kernel
/// buffers hold, and much less than the kernel would hold if it were let.
const SILENT: usize = 40;
const SILENT_PER_USER: usize = 20;
const NEWS: usize = 900;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kernel_holds_little_for_sockets_that_never_read() {
    let mut cluster = Build::new("unread_news").env("MT_STALL_MS", 120_000).start().await;
    let accounts = cluster.accounts(1 + SILENT / SILENT_PER_USER).await;
    let chat = cluster.group(&accounts.iter().collect::<Vec<_>>()).await;
    let mut silent = Vec::new();
    for account in &accounts[1..] {
        for _ in 0..SILENT_PER_USER {
            let query = format!("token={}", account.access_token);
            let mut raw = Raw::open(&cluster.urls[0], &query, &[]).await;
            raw.expect("Live", SOON).await;
            silent.push(raw);
        }
    }
    let (mut author, _) = cluster.live(0, &accounts[0]).await;
    for _ in 0..NEWS {
        send(&mut author, chat, &"x".repeat(1_000)).await;
    }
    // What the kernel does not take waits here, and is more than a session's bound: each was told to lag.
    assert!(metric(&cluster, "gateway_ws_lagging_total").await >= SILENT as f64);
    assert!(metric(&cluster, "gateway_ws_queued_bytes").await < (SILENT * 300_000) as f64);
    drop(silent);
}

/// Connections that ask for history again and again without reading an answer, and how often each asks.
const CONNECTIONS: usize = 20;
const REQUESTS: usize = 40;

/// A connection that has sent requests, and whose kernel takes little for it.
async fn asks(gateway: &str, request: &str, times: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(gateway.trim_start_matches("http://").parse().unwrap()).await.unwrap();
    stream.write_all(request.repeat(times).as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_answers_cost_bounded_memory_and_end_the_connections() {
    let mut cluster = Build::new("unread_answers").env("MT_STALL_MS", 4_000).start().await;
    let (account, chat) = costly_chat(&mut cluster).await;
    let before = memory::of(cluster.gateways[0].pid()).unwrap().rss;
    let token = &account.access_token;
    let list = format!("GET /v1/chats HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    let history = list.replace("/v1/chats", &format!("/v1/chats/{chat}/messages?limit=200"));
    let mut streams = Vec::new();
    for n in 0..CONNECTIONS {
        let request = if n % 4 == 3 { &list } else { &history };
        streams.push(asks(&cluster.urls[0], request, REQUESTS).await);
    }
    // Small answers are many, if a client may ask on without reading.
    streams.push(asks(&cluster.urls[0], "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 20_000).await);
    let grown = peak(&cluster, secs(6)).await.saturating_sub(before);
    println!("grew by {} KiB", grown >> 10);
    assert!(grown < ALLOWED_GROWTH, "grew by {} MiB", grown >> 20);
    // Nothing stays of them, and what the kernel had taken ends somewhere in the answers.
    until("all are ended", secs(30), async || metric(&cluster, "gateway_pages_bytes").await == 0.0).await;
    let ended = async |mut stream: TcpStream| {
        let (mut answers, mut bytes) = (0, Vec::new());
        while let Ok(1..) = stream.read_buf(&mut bytes).await {
            answers += bytes.windows(9).filter(|part| part == b"HTTP/1.1 ").count();
            bytes.drain(..bytes.len().saturating_sub(8));
        }
        answers
    };
    for stream in streams.drain(..CONNECTIONS) {
        let answers = tokio::time::timeout(SOON, ended(stream)).await.expect("it was ended");
        assert!(answers < REQUESTS, "{answers}");
    }
    // Another one is served, as far as its own reading goes.
    let page = cluster.api(0, &account).get(&format!("/v1/chats/{chat}/messages?limit=200")).await.unwrap();
    let messages = page.json()["messages"].as_array().unwrap().len();
    assert!((1..MESSAGES).contains(&messages) && page.json()["more"] == true && page.text.len() <= 1_000_000);
    assert_eq!(cluster.api(0, &account).history(chat).await.unwrap().0.len(), MESSAGES);
}
