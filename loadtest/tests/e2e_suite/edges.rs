//! Rare conditions: retries outside the dedupe window, appends through a network that stalls, chats that are older
//! than the ring, a frozen projector, a full log, hashing beside live traffic.

use std::time::{Duration, Instant};

use loadtest::{client::socket::Socket, provision::Account};
use serde_json::{Value, json};

use crate::support::{
    cluster::{Build, Cluster, SOON, answer, ask, send, send_frame},
    wait::{millis, secs, until},
};

fn with_v4(chat: u64, body: &str) -> Value {
    let mut frame = send_frame(chat, body).1;
    frame["uuid"] = json!(uuid::Uuid::new_v4());
    frame
}

async fn history(cluster: &Cluster, gateway: usize, account: &Account, chat: u64) -> Vec<(u64, String)> {
    let (messages, _) = cluster.api(gateway, account).history(chat).await.unwrap();
    messages.into_iter().map(|message| (message.seq, message.uuid.to_string())).collect()
}

/// A history that is proven fresh.
async fn fresh_history(cluster: &Cluster, account: &Account, chat: u64, limit: Duration) -> Vec<u64> {
    let mut found = Vec::new();
    until("a history that is not stale", limit, async || {
        let Ok((messages, stale)) = cluster.api(0, account).history(chat).await else { return false };
        found = messages.into_iter().map(|message| message.seq).collect();
        !stale
    })
    .await;
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_v4_uuid_outside_the_dedupe_window_is_one_message() {
    let mut cluster = Build::new("v4").gateways(2).env("MT_DUPLICATE_WINDOW_MS", 100).start().await;
    let accounts = cluster.accounts(2).await;
    let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
    let (mut one, _) = cluster.live(0, &accounts[0]).await;
    let (mut other, _) = cluster.live(1, &accounts[0]).await;
    cluster.projectors[0].sigstop().unwrap();
    let mut seqs = Vec::new();
    for n in 0..5 {
        let frame = with_v4(chat, &format!("v4 {n}"));
        let ack = ask(&mut one, &frame).await;
        assert_eq!(ack["type"], "Ack", "{ack}");
        // Past the window, so that the log itself would take it twice.
        tokio::time::sleep(millis(250)).await;
        let again = ask(&mut other, &frame).await;
        assert_eq!((&again["seq"], &again["dup"]), (&ack["seq"], &json!(true)), "{again}");
        seqs.push(ack["seq"].as_u64().unwrap());
    }
    // Both gateways at once: one of them wins, and both say so.
    for n in 0..10 {
        let frame = with_v4(chat, &format!("race {n}"));
        one.say(&frame).await.unwrap();
        other.say(&frame).await.unwrap();
        let first = answer(&mut one, &frame["uuid"], SOON).await;
        let second = answer(&mut other, &frame["uuid"], SOON).await;
        assert_eq!((&first["type"], &second["type"]), (&json!("Ack"), &json!("Ack")), "{first} {second}");
        assert_eq!(first["seq"], second["seq"]);
        seqs.push(first["seq"].as_u64().unwrap());
    }
    cluster.projectors[0].sigcont().unwrap();
    assert_eq!(fresh_history(&cluster, &accounts[1], chat, secs(30)).await, seqs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_that_was_stuck_never_surfaces_later() {
    let (cluster, proxy, accounts, chat) = Cluster::behind_a_proxy("stuck").await;
    let (mut socket, _) = cluster.live(0, &accounts[0]).await;
    send(&mut socket, chat, "before").await;
    proxy.stall();
    let (stuck, frame) = send_frame(chat, "stuck");
    let begun = Instant::now();
    let error = {
        socket.say(&frame).await.unwrap();
        answer(&mut socket, &frame["uuid"], secs(20)).await
    };
    assert_eq!((&error["type"], &error["temporary"]), (&json!("Error"), &json!(true)), "{error}");
    assert_eq!(error["code"], "log.unavailable", "{error}");
    assert!(begun.elapsed() > secs(5), "given up after {:?}", begun.elapsed());
    proxy.heal();
    // The gateway is back: a later message of the same session passes.
    let later = send_frame(chat, "later").1;
    until("the gateway appends again", secs(20), async || ask(&mut socket, &later).await["type"] == "Ack")
        .await;
    // Nothing of the stuck publish in the log, now or a while after, when an old queue would have been flushed.
    for _ in 0..2 {
        let entries =
            loadtest::oracle::log::read(cluster.env("MT_NATS_URL"), cluster.env("MT_STREAM_PREFIX"));
        assert!(entries.await.unwrap().iter().all(|entry| entry.uuid.to_string() != stuck));
        tokio::time::sleep(secs(3)).await;
    }
    let ack = ask(&mut socket, &frame).await;
    assert_eq!((&ack["type"], &ack["dup"]), (&json!("Ack"), &json!(false)), "{ack}");
    let found = history(&cluster, 1, &accounts[1], chat).await;
    assert_eq!(found.iter().filter(|(_, uuid)| *uuid == stuck).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_a_session_holds_when_its_first_message_times_out() {
    let (cluster, proxy, accounts, chat) = Cluster::behind_a_proxy("order_stall").await;
    let (mut socket, _) = cluster.live(0, &accounts[0]).await;
    for round in 0..2 {
        proxy.stall();
        let frames: Vec<Value> = (0..3).map(|n| send_frame(chat, &format!("{round}.{n}")).1).collect();
        for frame in &frames {
            socket.say(frame).await.unwrap();
        }
        // Longer than the wait for one PubAck, shorter than the command's deadline.
        tokio::time::sleep(millis(3_000)).await;
        proxy.heal();
        let mut answers: std::collections::HashMap<String, u64> = std::collections::HashMap::new();
        while answers.len() < frames.len() {
            let reply = socket
                .until(secs(20), |reply| matches!(reply["type"].as_str(), Some("Ack" | "Error")))
                .await
                .unwrap();
            assert_eq!(reply["type"], "Ack", "{reply}");
            answers.insert(reply["uuid"].as_str().unwrap().to_owned(), reply["seq"].as_u64().unwrap());
        }
        let seqs: Vec<u64> = frames.iter().map(|frame| answers[frame["uuid"].as_str().unwrap()]).collect();
        assert!(seqs.is_sorted(), "{seqs:?}");
    }
    assert_eq!(history(&cluster, 1, &accounts[1], chat).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_projector_is_replaced_and_does_no_harm_when_it_wakes() {
    let mut cluster = Build::new("frozen").gateways(1).projectors(2).start().await;
    let accounts = cluster.accounts(2).await;
    let (alice, bob) = (&accounts[0], &accounts[1]);
    let chat = cluster.group(&[alice, bob]).await;
    let (mut socket, _) = cluster.live(0, alice).await;
    let mut sent = vec![send(&mut socket, chat, "first").await];
    fresh_history(&cluster, bob, chat, SOON).await;
    // The active one is the one without which the history is stale.
    let mut active = None;
    for at in 0..2 {
        cluster.projectors[at].sigstop().unwrap();
        sent.push(send(&mut socket, chat, "is it you?").await);
        let (_, stale) = cluster.api(0, bob).history(chat).await.unwrap();
        if stale {
            active = Some(at);
            break;
        }
        cluster.projectors[at].sigcont().unwrap();
    }
    let active = active.expect("one of the projectors is the active one");
    for n in 0..50 {
        sent.push(send(&mut socket, chat, &format!("while it sleeps {n}")).await);
    }
    assert_eq!(fresh_history(&cluster, bob, chat, secs(60)).await, sent);
    cluster.projectors[active].sigcont().unwrap();
    for n in 0..50 {
        sent.push(send(&mut socket, chat, &format!("after it woke {n}")).await);
    }
    assert_eq!(fresh_history(&cluster, bob, chat, SOON).await, sent);
    // Dense numbers: the unread count is their difference.
    let list = cluster.api(0, bob).get(&format!("/v1/chats/{chat}")).await.unwrap().json();
    assert_eq!(list["unread"], json!(sent.len()), "{list}");
    for projector in &mut cluster.projectors {
        assert!(projector.exited().unwrap().is_none(), "{} ended", projector.name());
    }
}

/// Pushes everything older out of a small ring.
async fn flood(socket: &mut Socket, chat: u64) {
    let body = "f".repeat(8_000);
    for _ in 0..60 {
        send(socket, chat, &body).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_older_than_the_ring_keeps_its_chain_on_a_fresh_gateway() {
    let mut cluster = Build::new("old_chat").env("MT_RING_BYTES", 200_000).start().await;
    let accounts = cluster.accounts(2).await;
    let (alice, bob) = (&accounts[0], &accounts[1]);
    let (old, busy) = (cluster.group(&[alice, bob]).await, cluster.group(&[alice]).await);
    let (mut alices, _) = cluster.live(0, alice).await;
    let (bobs, cursor) = cluster.live(0, bob).await;
    bobs.close().await;
    for lagging in [false, true] {
        if lagging {
            cluster.projectors[0].sigstop().unwrap();
        }
        let last = send(&mut alices, old, "the last word for a while").await;
        flood(&mut alices, busy).await;
        let fresh = cluster.add_gateway(&[]).await;
        let (mut socket, _) = cluster.live(fresh, alice).await;
        let frame = send_frame(old, "a new word").1;
        socket.say(&frame).await.unwrap();
        let message =
            socket.until(secs(20), |reply| reply["uuid"] == frame["uuid"] && reply["type"] == "Message");
        let message = message.await.unwrap();
        assert_eq!(message["prev"], json!(last), "lagging {lagging}: {message}");
        // A device that was away longer than the ring remembers gets all of it, at the fresh gateway.
        let mut resumed = cluster.connect(fresh, bob).with("cursor", &cursor).open().await.unwrap();
        let mut got = Vec::new();
        let live = loop {
            let frame = resumed.frame(secs(20)).await.unwrap();
            match frame["type"].as_str() {
                Some("Message") => got.push(frame["seq"].as_u64().unwrap()),
                Some("Live") => break frame,
                _ => {}
            }
        };
        assert_eq!(live["replayed"].as_u64(), Some(got.len() as u64));
        assert_eq!(got.len(), if lagging { 4 } else { 2 }, "lagging {lagging}: {got:?}");
        assert!(got.contains(&last) && got.is_sorted());
    }
    cluster.projectors[0].sigcont().unwrap();
    assert_eq!(fresh_history(&cluster, bob, old, secs(30)).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_refuses_messages_but_takes_deletions() {
    let mut cluster = Build::new("full").private().env("MT_LOG_MAX_BYTES", 2_000_000).start().await;
    let accounts = cluster.accounts(2).await;
    let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
    let (mut socket, _) = cluster.live(0, &accounts[0]).await;
    let body = "x".repeat(16_000);
    let mut acked = Vec::new();
    let refusal = loop {
        let reply = ask(&mut socket, &send_frame(chat, &body).1).await;
        if reply["type"] == "Error" {
            break reply;
        }
        acked.push(reply["seq"].as_u64().unwrap());
        assert!(acked.len() < 200, "the log is never full");
    };
    assert_eq!((&refusal["code"], &refusal["temporary"]), (&json!("log.full"), &json!(true)), "{refusal}");
    let delete =
        json!({"type": "DeleteMessage", "uuid": uuid::Uuid::now_v7(), "chatId": chat, "seq": acked[0]});
    let reply = ask(&mut socket, &delete).await;
    assert_eq!(reply["type"], "Ack", "{reply}");
    let found: Vec<u64> =
        history(&cluster, 0, &accounts[1], chat).await.into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(found, acked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_logins_at_once_leave_the_live_traffic_alone() {
    let mut cluster = Build::new("logins").env("MT_BCRYPT_COST", 12).env("MT_BCRYPT_QUEUE", 8).start().await;
    let alice = cluster.registered("alice").await;
    let chat = cluster.group(&[&alice.account]).await;
    let (mut socket, _) = cluster.live(0, &alice.account).await;
    let mut logins = tokio::task::JoinSet::new();
    let login = json!({"email": "alice@example.org", "password": "correct horse alice"});
    for _ in 0..100 {
        let (api, login) = (cluster.anonymous(0), login.clone());
        logins.spawn(async move { api.post("/v1/auth/login", &login).await.unwrap() });
    }
    let mut waits = Vec::new();
    while waits.len() < 100 {
        let begun = Instant::now();
        send(&mut socket, chat, "beside the hashing").await;
        waits.push(begun.elapsed());
    }
    waits.sort();
    assert!(waits[98] < millis(500), "p99 {:?}", waits[98]);
    let replies = logins.join_all().await;
    for reply in &replies {
        match reply.status.as_u16() {
            200 => {}
            503 => assert!(reply.code() == "server.unavailable" && !reply.header("retry-after").is_empty()),
            other => panic!("{other}: {}", reply.text),
        }
    }
    let full = replies.iter().filter(|reply| reply.status == 503).count();
    assert!((1..100).contains(&full), "{full} of 100 were turned away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_who_is_removed_and_added_again_while_talking() {
    let mut cluster = Build::new("revolving").gateways(2).start().await;
    let accounts = cluster.accounts(3).await;
    let (owner, talker, reader) = (&accounts[0], &accounts[1], &accounts[2]);
    let chat = cluster.group(&[owner, talker, reader]).await;
    let (mut reading, cursor) = cluster.live(1, reader).await;
    let (mut talking, _) = cluster.live(0, talker).await;
    let api = cluster.api(1, owner);
    let turn = async {
        for _ in 0..8 {
            let path = format!("/v1/chats/{chat}/members");
            let gone = api.delete(&format!("{path}/{}", talker.user_id)).await.unwrap();
            assert_eq!(gone.status, 204, "{}", gone.text);
            let back = api.post(&path, &json!({"userIds": [talker.user_id]})).await.unwrap();
            assert_eq!(back.status, 200, "{}", back.text);
        }
    };
    let talk = async {
        let mut acked = Vec::new();
        for n in 0..300 {
            let (uuid, frame) = send_frame(chat, &format!("{n}"));
            let reply = ask(&mut talking, &frame).await;
            match reply["type"].as_str() {
                Some("Ack") => acked.push((reply["seq"].as_u64().unwrap(), uuid)),
                _ => assert_eq!(reply["code"], "chat.not_found", "{reply}"),
            }
        }
        acked
    };
    let ((), acked) = tokio::join!(turn, talk);
    // What was acked is what the reader got live, what a replay brings, and what history holds.
    assert_eq!(history(&cluster, 0, reader, chat).await, acked);
    let messages = async |socket: &mut Socket| {
        let mut got = Vec::new();
        while got.len() < acked.len() {
            let message = socket.expect("Message", SOON).await.unwrap();
            got.push((message["seq"].as_u64().unwrap(), message["uuid"].as_str().unwrap().to_owned()));
        }
        got
    };
    assert_eq!(messages(&mut reading).await, acked);
    let mut replayed = cluster.connect(0, reader).with("cursor", &cursor).open().await.unwrap();
    assert_eq!(messages(&mut replayed).await, acked);
}
