//! How sessions end: nothing follows a close, a refused session does nothing, and nothing of one that ended stays.

use std::{
    collections::HashSet,
    fs,
    time::{Duration, Instant},
};

use loadtest::{client::socket::Socket, provision::Account};
use serde_json::{Value, json};

use crate::support::{
    cluster::{Build, Cluster, SOON, open_live, send_frame},
    raw::{Frame, Raw, close, text},
    wait::{millis, secs, until},
};

/// How long a member goes on sending after the close.
const AFTER: Duration = secs(3);
/// How soon after a revocation a device has had its last byte.
const LAST_BYTE: Duration = secs(1);
/// Frames are taken up to this size.
const FRAME_BYTES: usize = 4_096;

/// Sends a message every few milliseconds for so long.
async fn talk(author: &mut Socket, chat: u64, long: Duration) {
    let end = Instant::now() + long;
    while Instant::now() < end {
        author.say(&send_frame(chat, "does anybody hear this?").1).await.unwrap();
        tokio::time::sleep(millis(20)).await;
    }
}

/// The close is the last frame, has this code, and came in time.
#[track_caller]
fn ends_with(frames: &[Frame], code: u16, in_time: Instant) {
    let last = frames.last().expect("frames");
    let after = frames.iter().skip_while(|frame| frame.close_code().is_none()).count();
    assert_eq!((last.close_code(), after), (Some(code), 1), "{after} frames from the close on");
    assert!(last.at <= in_time, "{code} is {:?} late", last.at - in_time);
}

