//! Membership is decided by the log's order, and reads after writes see it at any gateway.

use serde_json::{Value, json};

use crate::support::{
    cluster::{Build, SOON, ask, open_live, send, send_frame},
    session::{durable, replay, seqs},
    wait::{secs, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_gets_the_own_removal_and_nothing_after() {
    let mut cluster = Build::new("removal").gateways(2).start().await;
    let accounts = cluster.accounts(3).await;
    let (alice, bob, eve) = (&accounts[0], &accounts[1], &accounts[2]);
    let chat = cluster.group(&[alice, bob, eve]).await;
    let (mut alices, _) = cluster.live(0, alice).await;
    let (mut eves, eves_cursor) = cluster.live(1, eve).await;
    let before = send(&mut alices, chat, "before").await;
    let path = format!("/v1/chats/{chat}/members/{}", eve.user_id);
    assert_eq!(cluster.api(0, alice).delete(&path).await.unwrap().status, 204);
    let after = send(&mut alices, chat, "after").await;

    let durable = |frame: &Value| matches!(frame["type"].as_str(), Some("Message" | "Event"));
    assert_eq!(eves.until(SOON, durable).await.unwrap()["seq"], before);
    let left = eves.until(SOON, durable).await.unwrap();
    assert_eq!(left["kind"], "memberLeft", "{left}");
    assert_eq!(left["data"], json!({"userId": eve.user_id, "reason": "removed"}));
    // Refused like a chat that does not exist, on both lanes and at both gateways.
    let error = ask(&mut eves, &send_frame(chat, "one more word").1).await;
    assert_eq!(error["code"], "chat.not_found", "{error}");
    for gateway in [0, 1] {
        let reply = cluster.api(gateway, eve).get(&format!("/v1/chats/{chat}/messages")).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.code()), (404, "chat.not_found".to_owned()));
        let members =
            cluster.api(gateway, bob).get(&format!("/v1/chats/{chat}/members")).await.unwrap().json();
        let listed: Vec<u64> =
            members["members"].as_array().unwrap().iter().map(|m| m["userId"].as_u64().unwrap()).collect();
        assert!(!listed.contains(&eve.user_id), "{members}");
    }

    // A resume from before gets the same and no more.
    let (_, events, ..) = replay(&cluster.connect(1, eve).with("cursor", &eves_cursor)).await;
    assert_eq!(seqs(&events), [before, left["seq"].as_u64().unwrap()]);

    // Back again: told so, and from there on everything.
    let add = json!({"userIds": [eve.user_id]});
    let reply = cluster.api(1, alice).post(&format!("/v1/chats/{chat}/members"), &add).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text);
    let joined = eves.until(SOON, durable).await.unwrap();
    assert_eq!(joined["kind"], "memberJoined", "{joined}");
    let back = send(&mut alices, chat, "welcome back").await;
    let message = eves.until(SOON, durable).await.unwrap();
    assert_eq!((&message["seq"], &message["prev"]), (&json!(back), &joined["seq"]), "{message}");
    assert_eq!(ask(&mut eves, &send_frame(chat, "thanks").1).await["type"], "Ack");

    // A replay over both: not what was said in between.
    let (_, events, ..) = replay(&cluster.connect(1, eve).with("cursor", &eves_cursor)).await;
    let got = seqs(&events);
    assert!(!got.contains(&after), "{got:?}");
    assert_eq!(&got[..3], [before, left["seq"].as_u64().unwrap(), joined["seq"].as_u64().unwrap()]);
    assert_eq!(got.len(), 5, "{got:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_from_the_join_on_hides_what_was_before() {
    let mut cluster = Build::new("history_join").gateways(2).start().await;
    let accounts = cluster.accounts(2).await;
    let (alice, bob) = (&accounts[0], &accounts[1]);
    let chat = cluster.group(&[alice]).await;
    let settings = json!({"history": "join", "title": "from now on"});
    let reply = cluster.api(0, alice).patch(&format!("/v1/chats/{chat}"), &settings).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text);
    let (mut alices, _) = cluster.live(0, alice).await;
    send(&mut alices, chat, "hidden").await;
    let add = json!({"userIds": [bob.user_id]});
    assert_eq!(
        cluster.api(1, alice).post(&format!("/v1/chats/{chat}/members"), &add).await.unwrap().status,
        200
    );
    let shown = send(&mut alices, chat, "shown").await;
    let (history, _) = cluster.api(1, bob).history(chat).await.unwrap();
    assert_eq!(history.iter().map(|message| message.seq).collect::<Vec<_>>(), [shown]);
    let (mut bobs, _) = open_live(&cluster.connect(1, bob)).await;
    let fetch =
        json!({"type": "Fetch", "uuid": uuid::Uuid::now_v7(), "chatId": chat, "after": 0, "limit": 100});
    let page = ask(&mut bobs, &fetch).await;
    let bodies: Vec<&str> =
        page["events"].as_array().unwrap().iter().filter_map(|event| event["body"].as_str()).collect();
    assert_eq!(bodies, ["shown"], "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_cannot_tell_what_was_before_their_join() {
    let mut cluster = Build::new("before_join").gateways(2).presence().start().await;
    let accounts = cluster.accounts(3).await;
    let (alice, bob, carol) = (&accounts[0], &accounts[1], &accounts[2]);
    let body = json!({"type": 2, "memberIds": [carol.user_id], "title": "from now on", "history": "join"});
    let made = cluster.api(0, alice).post("/v1/chats", &body).await.unwrap().json();
    let chat = made["id"].as_u64().unwrap();
    let (mut alices, _) = cluster.live(0, alice).await;
    let old = send(&mut alices, chat, "old").await;
    alices.say(&json!({"type": "Read", "chatId": chat, "seq": old})).await.unwrap();
    let add = json!({"userIds": [bob.user_id], "role": "admin"});
    let members = format!("/v1/chats/{chat}/members");
    assert_eq!(cluster.api(1, alice).post(&members, &add).await.unwrap().status, 200);
    let nothing = made["lastSeq"].as_u64().unwrap();
    let listed = cluster.api(1, bob).get("/v1/chats").await.unwrap().json();
    assert_eq!(listed["chats"][0]["lastMessage"], Value::Null, "{listed}");

    // Whether there is a message at a place from before makes no difference to what the newcomer may do.
    let (mut bobs, _) = cluster.live(1, bob).await;
    let command = |fields: Value| {
        let mut frame = json!({"uuid": uuid::Uuid::now_v7(), "chatId": chat});
        frame.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        frame
    };
    for (seq, what) in [(old, "a message"), (nothing, "none")] {
        for (fields, code) in [
            (json!({"type": "React", "seq": seq, "emoji": "👍", "on": true}), "message.not_found"),
            (json!({"type": "React", "seq": seq, "emoji": "👍", "on": false}), "message.not_found"),
            (json!({"type": "EditMessage", "seq": seq, "body": "mine now"}), "message.not_found"),
            (json!({"type": "DeleteMessage", "seq": seq}), "message.not_found"),
            (json!({"type": "SendMessage", "body": "what?", "replyTo": seq}), "message.bad_reply"),
        ] {
            let answer = ask(&mut bobs, &command(fields)).await;
            assert_eq!(answer["code"], code, "{what}: {answer}");
        }
        let body = json!({"uuid": uuid::Uuid::now_v7(), "body": "what?", "replyTo": seq});
        let reply = cluster.api(0, bob).post(&format!("/v1/chats/{chat}/messages"), &body).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.code()), (422, "message.bad_reply".to_owned()), "{what}");
    }

    // What others do to it is a place in the order, and no more: live, in a replay, and on a page.
    let (_, bobs_cursor) = cluster.live(1, bob).await;
    let (mut carols, _) = cluster.live(0, carol).await;
    for fields in [
        json!({"type": "SendMessage", "body": "an answer", "replyTo": old}),
        json!({"type": "EditMessage", "seq": old, "body": "the old text"}),
        json!({"type": "React", "seq": old, "emoji": "👍", "on": true}),
        json!({"type": "DeleteMessage", "seq": old}),
    ] {
        assert_eq!(ask(&mut alices, &command(fields)).await["type"], "Ack");
    }
    let veiled = |events: &[Value]| {
        let kinds: Vec<&str> =
            events.iter().map(|event| event["kind"].as_str().unwrap_or("message")).collect();
        assert_eq!(kinds, ["message", "noop", "noop", "noop"], "{events:?}");
        assert!(events.iter().all(|event| !event.to_string().contains("old text")), "{events:?}");
        assert_eq!(events[0]["replyTo"], Value::Null, "{events:?}");
    };
    veiled(&durable(&mut bobs, 4).await);
    let whole = durable(&mut carols, 4).await;
    assert_eq!(whole[0]["replyTo"], old, "{whole:?}");
    assert_eq!((&whole[1]["kind"], &whole[1]["data"]["body"]), (&json!("edited"), &json!("the old text")));
    for gateway in [0, 1] {
        let (_, events, ..) = replay(&cluster.connect(gateway, bob).with("cursor", &bobs_cursor)).await;
        veiled(&events);
        let (mut socket, _) = cluster.live(gateway, bob).await;
        let page = ask(&mut socket, &command(json!({"type": "Fetch", "after": 0, "limit": 100}))).await;
        veiled(&page["events"].as_array().unwrap()[1..]);
        let history = cluster.api(gateway, bob).get(&format!("/v1/chats/{chat}/messages")).await.unwrap();
        assert_eq!(history.json()["messages"][0]["replyTo"], Value::Null, "{}", history.text);
    }

    // Nor how far others had read by then.
    let recap = async || {
        let (mut socket, _) = cluster.live(1, bob).await;
        let of_chat = |frame: &Value| frame["type"] == "Receipts" && frame["chatId"] == chat;
        let frame = socket.until(secs(1), of_chat).await.unwrap_or_default();
        frame["receipts"].as_array().cloned().unwrap_or_default()
    };
    let shown = send(&mut carols, chat, "shown").await;
    carols.say(&json!({"type": "Read", "chatId": chat, "seq": shown})).await.unwrap();
    until("the marks that the newcomer may see", SOON, async || {
        let marks = recap().await;
        assert!(marks.iter().all(|mark| mark["readSeq"] == 0 || mark["readSeq"] == shown), "{marks:?}");
        marks.iter().any(|mark| mark["userId"] == carol.user_id)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_owner_stays_and_roles_decide() {
    let mut cluster = Build::new("roles").gateways(2).start().await;
    let accounts = cluster.accounts(3).await;
    let (owner, admin, member) = (&accounts[0], &accounts[1], &accounts[2]);
    let chat = cluster.group(&[owner, admin, member]).await;
    let of = |account: &loadtest::provision::Account| format!("/v1/chats/{chat}/members/{}", account.user_id);
    let promote = json!({"role": "admin"});
    assert_eq!(cluster.api(0, owner).patch(&of(admin), &promote).await.unwrap().status, 200);
    let refusals = [
        (cluster.api(1, member).patch(&of(admin), &promote).await, 403, "chat.forbidden"),
        (cluster.api(1, member).delete(&of(admin)).await, 403, "chat.forbidden"),
        (cluster.api(1, admin).delete(&of(owner)).await, 403, "chat.forbidden"),
        (cluster.api(1, owner).delete(&of(owner)).await, 409, "chat.last_owner"),
        (cluster.api(1, owner).patch(&of(owner), &promote).await, 409, "chat.last_owner"),
        (
            cluster.api(1, owner).delete(&format!("/v1/chats/{chat}/members/999999")).await,
            404,
            "member.not_found",
        ),
    ];
    for (n, (reply, status, code)) in refusals.into_iter().enumerate() {
        let reply = reply.unwrap();
        assert_eq!((reply.status.as_u16(), reply.code()), (status, code.to_owned()), "{n}: {}", reply.text);
    }
    assert_eq!(cluster.api(1, admin).delete(&of(member)).await.unwrap().status, 204);
    assert_eq!(cluster.api(0, admin).delete(&of(admin)).await.unwrap().status, 204);
    assert_eq!(cluster.api(0, owner).delete(&of(owner)).await.unwrap().status, 204);
}
