//! Read and delivered marks: monotonic, announced, counted.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn reading_is_announced_and_moves_only_forward() {
    let world = World::new("reading", 2, 1);
    let users = world.users(3);
    let [anna, ben, eve] = &users[..] else { unreachable!() };
    let chat = world.direct(anna, ben).await;
    let mut anna_web = world.connect_to(0, anna).await;
    let mut ben_web = world.connect_to(1, ben).await;
    let mut ben_phone = world.connect_to(0, ben).await;
    let mut eve_web = world.connect_to(0, eve).await;
    let mut seqs = Vec::new();
    for body in ["one", "two", "three"] {
        seqs.push(anna_web.say(chat, body).await);
    }
    ben_web.wait("three", |frame| frame["seq"] == seqs[2]).await;
    assert_eq!(world.listed(ben, chat).await["unread"], 3);

    ben_web.read(chat, seqs[1]).await;
    let receipt = json!({ "userId": ben.id, "readSeq": seqs[1], "deliveredSeq": seqs[1] });
    assert_eq!(anna_web.receipt(chat, ben.id, 1, 1).await, receipt);
    assert_eq!(ben_phone.receipt(chat, ben.id, 1, 1).await, receipt, "the reader's other device");
    let listed = world.listed(ben, chat).await;
    assert_eq!((&listed["unread"], &listed["readSeq"]), (&json!(1), &json!(seqs[1])));

    ben_web.read(chat, seqs[0]).await;
    ben_web.read(chat, seqs[2]).await;
    anna_web.receipt(chat, ben.id, seqs[2], seqs[2]).await;
    let listed = world.listed(ben, chat).await;
    assert_eq!((&listed["unread"], &listed["readSeq"]), (&json!(0), &json!(seqs[2])));
    let mut late = world.connect_to(1, anna).await;
    late.receipt(chat, ben.id, seqs[2], seqs[2]).await;

    ben_web.read(chat, seqs[2] + 1_000).await;
    let error = ben_web.wait("Error", |frame| frame["type"] == "Error").await;
    assert_eq!(error["code"], "read.beyond_head");
    eve_web.read(chat, seqs[0]).await;
    let error = eve_web.wait("Error", |frame| frame["type"] == "Error").await;
    assert_eq!(error["code"], "chat.not_found");
    let backwards = |frame: &Value| {
        frame["type"] == "Receipts"
            && frame["receipts"].as_array().unwrap().iter().any(|r| r["readSeq"] == seqs[0])
    };
    assert!(!anna_web.drain(Duration::from_millis(200)).await.iter().any(backwards));
}

