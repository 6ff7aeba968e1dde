//! Bad upgrades and bad frames: each gets the specified error, nothing is appended, and the session lives on.

use loadtest::client::socket::{Connect, Refused};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    cluster::{Build, Cluster, SOON, ask, open_live, send, send_frame},
    wait::secs,
};

async fn refused(connect: &Connect) -> (u16, String) {
    match connect.open().await {
        Ok(_) => panic!("not refused: {connect:?}"),
        Err(Refused::Http { status, body, headers }) => {
            let kind = headers.get("content-type").map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(kind.as_deref(), Some("application/problem+json"), "{body}");
            let problem: Value = serde_json::from_str(&body).unwrap_or_default();
            (status, problem["code"].as_str().unwrap_or_default().to_owned())
        }
        Err(failed) => panic!("{failed}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_upgrades_are_plain_http_problems() {
    let mut cluster = Build::new("upgrade").gateways(2).start().await;
    let account = cluster.accounts(1).await.remove(0);
    let short = cluster.accounts_for(1, 1).await.remove(0);
    let plain = |query: &str| Connect {
        gateway: cluster.urls[0].clone(),
        query: query.to_owned(),
        ..Connect::default()
    };
    assert_eq!(refused(&plain("device=web")).await, (401, "auth.missing".to_owned()));
    assert_eq!(refused(&plain("token=garbage")).await, (401, "auth.invalid_token".to_owned()));
    assert_eq!(refused(&plain("ticket=garbage")).await, (401, "auth.invalid_token".to_owned()));
    let mut tampered = account.access_token.clone();
    tampered.pop();
    assert_eq!(refused(&plain(&format!("token={tampered}"))).await, (401, "auth.invalid_token".to_owned()));

    let mut foreign = cluster.connect(0, &account);
    foreign.headers.push(("origin", "https://evil.example".to_owned()));
    let (status, _) = refused(&foreign).await;
    assert_eq!(status, 403);
    let mut own = cluster.connect(0, &account);
    own.headers.push(("origin", cluster.urls[0].clone()));
    open_live(&own).await;

    // A ticket is good for one connection, at any gateway.
    let reply = cluster.api(0, &account).post("/v1/ws/ticket", &json!({})).await.unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text);
    let ticket = reply.json()["ticket"].as_str().unwrap().to_owned();
    cluster.secret(&ticket);
    let with_ticket = |gateway: usize| Connect {
        gateway: cluster.urls[gateway].clone(),
        query: format!("ticket={ticket}"),
        ..Connect::default()
    };
    open_live(&with_ticket(1)).await;
    assert_eq!(refused(&with_ticket(0)).await.0, 401);

    // The token in the subprotocol: the answer names the protocol, never the token.
    let mut browser = Connect { gateway: cluster.urls[0].clone(), ..Connect::default() };
    let offer = format!("mini-telegram.v1, bearer.{}", account.access_token);
    browser.headers.push(("sec-websocket-protocol", offer));
    let (socket, _) = open_live(&browser).await;
    assert_eq!(socket.protocol(), Some("mini-telegram.v1"));

    let mut unsupported = cluster.connect(0, &account).with("v", "2").open().await.unwrap();
    assert_eq!(unsupported.closed(SOON).await.unwrap(), Some(4505));

    let expired = async || {
        let reply = cluster.api(0, &short).get("/v1/me").await.unwrap();
        reply.status == 401 && reply.code() == "auth.expired"
    };
    crate::support::wait::until("the token ends", secs(5), expired).await;
    assert_eq!(refused(&cluster.connect(0, &short)).await, (401, "auth.expired".to_owned()));
}

/// Frames that are JSON but no command, with the uuid that the error must echo.
fn bad_commands(chat: u64) -> Vec<(Value, &'static str)> {
    let uuid = || json!(uuid::Uuid::now_v7());
    let send = |change: Value| {
        let mut frame = json!({"type": "SendMessage", "uuid": uuid(), "chatId": chat, "body": "x"});
        for (field, value) in change.as_object().unwrap() {
            frame[field] = value.clone();
        }
        frame
    };
    vec![
        (send(json!({"body": ""})), "command.invalid"),
        (send(json!({"body": " \n\t "})), "command.invalid"),
        (send(json!({"body": 7})), "command.invalid"),
        (send(json!({"body": null})), "command.invalid"),
        (send(json!({"body": "x".repeat(16_385)})), "command.invalid"),
        (send(json!({"chatId": "1"})), "command.invalid"),
        (send(json!({"chatId": 0})), "command.invalid"),
        (send(json!({"chatId": -1})), "command.invalid"),
        (send(json!({"chatId": 1.5})), "command.invalid"),
        (send(json!({"chatId": 9_007_199_254_740_992_u64})), "command.invalid"),
        (send(json!({"chatId": 9_007_199_254_740_991_u64})), "chat.not_found"),
        (send(json!({"replyTo": "x"})), "command.invalid"),
        (send(json!({"replyTo": 9_000_000})), "message.bad_reply"),
        (send(json!({"mentions": "x"})), "command.invalid"),
        (send(json!({"mentions": [{"userId": 1, "start": 5, "length": 9}]})), "command.invalid"),
        (json!({"type": "EditMessage", "uuid": uuid(), "chatId": chat, "body": "x"}), "command.invalid"),
        (
            json!({"type": "EditMessage", "uuid": uuid(), "chatId": chat, "seq": 9_000_000, "body": "x"}),
            "message.not_found",
        ),
        (json!({"type": "DeleteMessage", "uuid": uuid(), "chatId": chat, "seq": 0}), "command.invalid"),
        (
            json!({"type": "DeleteMessage", "uuid": uuid(), "chatId": chat, "seq": 9_000_000}),
            "message.not_found",
        ),
        (
            json!({"type": "React", "uuid": uuid(), "chatId": chat, "seq": 9_000_000, "emoji": "👍", "on": true}),
            "message.not_found",
        ),
        (
            json!({"type": "React", "uuid": uuid(), "chatId": chat, "seq": 1, "emoji": "no emoji", "on": true}),
            "command.invalid",
        ),
        (
            json!({"type": "React", "uuid": uuid(), "chatId": chat, "seq": 1, "emoji": "👍👍", "on": true}),
            "command.invalid",
        ),
        (
            json!({"type": "Fetch", "uuid": uuid(), "chatId": chat, "after": 1, "before": 2, "limit": 5}),
            "command.invalid",
        ),
        (
            json!({"type": "Fetch", "uuid": uuid(), "chatId": chat, "after": -1, "limit": 5}),
            "command.invalid",
        ),
        (
            json!({"type": "Fetch", "uuid": uuid(), "chatId": chat, "after": 0, "limit": "all"}),
            "command.invalid",
        ),
        (json!({"type": "Read", "uuid": uuid(), "chatId": chat, "seq": 9_000_000}), "read.beyond_head"),
        (
            json!({"type": "WatchPresence", "uuid": uuid(), "userIds": (1..=501).collect::<Vec<u64>>()}),
            "limit.exceeded",
        ),
        (json!({"type": "Auth", "uuid": uuid(), "token": "garbage"}), "auth.invalid_token"),
    ]
}

async fn history_len(cluster: &Cluster, account: &loadtest::provision::Account, chat: u64) -> usize {
    cluster.api(0, account).history(chat).await.unwrap().0.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_commands_get_their_error_and_the_session_lives() {
    let mut cluster = Build::new("bad_commands").presence().start().await;
    let accounts = cluster.accounts(2).await;
    let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
    let (mut socket, _) = cluster.live(0, &accounts[0]).await;
    let secret = format!("a body that no log may hold {chat}");
    send(&mut socket, chat, &secret).await;
    cluster.secret(&secret);
    for (frame, code) in bad_commands(chat) {
        let short = frame.to_string().chars().take(120).collect::<String>();
        let error = ask(&mut socket, &frame).await;
        assert_eq!((&error["type"], &error["code"]), (&json!("Error"), &json!(code)), "{short}: {error}");
        assert_eq!(error["temporary"], json!(false), "{short}: {error}");
    }
    // Without a readable uuid there is nothing to echo, and the error still comes.
    for text in [
        "[]",
        "7",
        "null",
        "\"text\"",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"SendMessage"}"#,
        r#"{"type":"SendMessage","uuid":"not a uuid","chatId":1,"body":"x"}"#,
    ] {
        socket.send(text).await.unwrap();
        let error = socket.expect("Error", SOON).await.unwrap();
        assert_eq!(error["code"], "command.invalid", "{text}: {error}");
    }
    // Unknown types and fields are nobody's fault.
    socket.send(r#"{"type":"FromTheFuture","x":{"y":[1]}}"#).await.unwrap();
    let (_, mut frame) = send_frame(chat, "with a field of the future");
    frame["future"] = json!({"deep": [1, 2, 3]});
    assert_eq!(ask(&mut socket, &frame).await["type"], "Ack");
    // The body is kept verbatim, but for U+0000.
    for (body, kept) in [
        ("  spaces \n kept ", "  spaces \n kept "),
        ("a\u{0}b", "a\u{fffd}b"),
        ("👩‍👩‍👧 é e\u{301}", "👩‍👩‍👧 é e\u{301}"),
    ] {
        let (_, frame) = send_frame(chat, body);
        assert_eq!(ask(&mut socket, &frame).await["type"], "Ack");
        let page =
            cluster.api(0, &accounts[1]).get(&format!("/v1/chats/{chat}/messages?limit=1")).await.unwrap();
        assert_eq!(page.json()["messages"][0]["body"], json!(kept));
    }
    let longest = "ü".repeat(8_192);
    assert_eq!(ask(&mut socket, &send_frame(chat, &longest).1).await["type"], "Ack");
    assert_eq!(history_len(&cluster, &accounts[1], chat).await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unparsable_frames_are_tolerated_five_times() {
    let mut cluster = Build::new("malformed").start().await;
    let account = cluster.accounts(1).await.remove(0);
    let chat = cluster.group(&[&account]).await;
    for kind in ["text", "binary"] {
        let (mut socket, _) = cluster.live(0, &account).await;
        let bad = |n: usize| match kind {
            "text" => Message::text(["{", "nonsense", "{\"type\":\"Ping\",", "\u{1}", "[[[["][n % 5]),
            _ => {
                Message::binary([&[0xc1_u8][..], &[0x93, 1], &[0xdd, 0xff, 0xff, 0xff, 0xff]][n % 3].to_vec())
            }
        };
        for n in 0..5 {
            socket.send_raw(bad(n)).await.unwrap();
            let error = socket.expect("Error", SOON).await.unwrap();
            assert_eq!(error["code"], "frame.malformed", "{kind} {n}: {error}");
        }
        send(&mut socket, chat, "still here").await;
        socket.send_raw(bad(5)).await.unwrap();
        assert_eq!(socket.closed(SOON).await.unwrap(), Some(4501), "{kind}");
    }
    let (mut socket, _) = cluster.live(0, &account).await;
    socket.send("x".repeat(65_537)).await.unwrap();
    assert_eq!(socket.closed(SOON).await.unwrap(), Some(4506));
    // JSON with wrong fields never counts towards a close.
    let (mut socket, _) = cluster.live(0, &account).await;
    for _ in 0..50 {
        socket.send("{}").await.unwrap();
        assert_eq!(socket.expect("Error", SOON).await.unwrap()["code"], "command.invalid");
    }
    send(&mut socket, chat, "still here").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_a_session_are_temporary_errors() {
    let build = Build::new("limits").env("MT_COMMANDS_PER_S", 5).env("MT_COMMANDS_BURST", 5);
    let mut cluster = build.env("MT_INFLIGHT", 64).start().await;
    let account = cluster.accounts(1).await.remove(0);
    let chat = cluster.group(&[&account]).await;
    let (mut socket, _) = cluster.live(0, &account).await;
    let frames: Vec<Value> = (0..30).map(|n| send_frame(chat, &format!("{n}")).1).collect();
    for frame in &frames {
        socket.say(frame).await.unwrap();
    }
    let (mut acked, mut limited) = (0, Vec::new());
    while acked + limited.len() < frames.len() {
        let answer = socket
            .until(SOON, |reply| matches!(reply["type"].as_str(), Some("Ack" | "Error")))
            .await
            .unwrap();
        if answer["type"] == "Ack" {
            acked += 1;
        } else {
            assert_eq!(
                (&answer["code"], &answer["temporary"]),
                (&json!("rate.limited"), &json!(true)),
                "{answer}"
            );
            assert!(answer["retryAfterMs"].as_u64().unwrap() > 0, "{answer}");
            limited.push(answer["uuid"].clone());
        }
    }
    assert!((5..=10).contains(&acked), "{acked} of a burst of 5");
    assert_eq!(history_len(&cluster, &account, chat).await, acked);
    // A retry with the same uuid, later, succeeds.
    let again = frames.iter().find(|frame| frame["uuid"] == limited[0]).unwrap();
    crate::support::wait::until("the limit lets it pass", secs(5), async || {
        ask(&mut socket, again).await["type"] == "Ack"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connects_are_limited_per_user_over_all_gateways_and_resumes_have_room_of_their_own() {
    let build = Build::new("connects").gateways(2).env("MT_LIMIT_CONNECTS_PER_MIN", 4);
    let mut cluster = build.env("MT_LIMIT_RESUMES_PER_MIN", 100).start().await;
    let accounts = cluster.accounts(2).await;
    let (mut opened, mut cursor) = (0, String::new());
    let limited = loop {
        match cluster.connect(opened % 2, &accounts[0]).open().await {
            Ok(mut socket) => {
                let live = socket.expect("Live", SOON).await.unwrap();
                cursor = live["cursor"].as_str().unwrap().to_owned();
                socket.close().await;
                opened += 1;
            }
            Err(refused) => break refused,
        }
        assert!(opened < 10, "never limited");
    };
    let Refused::Http { status, headers, .. } = limited else { panic!("{limited}") };
    assert_eq!((status, headers.contains_key("retry-after")), (429, true));
    assert!((4..=5).contains(&opened), "{opened} connects of 4 a minute");
    for gateway in [0, 1, 0, 1, 0, 1] {
        open_live(&cluster.connect(gateway, &accounts[0]).with("cursor", &cursor)).await;
    }
    // What is no cursor of theirs is no resume, and another user is another matter.
    let forged = cluster.connect(0, &accounts[0]).with("cursor", "forged");
    assert_eq!(refused(&forged).await, (429, "rate.limited".to_owned()));
    cluster.live(0, &accounts[1]).await;
}
