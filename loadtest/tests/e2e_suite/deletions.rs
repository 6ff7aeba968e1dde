//! A deletion is final: whatever comes after it in the log about the message is refused, and no text of it reaches
//! anybody, whoever had checked what before.

use loadtest::client::socket::Socket;
use serde_json::{Value, json};

use crate::support::{
    cluster::{Build, Cluster, SOON, answer, ask, send, send_frame},
    proxy::Cut,
    session::replay,
    wait::{millis, secs, until},
};

/// Races on each of these messages.
const ROUNDS: usize = 30;

fn edit(chat: u64, seq: u64) -> Value {
    let uuid = uuid::Uuid::now_v7();
    json!({"type": "EditMessage", "uuid": uuid, "chatId": chat, "seq": seq, "body": "a second thought"})
}

fn react(chat: u64, seq: u64) -> Value {
    let uuid = uuid::Uuid::now_v7();
    json!({"type": "React", "uuid": uuid, "chatId": chat, "seq": seq, "emoji": "👍", "on": true})
}

fn delete(chat: u64, seq: u64) -> Value {
    json!({"type": "DeleteMessage", "uuid": uuid::Uuid::now_v7(), "chatId": chat, "seq": seq})
}

/// The definite answer. A message that is older than the ring may not have come to the projection yet.
async fn settled(session: &mut Socket, command: &Value) -> Value {
    loop {
        let answer = ask(session, command).await;
        if answer["temporary"] != true {
            return answer;
        }
        tokio::time::sleep(millis(50)).await;
    }
}

/// Alice deletes each message at one gateway while she edits it at another and Bob reacts to it there.
async fn race(sessions: [&mut Socket; 3], chat: u64, messages: &[u64]) {
    let [deleting, editing, reacting] = sessions;
    for (round, message) in messages.iter().enumerate() {
        let (edit, react, delete) = (edit(chat, *message), react(chat, *message), delete(chat, *message));
        let (deletion, edited, reacted) =
            tokio::join!(settled(deleting, &delete), settled(editing, &edit), settled(reacting, &react));
        assert_eq!(deletion["type"], "Ack", "{deletion}");
        for revised in [edited, reacted] {
            if revised["type"] == "Ack" {
                assert!(
                    revised["seq"].as_u64() < deletion["seq"].as_u64(),
                    "round {round}: {revised} {deletion}"
                );
            } else {
                assert_eq!(revised["code"], "message.deleted", "round {round}: {revised}");
            }
        }
    }
}

/// What a device was told, in order: nothing is about a message after its deletion.
fn assert_final(events: &[Value]) {
    let mut deleted = Vec::new();
    for event in events {
        let about = &event["data"]["seq"];
        match event["kind"].as_str() {
            Some("deleted") => deleted.push(about.clone()),
            Some("edited" | "reaction") => assert!(!deleted.contains(about), "after its deletion: {event}"),
            _ => {}
        }
    }
    assert_eq!(deleted.len(), ROUNDS);
}

