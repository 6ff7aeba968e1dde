//! A position moves by proof alone, and a gateway that can prove nothing says so and takes no sessions.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use loadtest::{
    client::socket::{Connect, Received, Refused, Socket},
    provision::Account,
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::support::{
    cluster::{Build, Cluster, SOON, answer, ask, open_live, send, send_frame},
    proxy::{Cut, Proxy},
    session::{replay, seqs},
    wait::{millis, secs, until},
};

const CHATS: usize = 4;
const DEVICES: usize = 12;
/// Some three times what the ring holds.
const RING_BYTES: usize = 262_144;
const EVENTS: usize = 900;
const BODY_BYTES: usize = 900;

/// Sends to the chats in turn, many at once. What each chat got, in order.
async fn fill(author: &mut Socket, chats: &[u64]) -> BTreeMap<u64, Vec<u64>> {
    const AT_ONCE: usize = 32;
    let body = "x".repeat(BODY_BYTES);
    let mut sent: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for turn in 0..EVENTS.div_ceil(AT_ONCE) {
        let frames: Vec<(u64, Value)> = (0..AT_ONCE)
            .map(|n| chats[(turn * AT_ONCE + n) % chats.len()])
            .map(|chat| (chat, send_frame(chat, &body).1))
            .collect();
        for (_, frame) in &frames {
            author.say(frame).await.unwrap();
        }
        for _ in &frames {
            let ack = author.until(SOON, |frame| matches!(frame["type"].as_str(), Some("Ack" | "Error")));
            let ack = ack.await.unwrap();
            assert_eq!(ack["type"], "Ack", "{ack}");
            let chat = ack["chatId"].as_u64().unwrap();
            sent.entry(chat).or_default().push(ack["seq"].as_u64().unwrap());
        }
    }
    sent.values_mut().for_each(|seqs| seqs.sort_unstable());
    sent
}

