//! Each timer and each close code that a client can provoke, with its interval as a setting.

use std::time::{Duration, Instant};

use loadtest::{
    client::socket::{Received, Socket},
    provision::Account,
};
use serde_json::json;

use crate::support::{
    cluster::{Build, Cluster, Registered, SOON, ask, send, send_frame},
    raw::{Frame, Raw},
    wait::{millis, secs, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_client_is_closed_after_two_heartbeats() {
    let mut cluster = Build::new("heartbeat").env("MT_HEARTBEAT_MS", 500).start().await;
    let account = cluster.accounts(1).await.remove(0);
    let (mut silent, _) = cluster.live(0, &account).await;
    let (mut alive, _) = cluster.live(0, &account).await;
    // Nothing is read from the silent one, so the library answers no ping either; any frame is life.
    let silent_since = Instant::now();
    let mut pings = 0;
    while silent_since.elapsed() < secs(4) {
        let ping = alive.expect("Ping", SOON).await.unwrap();
        alive.say(&json!({"type": "Pong", "t": ping["t"]})).await.unwrap();
        pings += 1;
    }
    assert!(pings >= 4, "{pings} pings in four seconds");
    assert_eq!(silent.closed(SOON).await.unwrap(), Some(4412));
    alive.say(&json!({"type": "Ping", "t": 5})).await.unwrap();
    assert_eq!(alive.expect("Pong", SOON).await.unwrap()["t"], 5);
}

async fn refresh(cluster: &Cluster, registered: &Registered) -> String {
    let api = cluster.anonymous(0);
    let request = api
        .request(reqwest::Method::POST, "/v1/auth/refresh")
        .header("cookie", &registered.cookie)
        .header("origin", api.base());
    let reply = api.send(request).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()["accessToken"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_s_end_is_announced_and_a_new_one_keeps_the_session() {
    let build = Build::new("expiry").env("MT_ACCESS_TTL_S", 6).env("MT_EXPIRY_NOTICE_MS", 4_000);
    let mut cluster = build.start().await;
    let alice = cluster.registered("alice").await;
    let bob = cluster.registered("bob").await;
    let (mut renewed, _) = cluster.live(0, &alice.account).await;
    let (mut expired, _) = cluster.live(0, &alice.account).await;
    let opened = Instant::now();
    let notice = renewed.expect("AuthExpiring", SOON).await.unwrap();
    assert!((1..=4_000).contains(&notice["inMs"].as_u64().unwrap()), "{notice}");
    let auth = |token: &str| json!({"type": "Auth", "uuid": uuid::Uuid::now_v7(), "token": token});
    // Another user's token, and the same user's other device.
    let other = ask(&mut renewed, &auth(&bob.account.access_token)).await;
    assert_eq!(other["code"], "auth.mismatch", "{other}");
    let token = refresh(&cluster, &alice).await;
    renewed.say(&auth(&token)).await.unwrap();
    let ok = renewed.expect("AuthOk", SOON).await.unwrap();
    assert!((1..=6_000).contains(&ok["expiresInMs"].as_u64().unwrap()), "{ok}");
    assert_eq!(expired.closed(SOON).await.unwrap(), Some(4405));
    assert!(opened.elapsed() < secs(8));
    renewed.say(&json!({"type": "Ping", "t": 1})).await.unwrap();
    renewed.expect("Pong", SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_that_ended_long_ago_are_forgotten() {
    let mut cluster = Build::new("forgotten").start().await;
    let (alice, bob) = (cluster.registered("alice").await, cluster.registered("bob").await);
    let (postgres, connection) =
        tokio_postgres::connect(cluster.env("MT_POSTGRES_URL"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let old = i64::try_from(alice.account.user_id).unwrap();
    postgres.execute("UPDATE token_families SET expires_ts = 1 WHERE user_id = $1", &[&old]).await.unwrap();
    // It looks when it starts, and every hour.
    cluster.add_gateway(&[]).await;
    until("only bob's logins are left", SOON, async || {
        let left = "SELECT f.user_id FROM token_families f LEFT JOIN refresh_tokens t USING (did)";
        let rows = postgres.query(left, &[]).await.unwrap();
        let users: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        // He registered and logged in.
        users == [i64::try_from(bob.account.user_id).unwrap(); 2]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logout_closes_the_family_s_sockets_everywhere() {
    let mut cluster = Build::new("logout").gateways(2).start().await;
    let alice = cluster.registered("alice").await;
    let mut sockets = Vec::new();
    for gateway in [0, 1] {
        sockets.push(cluster.live(gateway, &alice.account).await.0);
    }
    let api = cluster.anonymous(0);
    let request = api
        .request(reqwest::Method::POST, "/v1/auth/logout")
        .header("cookie", &alice.cookie)
        .header("origin", api.base());
    assert_eq!(api.send(request).await.unwrap().status, 204);
    for socket in &mut sockets {
        assert_eq!(socket.closed(secs(5)).await.unwrap(), Some(4503));
    }
    for gateway in [0, 1] {
        let reply = cluster.api(gateway, &alice.account).get("/v1/me").await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.code()), (401, "auth.revoked".to_owned()));
        assert_eq!(cluster.connect(gateway, &alice.account).open().await.unwrap_err().status(), 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_sessions_of_one_user_close_with_4504() {
    let mut cluster = Build::new("sessions").env("MT_SESSIONS_PER_USER", 3).start().await;
    let accounts = cluster.accounts(2).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(cluster.live(0, &accounts[0]).await.0);
    }
    let mut fourth = cluster.connect(0, &accounts[0]).open().await.unwrap();
    assert_eq!(fourth.closed(SOON).await.unwrap(), Some(4504));
    cluster.live(0, &accounts[1]).await;
    for socket in &mut sockets {
        socket.say(&json!({"type": "Ping", "t": 1})).await.unwrap();
        socket.expect("Pong", SOON).await.unwrap();
    }
    sockets.pop().unwrap().close().await;
    crate::support::wait::until("a place is free again", SOON, async || {
        let mut socket = cluster.connect(0, &accounts[0]).open().await.unwrap();
        socket.expect("Live", SOON).await.is_ok()
    })
    .await;
}

/// How many sessions were let in without Redis.
async fn fallbacks(cluster: &Cluster) -> u64 {
    let mut all = 0;
    for gateway in 0..cluster.urls.len() {
        let metrics = cluster.anonymous(gateway).get("/metrics").await.unwrap().text;
        let name = "gateway_session_place_fallbacks_total ";
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok());
        all += value.unwrap();
    }
    all
}

/// A session that has become live, or the code of its close.
async fn outcome(cluster: &Cluster, gateway: usize, account: &Account) -> Result<Socket, Option<u16>> {
    let mut socket = cluster.connect(gateway, account).open().await.unwrap();
    loop {
        match socket.next().await {
            Received::Text(text) if text.contains(r#""type":"Live""#) => return Ok(socket),
            Received::Closed(code) => return Err(code),
            Received::Text(_) | Received::Binary(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_one_user_are_counted_over_all_gateways() {
    const MOST: usize = 4;
    let build = Build::new("seats").gateways(2).env("MT_SESSIONS_PER_USER", MOST);
    let mut cluster = build.start().await;
    let account = cluster.accounts(1).await.remove(0);
    let close_of = async |gateway: usize| outcome(&cluster, gateway, &account).await;
    // However many come at once, and wherever: as many stay as may.
    let mut sockets = loop {
        let before = fallbacks(&cluster).await;
        let all = (0..4 * MOST).map(|at| close_of(at % 2));
        let (mut sockets, mut refused) = (Vec::new(), 0);
        for outcome in futures_util::future::join_all(all).await {
            match outcome {
                Ok(socket) => sockets.push(socket),
                Err(code) => {
                    assert_eq!(code, Some(4504));
                    refused += 1;
                }
            }
        }
        // On a busy machine Redis may be too slow to be asked. Then each gateway counts by itself.
        if fallbacks(&cluster).await == before {
            assert_eq!((sockets.len(), refused), (MOST, 3 * MOST));
            break sockets;
        }
    };
    // A place that is left is free at once, at the other gateway too.
    for gateway in [0, 1] {
        until("all places are taken", SOON, async || close_of(gateway).await.err() == Some(Some(4504))).await;
        sockets.pop().unwrap().close().await;
        let mut again = None;
        until("a place is free again", SOON, async || {
            again = close_of(gateway).await.ok();
            again.is_some()
        })
        .await;
        sockets.extend(again);
    }
    // A gateway that dies holds no places, and its devices come back to another one.
    cluster.gateways[1].kill9().unwrap();
    let (mut there, mut here) = (Vec::new(), Vec::new());
    for mut socket in sockets {
        socket.say(&json!({"type": "Ping", "t": 1})).await.ok();
        match socket.expect("Pong", SOON).await {
            Ok(_) => here.push(socket),
            Err(_) => there.push(socket),
        }
    }
    for _ in 0..there.len() {
        let mut again = None;
        until("the places of the dead are free", SOON, async || {
            again = outcome(&cluster, 0, &account).await.ok();
            again.is_some()
        })
        .await;
        here.extend(again);
    }
    assert_eq!(here.len(), MOST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_has_missed_a_heartbeat_gives_its_place_to_a_new_one() {
    const MOST: usize = 4;
    let heartbeat = secs(6);
    let build = Build::new("silent_seats")
        .gateways(2)
        .env("MT_LINGER_MS", 1_000)
        .env("MT_SESSIONS_PER_USER", MOST)
        .env("MT_HEARTBEAT_MS", heartbeat.as_millis());
    let mut cluster = build.start().await;
    let account = cluster.accounts(1).await.remove(0);
    for newcomer in [0, 1] {
        // Clients that lost their connection without a word: they answer no ping.
        let query = format!("token={}", account.access_token);
        let mut silent = Vec::new();
        let opened = Instant::now();
        for at in 0..MOST {
            let mut raw = Raw::open(&cluster.urls[at % 2], &query, &[]).await;
            raw.expect("Live", SOON).await;
            silent.push(raw);
        }
        // Nobody has missed a heartbeat yet.
        until("all places are taken", SOON, async || {
            outcome(&cluster, newcomer, &account).await.err() == Some(Some(4504))
        })
        .await;
        let mut new = None;
        until("a place of the silent ones", 2 * heartbeat, async || {
            new = outcome(&cluster, newcomer, &account).await.ok();
            new.is_some()
        })
        .await;
        let after = opened.elapsed();
        assert!(after > heartbeat && after < 2 * heartbeat, "{after:?}");
        for mut raw in silent {
            let frames = raw.frames(2 * heartbeat).await;
            assert_eq!(frames.last().and_then(Frame::close_code), Some(4412));
        }
        new.unwrap().close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_refusals_in_ten_seconds_are_a_flood() {
    let mut cluster =
        Build::new("flood").env("MT_COMMANDS_PER_S", 1).env("MT_COMMANDS_BURST", 1).start().await;
    let account = cluster.accounts(1).await.remove(0);
    let chat = cluster.group(&[&account]).await;
    let (mut socket, _) = cluster.live(0, &account).await;
    for n in 0..400 {
        // The close may come while we still send.
        if socket.say(&send_frame(chat, &format!("{n}")).1).await.is_err() {
            break;
        }
    }
    assert_eq!(socket.closed(SOON).await.unwrap(), Some(4429));
}

/// Reads nothing for a while, so that the gateway's writes stall.
async fn stall(socket: &mut Socket, length: Duration) -> Option<u16> {
    tokio::time::sleep(length).await;
    loop {
        if let Received::Closed(code) = tokio::time::timeout(SOON, socket.next()).await.unwrap() {
            return code;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_without_progress_is_closed_and_its_neighbours_notice_nothing() {
    let build = Build::new("stall").env("MT_STALL_MS", 1_000).env("MT_LINGER_MS", 20_000);
    let mut cluster = build.env("MT_OUTBOX_BYTES", 65_536).start().await;
    let accounts = cluster.accounts(2).await;
    let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
    let mut connect = cluster.connect(0, &accounts[1]);
    connect.receive_buffer = Some(4_096);
    let (mut stalled, _) = crate::support::cluster::open_live(&connect).await;
    let (mut neighbour, _) = cluster.live(0, &accounts[1]).await;
    let (mut author, _) = cluster.live(0, &accounts[0]).await;
    let body = "x".repeat(16_000);
    // More than both kernels' buffers hold.
    let count = 500;
    let writer = tokio::spawn(async move {
        for _ in 0..count {
            send(&mut author, chat, &body).await;
        }
    });
    let mut slowest = Duration::ZERO;
    for _ in 0..count {
        let waited = Instant::now();
        neighbour.expect("Message", SOON).await.unwrap();
        slowest = slowest.max(waited.elapsed());
    }
    writer.await.unwrap();
    assert!(slowest < secs(2), "the neighbour waited {slowest:?}");
    let code = stall(&mut stalled, millis(3_000)).await;
    assert_eq!(code, Some(4408));
}
