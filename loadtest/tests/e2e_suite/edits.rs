//! Edits, deletions and reactions: live they are events in the log's order, in the history they are the state of the
//! message.

use serde_json::json;

use crate::support::{
    cluster::{Build, ask, send},
    session::{durable, no_durable, replay},
    wait::secs,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_deletes_and_reactions_are_events_and_history_shows_the_state() {
    let mut cluster = Build::new("edits").gateways(2).start().await;
    let accounts = cluster.accounts(2).await;
    let (alice, bob) = (&accounts[0], &accounts[1]);
    let chat = cluster.group(&[alice, bob]).await;
    let (mut alices, _) = cluster.live(0, alice).await;
    let (mut bobs, start) = cluster.live(1, bob).await;
    let edited = send(&mut alices, chat, "frist").await;
    let deleted = send(&mut alices, chat, "a slip").await;
    let uuid = || uuid::Uuid::now_v7();
    let edit = json!({"type": "EditMessage", "uuid": uuid(), "chatId": chat, "seq": edited, "body": "first"});
    let delete = json!({"type": "DeleteMessage", "uuid": uuid(), "chatId": chat, "seq": deleted});
    let react =
        json!({"type": "React", "uuid": uuid(), "chatId": chat, "seq": edited, "emoji": "👍", "on": true});
    for command in [&edit, &delete, &react] {
        let ack = ask(&mut alices, command).await;
        assert_eq!(ack["type"], "Ack", "{ack}");
        let again = ask(&mut alices, command).await;
        assert_eq!((&again["seq"], &again["dup"]), (&ack["seq"], &json!(true)), "{again}");
    }
    let events = durable(&mut bobs, 5).await;
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["kind"].as_str()).collect();
    assert_eq!(kinds, ["edited", "deleted", "reaction"]);
    assert_eq!(events[2]["data"], json!({"seq": edited, "body": "first", "mentions": []}), "{}", events[2]);
    assert_eq!(events[4]["data"], json!({"seq": edited, "emoji": "👍", "on": true}));

    let page = cluster.api(1, bob).get(&format!("/v1/chats/{chat}/messages")).await.unwrap().json();
    let (slip, first) = (&page["messages"][0], &page["messages"][1]);
    assert_eq!((&slip["body"], &slip["deleted"]), (&json!(""), &json!(true)), "{slip}");
    assert_eq!(first["body"], "first");
    assert!(first["editedTs"].is_u64(), "{first}");
    assert_eq!(first["reactions"], json!([{"emoji": "👍", "count": 1, "userIds": [alice.user_id]}]));

    // A replay from before: the deleted body is gone, the events are all there.
    let (_, events, ..) = replay(&cluster.connect(0, bob).with("cursor", &start)).await;
    assert_eq!(events.len(), 5);
    assert_eq!((&events[1]["type"], &events[1]["body"]), (&json!("Message"), &json!("")));

    // Only the author, only what is there.
    for (command, code) in [
        (
            json!({"type": "EditMessage", "uuid": uuid(), "chatId": chat, "seq": edited, "body": "x"}),
            "message.not_author",
        ),
        (
            json!({"type": "DeleteMessage", "uuid": uuid(), "chatId": chat, "seq": edited}),
            "message.not_author",
        ),
        (
            json!({"type": "EditMessage", "uuid": uuid(), "chatId": chat, "seq": 900_000, "body": "x"}),
            "message.not_found",
        ),
        (
            json!({"type": "React", "uuid": uuid(), "chatId": chat, "seq": deleted, "emoji": "👍", "on": true}),
            "message.deleted",
        ),
        (
            json!({"type": "SendMessage", "uuid": uuid(), "chatId": chat, "body": "x", "replyTo": 900_000}),
            "message.bad_reply",
        ),
    ] {
        let error = ask(&mut bobs, &command).await;
        assert_eq!((&error["type"], &error["code"]), (&json!("Error"), &json!(code)), "{command}: {error}");
    }
    tokio::time::timeout(secs(5), no_durable(&mut bobs)).await.unwrap();
}
