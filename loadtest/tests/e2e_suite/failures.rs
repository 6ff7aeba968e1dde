//! The failure table: the behaviour that users see while a part is down.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{
    cluster::{Build, SOON, answer, ask, send, send_frame},
    wait::{secs, until},
};

fn with_v4(chat: u64) -> Value {
    let mut frame = send_frame(chat, "not fresh").1;
    frame["uuid"] = json!(uuid::Uuid::new_v4());
    frame
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_postgres_connected_sessions_go_on() {
    let mut cluster = Build::new("no_postgres").private().gateways(2).start().await;
    let accounts = cluster.accounts(2).await;
    let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
    let (mut alices, _) = cluster.live(0, &accounts[0]).await;
    let (mut bobs, _) = cluster.live(1, &accounts[1]).await;
    let mut seqs = vec![send(&mut alices, chat, "before").await];
    bobs.expect("Message", SOON).await.unwrap();
    cluster.stack().postgres.kill9().unwrap();
    for n in 0..10 {
        seqs.push(send(&mut alices, chat, &format!("without {n}")).await);
        let message = bobs.expect("Message", SOON).await.unwrap();
        assert_eq!(message["seq"], json!(seqs.last()));
    }
    let reply = cluster.api(0, &accounts[1]).get(&format!("/v1/chats/{chat}/messages")).await.unwrap();
    assert_eq!(
        (reply.status.as_u16(), reply.code()),
        (503, "server.unavailable".to_owned()),
        "{}",
        reply.text
    );
    assert!(!reply.header("retry-after").is_empty());
    let ready = cluster.anonymous(0).get("/readyz").await.unwrap();
    assert_eq!(ready.status, 503, "{}", ready.text);
    assert!(ready.text.contains("postgres"), "{}", ready.text);
    until("Postgres starts again", secs(20), async || cluster.stack().postgres.restart().is_ok()).await;
    let api = cluster.api(1, &accounts[1]);
    until("history is whole", secs(30), async || {
        api.history(chat).await.is_ok_and(|(messages, stale)| {
            !stale && messages.iter().map(|message| message.seq).collect::<Vec<_>>() == seqs
        })
    })
    .await;
    assert_eq!(ask(&mut alices, &with_v4(chat)).await["type"], "Ack");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_sends_are_temporary_errors_and_reads_are_stale() {
    let mut cluster = Build::new("no_nats").private().gateways(1).start().await;
    let accounts = cluster.accounts(2).await;
    let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
    let (mut alices, _) = cluster.live(0, &accounts[0]).await;
    let (mut bobs, _) = cluster.live(0, &accounts[1]).await;
    let seq = send(&mut alices, chat, "before").await;
    bobs.expect("Message", SOON).await.unwrap();
    cluster.stack().nats.kill9().unwrap();
    let (_, frame) = send_frame(chat, "during");
    let begun = Instant::now();
    alices.say(&frame).await.unwrap();
    let error = answer(&mut alices, &frame["uuid"], secs(20)).await;
    assert_eq!((&error["code"], &error["temporary"]), (&json!("log.unavailable"), &json!(true)), "{error}");
    assert!(begun.elapsed() < secs(15), "{:?}", begun.elapsed());
    let page = cluster.api(0, &accounts[1]).get(&format!("/v1/chats/{chat}/messages")).await.unwrap();
    assert_eq!(page.status, 200, "{}", page.text);
    assert_eq!((&page.json()["stale"], &page.json()["messages"][0]["seq"]), (&json!(true), &json!(seq)));
    cluster.stack().nats.restart().unwrap();
    until("the same uuid is stored", secs(30), async || ask(&mut alices, &frame).await["type"] == "Ack")
        .await;
    // The sockets stayed, and the tail goes on.
    let message = bobs.expect("Message", SOON).await.unwrap();
    assert_eq!((&message["body"], &message["prev"]), (&json!("during"), &json!(seq)), "{message}");
    let (history, _) = cluster.api(0, &accounts[1]).history(chat).await.unwrap();
    assert_eq!(history.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_and_projector_live_traffic_goes_on() {
    let mut cluster = Build::new("no_redis").private().gateways(2).start().await;
    let accounts = cluster.accounts(2).await;
    let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
    let (mut alices, _) = cluster.live(0, &accounts[0]).await;
    cluster.stack().redis.kill9().unwrap();
    // New connections come in, limited in process.
    let (mut bobs, _) = cluster.live(1, &accounts[1]).await;
    send(&mut alices, chat, "without Redis").await;
    bobs.expect("Message", SOON).await.unwrap();
    let ticket = cluster.api(0, &accounts[0]).post("/v1/ws/ticket", &json!({})).await.unwrap();
    assert_eq!(ticket.status, 503, "{}", ticket.text);
    cluster.stack().redis.restart().unwrap();
    until("tickets again", secs(20), async || {
        cluster.api(0, &accounts[0]).post("/v1/ws/ticket", &json!({})).await.unwrap().status == 201
    })
    .await;

    cluster.projectors[0].kill9().unwrap();
    let seq = send(&mut alices, chat, "without a projector").await;
    assert_eq!(bobs.expect("Message", SOON).await.unwrap()["seq"], seq);
    let api = cluster.api(1, &accounts[1]);
    let page = api.get(&format!("/v1/chats/{chat}/messages")).await.unwrap().json();
    assert_eq!(page["stale"], true, "{page}");
    cluster.projectors[0].restart().unwrap();
    until("history is fresh again", secs(30), async || {
        let page = api.get(&format!("/v1/chats/{chat}/messages?limit=1")).await.unwrap().json();
        page["stale"] != true && page["messages"][0]["seq"] == json!(seq)
    })
    .await;
}