#[tokio::test(flavor = "multi_thread")]
async fn delivered_moves_a_mark_in_each_chat_that_the_cursor_covers() {
    let world = World::new("delivered", 1, 1);
    let users = world.users(3);
    let [anna, ben, cleo] = &users[..] else { unreachable!() };
    let (first, second) = (world.direct(anna, ben).await, world.direct(ben, cleo).await);
    let mut anna_web = world.connect(anna).await;
    let mut cleo_web = world.connect(cleo).await;
    let mut ben_web = world.connect(ben).await;
    let one = anna_web.say(first, "one").await;
    let two = cleo_web.say(second, "two").await;
    ben_web.wait("two", |frame| frame["seq"] == two).await;
    let cursor = ben_web.wait("Cursor", |frame| frame["type"] == "Cursor").await;
    ben_web.send(json!({ "type": "Delivered", "cursor": cursor["cursor"] })).await;
    assert_eq!(
        anna_web.receipt(first, ben.id, 0, one).await,
        json!({ "userId": ben.id, "readSeq": 0, "deliveredSeq": one })
    );
    cleo_web.receipt(second, ben.id, 0, two).await;

    let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
    anna_web.send(json!({ "type": "Delivered", "cursor": cursor["cursor"], "uuid": uuid })).await;
    let error = anna_web.wait("Error", |frame| frame["type"] == "Error").await;
    assert_eq!((error["code"].as_str().unwrap(), error["uuid"].as_str().unwrap()), ("cursor.invalid", uuid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_readers_is_one_frame_a_window() {
    const MEMBERS: usize = 500;
    const WINDOW_MS: u64 = 500;
    let env = &[
        ("MT_RECEIPTS_WINDOW_MS", "500"),
        ("MT_PRESENCE_REPORT_MS", "200"),
        ("MT_LIMIT_CONNECTS_PER_MIN", "1000"),
    ];
    let world = World::with("storm", 2, 2, env);
    let users = world.users(MEMBERS);
    let chat = world.group(&users[0], &users[1..]).await;
    let mut sockets = Vec::new();
    for (at, users) in users.chunks(50).enumerate() {
        sockets.extend(join_all(users.iter().map(|user| world.connect_to(at % 2, user))).await);
    }
    let seq = sockets[0].say(chat, "read this").await;
    join_all(sockets.iter_mut().map(|socket| socket.wait("it", |frame| frame["seq"] == seq))).await;
    let start = tokio::time::Instant::now();
    join_all(sockets.iter_mut().map(|socket| socket.read(chat, seq))).await;
    // Everybody learns of everybody.
    let watch = async |socket: &mut crate::socket::Socket| {
        let (mut frames, mut readers) = (0_u32, std::collections::HashSet::new());
        while readers.len() < MEMBERS {
            let frame = socket.wait("Receipts", |frame| frame["type"] == "Receipts").await;
            frames += 1;
            let receipts = frame["receipts"].as_array().unwrap();
            let read = receipts.iter().filter(|receipt| receipt["readSeq"] == seq);
            readers.extend(read.map(|receipt| receipt["userId"].as_u64().unwrap()));
        }
        frames
    };
    let counts = join_all(sockets.iter_mut().map(watch)).await;
    let windows = start.elapsed().as_millis() as u64 / WINDOW_MS + 2;
    let most = counts.iter().max().unwrap();
    assert!(u64::from(*most) <= windows, "{most} frames in {windows} windows");
}

/// The chat list's `unread` against a count by hand, over a random history of sends, deletes and reads.
#[tokio::test(flavor = "multi_thread")]
async fn unread_is_what_a_brute_force_count_says() {
    let world = World::new("unread", 1, 1);
    let users = world.users(3);
    let chat = world.group(&users[0], &users[1..]).await;
    let mut sockets = Vec::new();
    for user in &users {
        sockets.push(world.connect(user).await);
    }
    // (seq, author, deleted)
    let mut messages: Vec<(u64, usize, bool)> = Vec::new();
    let mut read = [0_u64; 3];
    for step in 0..60_u32 {
        let who = (rand::random::<u32>() % 3) as usize;
        match rand::random::<u32>() % 6 {
            0 if !messages.is_empty() => {
                let at = rand::random::<u32>() as usize % messages.len();
                let (seq, author, deleted) = &mut messages[at];
                if !*deleted {
                    let uuid = uuid::Uuid::now_v7().to_string();
                    let delete =
                        json!({ "type": "DeleteMessage", "uuid": uuid, "chatId": chat, "seq": *seq });
                    sockets[*author].send(delete).await;
                    let ack =
                        sockets[*author].wait("Ack", |frame| frame["uuid"] == uuid && frame["type"] == "Ack");
                    ack.await;
                    *deleted = true;
                }
            }
            1 | 2 if !messages.is_empty() => {
                let (seq, ..) = messages[rand::random::<u32>() as usize % messages.len()];
                sockets[who].read(chat, seq).await;
                if seq > read[who] {
                    let user = users[who].id;
                    sockets[(who + 1) % 3].receipt(chat, user, seq, seq).await;
                    read[who] = seq;
                }
            }
            _ => {
                let seq = sockets[who].say(chat, &format!("message {step}")).await;
                messages.push((seq, who, false));
                // Sending moves the sender's own mark.
                read[who] = read[who].max(seq);
            }
        }
        if step % 5 == 4 {
            for (who, user) in users.iter().enumerate() {
                let unread = messages
                    .iter()
                    .filter(|(seq, author, deleted)| *seq > read[who] && *author != who && !deleted);
                let listed = world.listed(user, chat).await;
                assert_eq!(
                    listed["unread"],
                    unread.count(),
                    "step {step}, user {who}: {messages:?} {read:?} {listed}"
                );
            }
        }
    }
}