/// Every event once, in order, and each names the one before.
fn check(events: &[Value], sent: &BTreeMap<u64, Vec<u64>>, heads: &BTreeMap<u64, u64>) {
    assert!(seqs(events).is_sorted());
    for (chat, sent) in sent {
        let got: Vec<&Value> = events.iter().filter(|event| event["chatId"] == json!(chat)).collect();
        let got_seqs: Vec<u64> = got.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(&got_seqs, sent, "chat {chat}");
        let mut prev = heads[chat];
        for event in got {
            assert_eq!(event["prev"], json!(prev), "chat {chat}: {event}");
            prev = event["seq"].as_u64().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_resume_while_the_projector_catches_up_miss_nothing() {
    let mut cluster = Build::new("lagging").env("MT_RING_BYTES", RING_BYTES).start().await;
    let accounts = cluster.accounts(DEVICES + 1).await;
    let everyone: Vec<&Account> = accounts.iter().collect();
    let mut chats = Vec::new();
    for _ in 0..CHATS {
        chats.push(cluster.group(&everyone).await);
    }
    let (mut author, _) = cluster.live(0, &accounts[0]).await;
    for _ in 0..3 {
        let mut heads = BTreeMap::new();
        for chat in &chats {
            heads.insert(*chat, send(&mut author, *chat, "before").await);
        }
        let mut devices = Vec::new();
        for account in &accounts[1..] {
            let (socket, cursor) = cluster.live(0, account).await;
            socket.close().await;
            devices.push(cluster.connect(0, account).with("cursor", &cursor));
        }
        cluster.projectors[0].sigstop().unwrap();
        let sent = fill(&mut author, &chats).await;
        cluster.projectors[0].sigcont().unwrap();
        let mut resumes = tokio::task::JoinSet::new();
        for connect in devices {
            resumes.spawn(async move { replay(&connect).await });
        }
        for (resumed, events, live, _) in resumes.join_all().await {
            assert!(resumed);
            assert_eq!(live["replayed"], json!(events.len()), "{live}");
            check(&events, &sent, &heads);
        }
    }
}

/// Reads until the session has the event, and a cursor that covers it.
async fn newest_cursor(socket: &mut Socket, seq: u64) -> String {
    socket.until(SOON, |frame| frame["type"] == "Message" && frame["seq"] == json!(seq)).await.unwrap();
    let cursor = socket.expect("Cursor", SOON).await.unwrap();
    cursor["cursor"].as_str().unwrap().to_owned()
}

/// What a gateway that can't judge a cursor may do: refuse the upgrade, or close with 4404. It never speaks of the
/// cursor, and never begins.
async fn turned_away(connect: &Connect) {
    let mut socket = match connect.open().await {
        Ok(socket) => socket,
        Err(Refused::Http { status, headers, body }) => {
            assert_eq!(status, 503, "{body}");
            assert!(headers.contains_key("retry-after"));
            return;
        }
        Err(failed) => panic!("{failed}"),
    };
    match tokio::time::timeout(SOON, socket.next()).await.expect("an end") {
        Received::Closed(code) => assert_eq!(code, Some(4404)),
        other => panic!("a session that can't be: {other:?}"),
    }
}

/// Waits for `/readyz` to say 503 because of the log.
async fn unready(cluster: &Cluster, gateway: usize, limit: Duration) {
    let api = cluster.anonymous(gateway);
    until("the gateway is unready", limit, async || {
        let reply = api.get("/readyz").await.unwrap();
        let log = reply.json()["checks"]["log"].as_str().is_some_and(|log| log.starts_with("down"));
        reply.status == 503 && log
    })
    .await;
}

async fn cut_off(name: &str, cut: Cut) {
    let (mut cluster, proxy, accounts, chat) = Cluster::behind_a_proxy(name).await;
    let (alice, bob) = (&accounts[0], &accounts[1]);
    let (apart, here) = (0, 1);
    let (_stays, _) = cluster.live(apart, alice).await;
    let (mut device, _) = cluster.live(here, alice).await;
    let (mut author, _) = cluster.live(here, bob).await;
    for n in 0..5 {
        send(&mut author, chat, &format!("before {n}")).await;
    }
    proxy.cut(cut);
    let begun = Instant::now();
    let last = send(&mut author, chat, "where G2 does not hear").await;
    let cursor = newest_cursor(&mut device, last).await;
    device.close().await;

    let connect = cluster.connect(apart, alice).with("cursor", &cursor);
    turned_away(&connect).await;
    unready(&cluster, apart, secs(4).saturating_sub(begun.elapsed())).await;
    // However long it lasts.
    let unready_since = Instant::now();
    while unready_since.elapsed() < millis(1_500) {
        turned_away(&connect).await;
    }
    let missed: Vec<u64> = {
        let mut missed = Vec::new();
        for n in 0..5 {
            missed.push(send(&mut author, chat, &format!("during {n}")).await);
        }
        missed
    };
    proxy.heal();
    cluster.wait_ready(apart).await;
    let (resumed, events, _, mut socket) = replay(&connect).await;
    assert!(resumed);
    assert_eq!(seqs(&events), missed);
    assert_eq!(events[0]["prev"], json!(last));
    let next = send(&mut author, chat, "live again").await;
    let message = socket.expect("Message", SOON).await.unwrap();
    assert_eq!((&message["seq"], &message["prev"]), (&json!(next), &json!(missed.last())));
    cluster.secret(&cursor);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_neither_hears_nor_reaches_the_log_judges_no_cursor() {
    cut_off("cut_both", Cut::Both).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_does_not_hear_the_log_judges_no_cursor() {
    cut_off("cut_hearing", Cut::Hearing).await;
}

/// It hears all that happens, so it may serve whoever only listens. That appends have no answer shows with the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_does_not_reach_the_log_takes_no_sessions_once_it_knows() {
    let (mut cluster, proxy, accounts, chat) = Cluster::behind_a_proxy("cut_reaching").await;
    let (alice, bob) = (&accounts[0], &accounts[1]);
    let (apart, here) = (0, 1);
    let (mut stays, _) = cluster.live(apart, alice).await;
    let (mut device, _) = cluster.live(here, alice).await;
    let (mut author, _) = cluster.live(here, bob).await;
    send(&mut author, chat, "before").await;
    proxy.cut(Cut::Reaching);
    let last = send(&mut author, chat, "heard all the same").await;
    let cursor = newest_cursor(&mut device, last).await;
    cluster.secret(&cursor);
    device.close().await;
    stays.say(&send_frame(chat, "never reaches it").1).await.unwrap();
    unready(&cluster, apart, secs(4)).await;
    let connect = cluster.connect(apart, alice).with("cursor", &cursor);
    for _ in 0..3 {
        turned_away(&connect).await;
    }
    proxy.heal();
    // The log has had no part of it, and the gateway goes on trying for the sender.
    let late = stays.until(secs(20), |frame| frame["body"] == "never reaches it").await.unwrap();
    cluster.wait_ready(apart).await;
    let (resumed, events, _, _) = replay(&connect).await;
    assert!(resumed);
    assert_eq!(seqs(&events), [late["seq"].as_u64().unwrap()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_unready_while_the_log_is_full() {
    let mut cluster = Build::new("full_ready").private().env("MT_LOG_MAX_BYTES", 2_000_000).start().await;
    let accounts = cluster.accounts(2).await;
    let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
    let (mut socket, cursor) = cluster.live(0, &accounts[0]).await;
    let body = "x".repeat(16_000);
    until("the log is full", secs(30), async || {
        ask(&mut socket, &send_frame(chat, &body).1).await["code"] == "log.full"
    })
    .await;
    unready(&cluster, 0, secs(4)).await;
    let connect = cluster.connect(0, &accounts[0]).with("cursor", &cursor);
    turned_away(&connect).await;
    // The operator gives it room.
    cluster.apply_streams(&[("MT_LOG_MAX_BYTES", "8000000")]);
    cluster.wait_ready(0).await;
    open_live(&connect).await;
    send(&mut socket, chat, "room again").await;
}

/// A server of NATS whose write has failed answers, and stores nothing more until it is started anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_stores_nothing_makes_gateways_unready_and_loses_nothing() {
    let mut cluster = Build::new("disk_full").private().start().await;
    let accounts = cluster.accounts(1).await;
    let chat = cluster.group(&[&accounts[0]]).await;
    let (mut socket, cursor) = cluster.live(0, &accounts[0]).await;
    let before = send(&mut socket, chat, "before").await;
    let nats = cluster.stack().nats.pid().and_then(|pid| Pid::from_raw(pid as i32));
    let grow = |most: Option<u64>| {
        prlimit(nats, Resource::Fsize, Rlimit { current: most, maximum: None }).expect("a limit");
    };
    grow(Some(1));
    let (_, refused) = send_frame(chat, "while nothing is stored");
    socket.say(&refused).await.unwrap();
    unready(&cluster, 0, SOON).await;
    let checks = cluster.anonymous(0).get("/readyz").await.unwrap().json();
    assert!(checks["checks"]["log"].as_str().is_some_and(|log| log.contains("disk")), "{checks}");
    let error = answer(&mut socket, &refused["uuid"], secs(20)).await;
    assert_eq!((&error["type"], &error["temporary"]), (&json!("Error"), &json!(true)), "{error}");
    // Room alone does not help: NATS remembers the failed write.
    grow(None);
    cluster.stack().nats.restart().unwrap();
    cluster.wait_ready(0).await;
    let ack = ask(&mut socket, &refused).await;
    assert_eq!((&ack["type"], &ack["dup"]), (&json!("Ack"), &json!(false)), "{ack}");
    let connect = cluster.connect(0, &accounts[0]).with("cursor", &cursor);
    let (resumed, events, _, _) = replay(&connect).await;
    assert!(resumed);
    assert_eq!(seqs(&events), [before, ack["seq"].as_u64().unwrap()]);
}

/// A command whose first attempt the log has stored without being heard is no duplicate: nobody sent it before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_was_repeated_inside_is_no_duplicate() {
    let (cluster, proxy, accounts, chat) = Cluster::behind_a_proxy("repeated").await;
    let (mut socket, _) = cluster.live(0, &accounts[0]).await;
    send(&mut socket, chat, "before").await;
    let (uuid, frame) = send_frame(chat, "heard the second time");
    proxy.cut(Cut::Hearing);
    socket.say(&frame).await.unwrap();
    stored(&cluster, &uuid, &proxy).await;
    let ack = answer(&mut socket, &frame["uuid"], secs(20)).await;
    assert_eq!((&ack["type"], &ack["dup"]), (&json!("Ack"), &json!(false)), "{ack}");
    let again = ask(&mut socket, &frame).await;
    assert_eq!((&again["seq"], &again["dup"]), (&ack["seq"], &json!(true)), "{again}");
}

/// Waits until the log holds the command, and lets the gateway hear again.
async fn stored(cluster: &Cluster, uuid: &str, proxy: &Proxy) {
    until("the log has it", SOON, async || {
        let entries =
            loadtest::oracle::log::read(cluster.env("MT_NATS_URL"), cluster.env("MT_STREAM_PREFIX")).await;
        entries.unwrap().iter().any(|entry| entry.uuid.to_string() == uuid)
    })
    .await;
    proxy.heal();
}