/// A session to which somebody speaks.
async fn opened(cluster: &Cluster, gateway: usize, account: &Account) -> Raw {
    let query = format!("token={}", account.access_token);
    let mut raw = Raw::open(&cluster.urls[gateway], &query, &[]).await;
    raw.expect("Live", SOON).await;
    raw.expect("Message", SOON).await;
    raw
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_follows_a_close() {
    let mut cluster = Build::new("close_last").gateways(2).env("MT_FRAME_BYTES", FRAME_BYTES).start().await;
    let bob = cluster.accounts(1).await.remove(0);
    let alice = cluster.registered("alice").await;
    let chat = cluster.group(&[&bob, &alice.account]).await;
    let (mut author, _) = cluster.live(0, &bob).await;

    // A logout reaches the device's sessions on every gateway.
    let logout = async {
        let (mut here, mut there) =
            tokio::join!(opened(&cluster, 0, &alice.account), opened(&cluster, 1, &alice.account));
        let request = cluster.anonymous(0).request(reqwest::Method::POST, "/v1/auth/logout");
        let out = async {
            let reply = cluster.anonymous(0).send(request.header("cookie", &alice.cookie)).await.unwrap();
            assert_eq!(reply.status, 204, "{}", reply.text);
            Instant::now() + LAST_BYTE
        };
        let (here, there, in_time) = tokio::join!(here.frames(AFTER), there.frames(AFTER), out);
        ends_with(&here, 4503, in_time);
        ends_with(&there, 4503, in_time);
    };
    tokio::join!(logout, talk(&mut author, chat, AFTER + millis(500)));

    // A session that breaks the rules is told so, and that is all.
    let again = cluster.accounts(1).await.remove(0);
    let chat = cluster.group(&[&bob, &again]).await;
    let breaks = async {
        let (mut large, mut garbled) = tokio::join!(opened(&cluster, 0, &again), opened(&cluster, 1, &again));
        large.send(&text(&vec![b'x'; FRAME_BYTES + 1])).await;
        garbled.send(&text(b"\"\xff\xfe\"")).await;
        let in_time = Instant::now() + LAST_BYTE;
        let (large, garbled) = tokio::join!(large.frames(AFTER), garbled.frames(AFTER));
        ends_with(&large, 4506, in_time);
        ends_with(&garbled, 1007, in_time);
    };
    tokio::join!(breaks, talk(&mut author, chat, AFTER + millis(500)));

    // So is one that goes on breaking them.
    let stubborn = cluster.accounts(1).await.remove(0);
    let chat = cluster.group(&[&bob, &stubborn]).await;
    let goes_on = async {
        let reserved_bits = vec![0xF1, 0x80, 0, 0, 0, 0];
        for (gateway, code, bytes) in [
            (0, 4429, text(br#"{"type":"Read"}"#).repeat(250)),
            (1, 4501, text(b"{").repeat(7)),
            (0, 1002, reserved_bits),
        ] {
            let mut raw = opened(&cluster, gateway, &stubborn).await;
            raw.send(&bytes).await;
            ends_with(&raw.frames(AFTER).await, code, Instant::now() + LAST_BYTE);
        }
    };
    tokio::join!(goes_on, talk(&mut author, chat, 3 * AFTER + secs(2)));

    // And one whose device is removed, by another device and at another gateway.
    let lost = cluster.registered("lost").await;
    let chat = cluster.group(&[&bob, &lost.account]).await;
    let removed = async {
        let (mut here, mut there) =
            tokio::join!(opened(&cluster, 0, &lost.account), opened(&cluster, 1, &lost.account));
        let devices = cluster.api(1, &lost.account).get("/v1/devices").await.unwrap().json();
        let current = devices["devices"].as_array().unwrap().iter().find(|one| one["current"] == true);
        let path = format!("/v1/devices/{}", current.unwrap()["id"].as_str().unwrap());
        let out = async {
            assert_eq!(cluster.api(1, &lost.account).delete(&path).await.unwrap().status, 204);
            Instant::now() + LAST_BYTE
        };
        let (here, there, in_time) = tokio::join!(here.frames(AFTER), there.frames(AFTER), out);
        ends_with(&here, 4503, in_time);
        ends_with(&there, 4503, in_time);
    };
    tokio::join!(removed, talk(&mut author, chat, AFTER + secs(1)));

    // So is one whose token ends.
    let life = secs(4);
    let short = cluster.accounts_for(1, life.as_secs()).await.remove(0);
    let ends = Instant::now() + life;
    let chat = cluster.group(&[&bob, &short]).await;
    let expires = async {
        let mut socket = opened(&cluster, 1, &short).await;
        ends_with(&socket.frames(life + AFTER).await, 4405, ends + LAST_BYTE);
    };
    tokio::join!(expires, talk(&mut author, chat, life + AFTER));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_silent_for_too_long_hears_nothing_after_its_close() {
    let heartbeat = millis(1_500);
    let build = Build::new("silent").gateways(2).env("MT_HEARTBEAT_MS", heartbeat.as_millis());
    let mut cluster = build.start().await;
    let accounts = cluster.accounts(2).await;
    let (bob, silent) = (&accounts[0], &accounts[1]);
    let chat = cluster.group(&[bob, silent]).await;
    let (mut author, _) = cluster.live(0, bob).await;
    let listens = async {
        for gateway in [0, 1] {
            let mut raw = opened(&cluster, gateway, silent).await;
            let in_time = Instant::now() + 2 * heartbeat + LAST_BYTE;
            ends_with(&raw.frames(2 * heartbeat + AFTER).await, 4412, in_time);
        }
    };
    tokio::join!(listens, talk(&mut author, chat, 2 * (2 * heartbeat + AFTER) + secs(1)));
}

/// A session leaves the gateway when it closes, and not when its peer has taken notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_device_is_nobody_while_it_ignores_its_close() {
    let mut cluster = Build::new("nobody").gateways(2).env("MT_LINGER_MS", 20_000).start().await;
    let alice = cluster.registered("alice").await;
    let bob = cluster.accounts(1).await.remove(0);
    cluster.group(&[&bob, &alice.account]).await;
    let query = format!("token={}", alice.account.access_token);
    let mut sockets = Vec::new();
    for gateway in [0, 1] {
        let mut raw = Raw::open(&cluster.urls[gateway], &query, &early(&watch(&[bob.user_id]))).await;
        raw.expect("Live", SOON).await;
        sockets.push(raw);
        let counted = async || {
            metric(&cluster, gateway, "gateway_sessions_attached").await == 1.0
                && metric(&cluster, gateway, "gateway_session_entries").await == 1.0
        };
        until("a session that watches", SOON, counted).await;
    }
    let logout = cluster.anonymous(0).request(reqwest::Method::POST, "/v1/auth/logout");
    let reply = cluster.anonymous(0).send(logout.header("cookie", &alice.cookie)).await.unwrap();
    assert_eq!(reply.status, 204, "{}", reply.text);
    for gateway in [0, 1] {
        let left = async || {
            metric(&cluster, gateway, "gateway_sessions_attached").await == 0.0
                && metric(&cluster, gateway, "gateway_session_entries").await == 0.0
        };
        until("the session has left", LAST_BYTE + secs(1), left).await;
        let open = metric(&cluster, gateway, "gateway_ws_connections").await;
        assert_eq!(open, 1.0, "the peer is still there");
    }
    drop(sockets);
}

/// The sockets of clients that the gateway has open.
fn descriptors(cluster: &Cluster, gateway: usize) -> usize {
    let pid = cluster.gateways[gateway].pid();
    let port: u16 = cluster.urls[gateway].rsplit(':').next().unwrap().parse().unwrap();
    let (local, listens) = (format!("0100007F:{port:04X}"), "0A");
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let inodes: HashSet<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(1) == Some(&local.as_str()) && fields.get(3) != Some(&listens))
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|link| link.to_str().is_some_and(|link| inodes.contains(link)))
        .count()
}

/// One of the gateway's metrics.
async fn metric(cluster: &Cluster, gateway: usize, name: &str) -> f64 {
    let metrics = cluster.anonymous(gateway).get("/metrics").await.unwrap().text;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name}"))
}