async fn races(name: &str, ring_bytes: usize, filler: usize) {
    let build = Build::new(name).gateways(2).env("MT_RING_BYTES", ring_bytes);
    let mut cluster = build.env("MT_OUTBOX_BYTES", 8 << 20).start().await;
    let accounts = cluster.accounts(2).await;
    let (alice, bob) = (&accounts[0], &accounts[1]);
    let chat = cluster.group(&[alice, bob]).await;
    let (mut deleting, start) = cluster.live(0, alice).await;
    let (mut editing, _) = cluster.live(1, alice).await;
    let (mut reacting, _) = cluster.live(1, bob).await;
    let mut messages = Vec::new();
    for n in 0..ROUNDS {
        messages.push(send(&mut deleting, chat, &format!("a first thought {n}")).await);
    }
    let body = "x".repeat(16_000);
    for _ in 0..filler {
        send(&mut deleting, chat, &body).await;
    }
    let (mut listening, _) = cluster.live(1, bob).await;
    race([&mut deleting, &mut editing, &mut reacting], chat, &messages).await;
    let last = send(&mut deleting, chat, "the end").await;
    let mut live = Vec::new();
    while live.last().is_none_or(|event: &Value| event["seq"] != last) {
        live.push(
            listening.until(SOON, |event| event["seq"].is_u64() && event["prev"].is_u64()).await.unwrap(),
        );
    }
    assert_final(&live);
    // The same for whoever reads it later, from the ring, the projection or the history.
    for gateway in [0, 1] {
        let (_, events, ..) = replay(&cluster.connect(gateway, alice).with("cursor", &start)).await;
        assert_final(&events);
        let page =
            cluster.api(gateway, bob).get(&format!("/v1/chats/{chat}/messages?after=0&limit=100")).await;
        let page = page.unwrap().json();
        let found = page["messages"].as_array().unwrap();
        for message in found.iter().filter(|found| messages.contains(&found["seq"].as_u64().unwrap())) {
            assert_eq!((&message["body"], &message["deleted"]), (&json!(""), &json!(true)), "{message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_after_a_deletion_in_the_log_is_refused_and_heard_by_nobody() {
    races("deletions", 8 << 20, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_of_a_message_that_is_older_than_the_ring_is_final_too() {
    races("old_deletions", 262_144, 40).await;
}

/// The first attempt of an edit is on its way to the log while the message is deleted and the edit is refused elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_that_was_refused_is_nowhere_although_an_attempt_of_it_was_stuck() {
    let (cluster, proxy, accounts, chat) = Cluster::behind_a_proxy("stuck_edit").await;
    let (alice, bob) = (&accounts[0], &accounts[1]);
    let (mut stuck, start) = cluster.live(0, alice).await;
    let (mut elsewhere, _) = cluster.live(1, alice).await;
    let message = send(&mut stuck, chat, "a first thought").await;
    // A gateway that does not know the log's time yet asks the log before it appends: then it is that which is stuck.
    let edit = loop {
        let edit = edit(chat, message);
        proxy.hold(Cut::Reaching);
        stuck.say(&edit).await.unwrap();
        let sent = until("the attempt is on its way", SOON, async || proxy.holds("a second thought"));
        if tokio::time::timeout(secs(1), sent).await.is_ok() {
            break edit;
        }
        proxy.release();
        answer(&mut stuck, &edit["uuid"], secs(20)).await;
    };
    let deletion = ask(&mut elsewhere, &delete(chat, message)).await;
    assert_eq!(deletion["type"], "Ack", "{deletion}");
    let refused = ask(&mut elsewhere, &edit).await;
    assert_eq!(
        (&refused["code"], &refused["temporary"]),
        (&json!("message.deleted"), &json!(false)),
        "{refused}"
    );
    proxy.release();
    let late = answer(&mut stuck, &edit["uuid"], secs(20)).await;
    assert_eq!((&late["type"], &late["code"]), (&json!("Error"), &json!("message.deleted")), "{late}");
    let last = ask(&mut elsewhere, &send_frame(chat, "the end").1).await;
    assert_eq!(last["type"], "Ack", "{last}");
    for gateway in [0, 1] {
        let (_, events, ..) = replay(&cluster.connect(gateway, alice).with("cursor", &start)).await;
        let kinds: Vec<&str> = events.iter().filter_map(|event| event["kind"].as_str()).collect();
        let late = kinds.iter().skip_while(|kind| **kind != "deleted").count();
        assert_eq!(late, 1, "nothing but the deletion: {events:?}");
        let page = cluster.api(gateway, bob).get(&format!("/v1/chats/{chat}/messages")).await.unwrap().json();
        let found = page["messages"].as_array().unwrap();
        let found = found.iter().find(|found| found["seq"] == message).unwrap();
        assert_eq!((&found["body"], &found["deleted"]), (&json!(""), &json!(true)), "{found}");
    }
}
