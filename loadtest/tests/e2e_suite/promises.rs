//! The promises of the protocol that two clients can check: acks, order, resume, and the first README's client.

use async_nats::jetstream::stream::DiscardPolicy;
use loadtest::client::socket::{Connect, Socket};
use serde_json::{Value, json};

use crate::support::{
    cluster::{Build, Cluster, SOON, ask, open_live, send, send_frame},
    session::{durable, no_durable, replay, seqs},
    wait::{millis, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acked_message_is_in_history_and_a_retry_gets_its_seq() {
    let mut cluster = Build::new("ack").gateways(2).start().await;
    let accounts = cluster.accounts(3).await;
    let (alice, bob, eve) = (&accounts[0], &accounts[1], &accounts[2]);
    let chat = cluster.group(&[alice, bob]).await;
    let other = cluster.group(&[alice, bob]).await;
    let (mut socket, _) = cluster.live(0, alice).await;

    for n in 0..20 {
        let (uuid, frame) = send_frame(chat, &format!("number {n}"));
        let ack = ask(&mut socket, &frame).await;
        assert_eq!(
            (&ack["type"], &ack["dup"], &ack["chatId"]),
            (&json!("Ack"), &json!(false), &json!(chat)),
            "{ack}"
        );
        // Linearizable: asked at the other gateway, by another member, right after the ack.
        let path = format!("/v1/chats/{chat}/messages?limit=1");
        let page = cluster.api(1, bob).get(&path).await.unwrap().json();
        assert_eq!(page["messages"][0]["uuid"], json!(uuid), "{page}");
        assert_eq!(page["messages"][0]["seq"], ack["seq"], "{page}");
    }

    let (uuid, frame) = send_frame(chat, "said once");
    let first = ask(&mut socket, &frame).await;
    let (mut elsewhere, _) = cluster.live(1, alice).await;
    for socket in [&mut socket, &mut elsewhere] {
        let again = ask(socket, &frame).await;
        assert_eq!((&again["seq"], &again["dup"]), (&first["seq"], &json!(true)), "{again}");
        assert_eq!(again["ts"], first["ts"]);
    }
    let by_http = cluster
        .api(1, alice)
        .post(&format!("/v1/chats/{chat}/messages"), &json!({"uuid": uuid, "body": "said once"}))
        .await
        .unwrap();
    assert_eq!((by_http.status.as_u16(), &by_http.json()["seq"]), (200, &first["seq"]), "{}", by_http.text);

    let mut altered = frame.clone();
    altered["body"] = json!("said otherwise");
    let error = ask(&mut elsewhere, &altered).await;
    assert_eq!(
        (&error["code"], &error["temporary"]),
        (&json!("command.uuid_reused"), &json!(false)),
        "{error}"
    );
    let mut moved = frame.clone();
    moved["chatId"] = json!(other);
    let ack = ask(&mut elsewhere, &moved).await;
    assert_eq!((&ack["type"], &ack["dup"]), (&json!("Ack"), &json!(false)), "{ack}");

    // Another author may use the same uuid.
    let (mut bobs, _) = cluster.live(1, bob).await;
    let ack = ask(&mut bobs, &frame).await;
    assert_eq!((&ack["type"], &ack["dup"]), (&json!("Ack"), &json!(false)), "{ack}");

    let (mut eves, _) = cluster.live(0, eve).await;
    let (refused, frame) = send_frame(chat, "let me in");
    let error = ask(&mut eves, &frame).await;
    assert_eq!((&error["code"], &error["temporary"]), (&json!("chat.not_found"), &json!(false)), "{error}");
    let (history, _) = cluster.api(1, bob).history(chat).await.unwrap();
    assert!(history.iter().all(|message| message.uuid.to_string() != refused));
    assert_eq!(history.iter().filter(|message| message.uuid.to_string() == uuid).count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_after_a_restart_gets_the_same_seq() {
    let mut cluster = Build::new("ack_restart").start().await;
    let accounts = cluster.accounts(2).await;
    let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
    let (mut socket, _) = cluster.live(0, &accounts[0]).await;
    let (_, fresh) = send_frame(chat, "fresh");
    let mut old = send_frame(chat, "not fresh").1;
    old["uuid"] = json!(uuid::Uuid::new_v4());
    let mut seqs = Vec::new();
    for frame in [&fresh, &old] {
        let ack = ask(&mut socket, frame).await;
        assert_eq!(ack["type"], "Ack", "{ack}");
        seqs.push(ack["seq"].clone());
    }
    cluster.gateways[0].kill9().unwrap();
    cluster.restart_gateway(0).await;
    let (mut socket, _) = cluster.live(0, &accounts[0]).await;
    for (frame, seq) in [&fresh, &old].into_iter().zip(seqs) {
        let ack = ask(&mut socket, frame).await;
        assert_eq!((&ack["seq"], &ack["dup"]), (&seq, &json!(true)), "{ack}");
    }
    let (history, _) = cluster.api(0, &accounts[1]).history(chat).await.unwrap();
    assert_eq!(history.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everyone_sees_one_order_with_an_unbroken_prev_chain() {
    let mut cluster = Build::new("order").gateways(2).start().await;
    let accounts = cluster.accounts(2).await;
    let (alice, bob) = (&accounts[0], &accounts[1]);
    let mut sockets = Vec::new();
    for (gateway, account) in [(0, alice), (1, alice), (0, bob), (1, bob)] {
        sockets.push(cluster.live(gateway, account).await.0);
    }
    let chat = cluster.group(&[alice, bob]).await;
    let mut uuids = Vec::new();
    for n in 0..10 {
        // Two devices of the author and the other member talk at once, without waiting for acks.
        for at in [0, 1, 3] {
            let (uuid, frame) = send_frame(chat, &format!("{n} from {at}"));
            sockets[at].say(&frame).await.unwrap();
            uuids.push(uuid);
        }
    }
    let mut views = Vec::new();
    for socket in &mut sockets {
        views.push(durable(socket, uuids.len() + 1).await);
    }
    let positions = |view: &[Value]| -> Vec<(u64, u64)> {
        view.iter().map(|e| (e["seq"].as_u64().unwrap(), e["prev"].as_u64().unwrap())).collect()
    };
    let first = &views[0];
    assert_eq!((&first[0]["type"], &first[0]["kind"]), (&json!("Event"), &json!("chatCreated")));
    for pair in positions(first).windows(2) {
        assert!(pair[0].0 < pair[1].0 && pair[1].1 == pair[0].0, "{pair:?}");
    }
    for view in &views[1..] {
        assert_eq!(positions(view), positions(first));
        assert!(view.iter().zip(first).all(|(one, other)| one["uuid"] == other["uuid"]));
    }
    let (history, _) = cluster.api(1, bob).history(chat).await.unwrap();
    let in_history: Vec<u64> = history.iter().map(|message| message.seq).collect();
    let delivered: Vec<u64> = positions(first).iter().skip(1).map(|(seq, _)| *seq).collect();
    assert_eq!(in_history, delivered);
}

async fn say_many(socket: &mut Socket, chats: &[u64], count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    for n in 0..count {
        seqs.push(send(socket, chats[n % chats.len()], &format!("message {n}")).await);
    }
    seqs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_brings_what_was_missed_at_any_gateway() {
    let mut cluster = Build::new("resume_basic").gateways(2).start().await;
    let accounts = cluster.accounts(3).await;
    let (alice, bob, eve) = (&accounts[0], &accounts[1], &accounts[2]);
    let chats = [cluster.group(&[alice, bob]).await, cluster.group(&[alice, bob]).await];
    let foreign = cluster.group(&[alice, eve]).await;

    let (resumed, events, live, socket) = replay(&cluster.connect(0, bob)).await;
    assert!(!resumed && events.is_empty() && live["replayed"] == 0, "{live}");
    let cursor = live["cursor"].as_str().unwrap().to_owned();
    socket.close().await;

    let (mut alices, _) = cluster.live(1, alice).await;
    send(&mut alices, foreign, "not for bob").await;
    let sent = say_many(&mut alices, &chats, 30).await;
    for gateway in [1, 0, 1] {
        // The same cursor serves any number of times, at any gateway.
        let resume = cluster.connect(gateway, bob).with("cursor", &cursor);
        let (resumed, events, live, _) = replay(&resume).await;
        assert!(resumed);
        assert_eq!(seqs(&events), sent);
        assert_eq!(live["replayed"], 30, "{live}");
    }

    // Each cursor covers what came before it, and follows within a second.
    let resume = cluster.connect(0, bob).with("cursor", &cursor);
    let (_, _, live, mut bobs) = replay(&resume).await;
    let at_live = live["cursor"].as_str().unwrap().to_owned();
    let (nothing_missed, events, ..) = replay(&cluster.connect(1, bob).with("cursor", &at_live)).await;
    assert!(nothing_missed && events.is_empty(), "{events:?}");
    let last = send(&mut alices, chats[0], "one more").await;
    let message = bobs.expect("Message", SOON).await.unwrap();
    assert_eq!(message["seq"], last);
    let later = bobs.expect("Cursor", millis(1_500)).await.unwrap();
    let later = later["cursor"].as_str().unwrap();
    let (_, events, ..) = replay(&cluster.connect(1, bob).with("cursor", later)).await;
    assert!(events.is_empty(), "{events:?}");

    // A snapshot of the chat list is a cursor too.
    let list = cluster.api(0, bob).get("/v1/chats").await.unwrap().json();
    let after = say_many(&mut alices, &chats, 4).await;
    let snapshot = list["cursor"].as_str().unwrap();
    let (resumed, events, ..) = replay(&cluster.connect(1, bob).with("cursor", snapshot)).await;
    assert!(resumed);
    assert_eq!(seqs(&events), after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_older_than_what_the_log_keeps_is_told_so_and_the_session_starts_fresh() {
    let mut cluster = Build::new("expired").start().await;
    let accounts = cluster.accounts(2).await;
    let (alice, bob) = (&accounts[0], &accounts[1]);
    let chat = cluster.group(&[alice, bob]).await;
    let (_, old) = cluster.live(0, bob).await;
    let (mut alices, _) = cluster.live(0, alice).await;
    send(&mut alices, chat, "missed for good").await;
    send(&mut alices, chat, "the last").await;
    // In history: the projector has passed what is about to go.
    let path = format!("/v1/chats/{chat}/messages?limit=1");
    until("a fresh history", SOON, async || {
        cluster.api(0, bob).get(&path).await.is_ok_and(|answer| answer.json()["stale"] != true)
    })
    .await;
    keep_the_last(&cluster, 1).await;

    let mut codes = Vec::new();
    until("the gateway's look at the log", SOON, async || {
        let mut socket = cluster.connect(0, bob).with("cursor", &old).open().await.unwrap();
        let welcome = socket.frame(SOON).await.unwrap();
        let next = socket.frame(SOON).await.unwrap();
        codes = vec![welcome["resumed"].clone(), next["code"].clone()];
        next["type"] == "Error" && {
            let live = socket.expect("Live", SOON).await.unwrap();
            live["replayed"] == 0
        }
    })
    .await;
    assert_eq!(codes, [json!(false), json!("cursor.expired")]);
    let (resumed, events, live, _) = replay(&cluster.connect(0, bob)).await;
    assert!(!resumed && events.is_empty(), "{events:?}");
    let fresh = live["cursor"].as_str().unwrap();
    assert!(replay(&cluster.connect(0, bob).with("cursor", fresh)).await.0, "a new cursor is as good as any");
}

/// As an operator would who limits the log: it denies every purge.
async fn keep_the_last(cluster: &Cluster, messages: i64) {
    let nats = async_nats::connect(cluster.env("MT_NATS_URL")).await.unwrap();
    let name = format!("{}CHAT_0", cluster.env("MT_STREAM_PREFIX").to_uppercase());
    let jetstream = async_nats::jetstream::new(nats);
    let mut config = jetstream.get_stream(name).await.unwrap().cached_info().config.clone();
    config.max_messages = messages;
    config.discard = DiscardPolicy::Old;
    jetstream.update_stream(config).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_is_not_ones_own_is_refused_and_the_session_starts_fresh() {
    let mut cluster = Build::new("cursor").start().await;
    let accounts = cluster.accounts(2).await;
    let (alice, bob) = (&accounts[0], &accounts[1]);
    let chat = cluster.group(&[alice, bob]).await;
    let (mut alices, cursor) = cluster.live(0, alice).await;
    send(&mut alices, chat, "hello").await;
    let mut damaged = cursor.clone().into_bytes();
    let at = damaged.len() / 2;
    damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
    let damaged = String::from_utf8(damaged).unwrap();
    for (account, cursor) in [(bob, cursor.as_str()), (alice, &damaged), (alice, "garbage"), (alice, "")] {
        let mut socket = cluster.connect(0, account).with("cursor", cursor).open().await.unwrap();
        let welcome = socket.frame(SOON).await.unwrap();
        assert_eq!((&welcome["type"], &welcome["resumed"]), (&json!("Welcome"), &json!(false)), "{welcome}");
        if !cursor.is_empty() {
            let error = socket.expect("Error", SOON).await.unwrap();
            assert_eq!(error["code"], "cursor.invalid", "{error}");
        }
        let live = socket.expect("Live", SOON).await.unwrap();
        assert_eq!(live["replayed"], 0, "{live}");
        // Fresh, and alive.
        let seq = send(&mut alices, chat, "are you there?").await;
        let message = socket.expect("Message", SOON).await.unwrap();
        assert_eq!(message["seq"], seq);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_readme_s_client_gets_live_events() {
    let mut cluster = Build::new("seed").gateways(2).env("MT_HEARTBEAT_MS", 400).start().await;
    let alice = cluster.registered("alice").await;
    let bob = cluster.registered("bob").await;
    let chat = cluster.group(&[&alice.account, &bob.account]).await;
    let connect = |gateway: usize, token: &str| Connect {
        gateway: cluster.urls[gateway].clone(),
        query: format!("token={token}&device=web"),
        ..Connect::default()
    };
    let mut alices = connect(0, &alice.account.access_token).open().await.unwrap();
    let mut bobs = connect(1, &bob.account.access_token).open().await.unwrap();
    // The seed's frame as it was printed, but for the chat's number.
    let text = format!(
        r#"{{"type":"SendMessage","uuid":"client-generated-uuid","chatId":{chat},"body":"Hello, World!"}}"#
    );
    bobs.expect("Welcome", SOON).await.unwrap();
    alices.expect("Welcome", SOON).await.unwrap();
    alices.send(text).await.unwrap();
    let message = bobs.expect("Message", SOON).await.unwrap();
    assert_eq!((&message["body"], &message["chatId"]), (&json!("Hello, World!"), &json!(chat)), "{message}");
    alices.expect("Message", SOON).await.unwrap();
    // It only listens: the library's control pongs keep it alive over many heartbeats.
    let mut pings = 0;
    while pings < 5 {
        bobs.expect("Ping", SOON).await.unwrap();
        pings += 1;
    }
    let new = cluster.group(&[&alice.account, &bob.account]).await;
    let created = bobs.expect("Event", SOON).await.unwrap();
    assert_eq!((&created["kind"], &created["chatId"]), (&json!("chatCreated"), &json!(new)));
    let (mut talker, _) = open_live(&cluster.connect(0, &alice.account)).await;
    send(&mut talker, new, "in the new chat").await;
    let message = bobs.expect("Message", SOON).await.unwrap();
    assert_eq!(message["chatId"], json!(new));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetch_pages_are_the_events_in_order() {
    let mut cluster = Build::new("fetch").start().await;
    let accounts = cluster.accounts(3).await;
    let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
    let (mut socket, _) = cluster.live(0, &accounts[0]).await;
    let created = first_event(chat, &mut socket).await;
    let sent = say_many(&mut socket, &[chat], 7).await;
    let all: Vec<u64> = [created].into_iter().chain(sent.iter().copied()).collect();
    let fetch = |part: Value| {
        let mut frame = json!({"type": "Fetch", "uuid": uuid::Uuid::now_v7(), "chatId": chat});
        frame.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        frame
    };
    for (part, expected, more) in [
        (json!({"after": 0, "limit": 100}), &all[..], false),
        (json!({"after": 0, "limit": 3}), &all[..3], true),
        (json!({"after": all[2], "limit": 2}), &all[3..5], true),
        (json!({"after": all[7], "limit": 2}), &all[8..], false),
        (json!({"before": all[7], "limit": 2}), &all[5..7], true),
        (json!({"before": all[1], "limit": 5}), &all[..1], false),
    ] {
        let page = ask(&mut socket, &fetch(part.clone())).await;
        assert_eq!(page["type"], "Page", "{page}");
        let got = seqs(page["events"].as_array().unwrap());
        assert_eq!((got.as_slice(), &page["more"]), (expected, &json!(more)), "{part}");
    }
    let (mut stranger, _) = cluster.live(0, &accounts[2]).await;
    let error = ask(&mut stranger, &fetch(json!({"after": 0, "limit": 10}))).await;
    assert_eq!(error["code"], "chat.not_found", "{error}");
    no_durable(&mut stranger).await;
}

/// The sequence of the chat's first event, from a page.
async fn first_event(chat: u64, socket: &mut Socket) -> u64 {
    let fetch =
        json!({"type": "Fetch", "uuid": uuid::Uuid::now_v7(), "chatId": chat, "after": 0, "limit": 1});
    let page = ask(socket, &fetch).await;
    page["events"][0]["seq"].as_u64().unwrap()
}