/// Waits until nothing of any session is left: no descriptor, no session, no place taken.
async fn nothing_stays(cluster: &Cluster, gateway: usize, what: &str) {
    for of_sessions in ["ws_connections", "sessions_attached", "session_entries", "session_tasks"] {
        let name = format!("gateway_{of_sessions}");
        let gone = async || metric(cluster, gateway, &name).await == 0.0;
        until(&format!("no {name} after: {what}"), SOON, gone).await;
    }
    // The request for the metrics was one of its own.
    until(&format!("no descriptor after: {what}"), SOON, async || descriptors(cluster, gateway) == 0).await;
}

/// The bytes of a frame that comes with the upgrade.
fn early(frame: &Value) -> Vec<u8> {
    text(frame.to_string().as_bytes())
}

fn watch(users: &[u64]) -> Value {
    json!({"type": "WatchPresence", "userIds": users})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_session_executes_nothing_and_leaves_nothing() {
    const TIMES: usize = 100;
    let mut cluster = Build::new("refused").env("MT_LINGER_MS", 2_000).start().await;
    let accounts = cluster.accounts(2).await;
    let (alice, bob) = (&accounts[0], &accounts[1]);
    let chat = cluster.group(&[alice, bob]).await;
    nothing_stays(&cluster, 0, "the beginning").await;

    let unsupported = format!("token={}&v=2", alice.access_token);
    let refused = async |query: &str, code: u16, frame: &Value| {
        let mut raw = Raw::open(&cluster.urls[0], query, &early(frame)).await;
        let frames = raw.frames(SOON).await;
        assert_eq!(frames.iter().filter_map(Frame::close_code).collect::<Vec<_>>(), [code]);
        assert_eq!(frames.len(), 1, "{frames:?}");
    };
    for frame in [watch(&[bob.user_id]), send_frame(chat, "from nobody").1] {
        let mut tries = tokio::task::JoinSet::new();
        for _ in 0..TIMES {
            let (url, query, frame) = (cluster.urls[0].clone(), unsupported.clone(), early(&frame));
            tries.spawn(async move {
                let mut raw = Raw::open(&url, &query, &frame).await;
                raw.send(&close()).await;
                raw.frames(SOON).await.iter().filter_map(Frame::close_code).collect::<Vec<_>>()
            });
        }
        for codes in tries.join_all().await {
            assert_eq!(codes, [4505]);
        }
        nothing_stays(&cluster, 0, "a version that is not known").await;
    }
    refused(&unsupported, 4505, &send_frame(chat, "from nobody, patiently").1).await;

    // One session too many is refused likewise.
    let mut sessions = Vec::new();
    for _ in 0..20 {
        sessions.push(cluster.live(0, alice).await);
    }
    let query = format!("token={}", alice.access_token);
    refused(&query, 4504, &send_frame(chat, "from one too many").1).await;
    refused(&query, 4504, &watch(&[bob.user_id])).await;
    drop(sessions);
    nothing_stays(&cluster, 0, "one session too many").await;

    let (history, _) = cluster.api(0, bob).history(chat).await.unwrap();
    assert!(history.is_empty(), "{history:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_session_stays_however_it_ends() {
    let heartbeat = millis(1_500);
    let mut cluster = Build::new("ends")
        .env("MT_HEARTBEAT_MS", heartbeat.as_millis())
        .env("MT_FRAME_BYTES", FRAME_BYTES)
        .env("MT_LINGER_MS", 1_000)
        .start()
        .await;
    let accounts = cluster.accounts(2).await;
    let (alice, bob) = (&accounts[0], &accounts[1]);
    cluster.group(&[alice, bob]).await;
    let leaving = cluster.registered("leaving").await;
    nothing_stays(&cluster, 0, "the beginning").await;

    let gateway = cluster.urls[0].clone();
    // Each watches somebody from the first byte on.
    let open = async |account: &Account, query: &str| {
        let query = format!("token={}{query}", account.access_token);
        Raw::open(&gateway, &query, &early(&watch(&[bob.user_id]))).await
    };
    let live = async |account: &Account| {
        let mut raw = open(account, "").await;
        raw.expect("Live", SOON).await;
        raw
    };
    let closed = async |mut raw: Raw, code: u16| {
        let frames = raw.frames(SOON).await;
        assert_eq!(frames.iter().rev().find_map(Frame::close_code), Some(code));
    };

    let mut polite = live(alice).await;
    polite.send(&close()).await;
    closed(polite, 1000).await;
    nothing_stays(&cluster, 0, "the client's close").await;

    live(alice).await.abort();
    drop(live(alice).await);
    open(alice, "").await.abort();
    nothing_stays(&cluster, 0, "an abrupt end").await;

    let mut large = live(alice).await;
    large.send(&text(&vec![b'x'; FRAME_BYTES + 1])).await;
    closed(large, 4506).await;
    nothing_stays(&cluster, 0, "a frame too large").await;

    let mut garbled = live(alice).await;
    garbled.send(&text(b"\"\xff\xfe\"")).await;
    closed(garbled, 1007).await;
    nothing_stays(&cluster, 0, "text that is none").await;

    let mut reserved = live(alice).await;
    reserved.send(&[0xF1, 0x80, 0, 0, 0, 0]).await;
    closed(reserved, 1002).await;
    nothing_stays(&cluster, 0, "a broken protocol").await;

    let mut floods = live(alice).await;
    floods.send(&text(br#"{"type":"Read"}"#).repeat(250)).await;
    closed(floods, 4429).await;
    nothing_stays(&cluster, 0, "a flood").await;

    let mut malformed = live(alice).await;
    malformed.send(&text(b"{").repeat(7)).await;
    closed(malformed, 4501).await;
    nothing_stays(&cluster, 0, "frames that can't be read").await;

    let mut away = live(alice).await;
    away.send(&early(&json!({"type": "SetPresence", "state": "away"}))).await;
    away.send(&early(&send_frame(1, "to whom?").1)).await;
    away.send(&early(&json!({"type": "Fetch", "uuid": uuid::Uuid::now_v7(), "chatId": 1}))).await;
    away.abort();
    nothing_stays(&cluster, 0, "an end with commands under way").await;

    closed(live(alice).await, 4412).await;
    nothing_stays(&cluster, 0, "silence").await;

    let short = cluster.accounts_for(1, 3).await.remove(0);
    closed(live(&short).await, 4405).await;
    nothing_stays(&cluster, 0, "the token's end").await;

    let revoked = live(&leaving.account).await;
    let logout = cluster.anonymous(0).request(reqwest::Method::POST, "/v1/auth/logout");
    let reply = cluster.anonymous(0).send(logout.header("cookie", &leaving.cookie)).await.unwrap();
    assert_eq!(reply.status, 204, "{}", reply.text);
    closed(revoked, 4503).await;
    nothing_stays(&cluster, 0, "a logout").await;

    closed(open(alice, "&v=2").await, 4505).await;
    nothing_stays(&cluster, 0, "a version that is not known").await;

    let mut full = Vec::new();
    for _ in 0..20 {
        full.push(live(alice).await);
    }
    closed(open(alice, "").await, 4504).await;
    drop(full);
    nothing_stays(&cluster, 0, "too many sessions").await;

    // All places are free again.
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(open_live(&cluster.connect(0, alice)).await);
    }
}
