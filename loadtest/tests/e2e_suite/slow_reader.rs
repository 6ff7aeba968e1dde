//! A reader that takes almost nothing costs bounded memory, and gets everything in the end.

use loadtest::{client::socket::Received, memory};
use serde_json::Value;

use crate::support::{
    cluster::{Build, SOON, open_live, send},
    wait::secs,
};

/// Much more than all buffers between the two together.
const MESSAGES: usize = 3_200;
const BODY_BYTES: usize = 16_000;
/// The gateway's own ring and working memory may grow this much while 50 MB wait for one reader.
const ALLOWED_GROWTH: u64 = 30 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_megabytes_wait_in_the_log_and_not_in_memory() {
    let mut cluster =
        Build::new("slow").env("MT_STALL_MS", 120_000).env("MT_HEARTBEAT_MS", 120_000).start().await;
    let accounts = cluster.accounts(2).await;
    let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
    let mut connect = cluster.connect(0, &accounts[1]);
    connect.receive_buffer = Some(4_096);
    let (mut slow, _) = open_live(&connect).await;
    let (mut author, _) = cluster.live(0, &accounts[0]).await;
    let body = "x".repeat(BODY_BYTES);
    // Warm: the ring is full, the allocator has seen bodies.
    let mut sent = Vec::new();
    for _ in 0..MESSAGES / 4 {
        sent.push(send(&mut author, chat, &body).await);
    }
    let pid = cluster.gateways[0].pid();
    let before = memory::of(pid).unwrap().rss;
    let mut highest = before;
    while sent.len() < MESSAGES {
        sent.push(send(&mut author, chat, &body).await);
        if sent.len().is_multiple_of(100) {
            highest = highest.max(memory::of(pid).unwrap().rss);
        }
    }
    let grown = highest.saturating_sub(before);
    assert!(grown < ALLOWED_GROWTH, "grew by {} MiB", grown >> 20);

    let (mut got, mut lagging, mut lives, mut prev) = (Vec::new(), 0, 0, None);
    while got.len() < sent.len() || lives == 0 {
        let received = tokio::time::timeout(secs(30), slow.next()).await.expect("the rest comes");
        let Received::Text(text) = received else { panic!("{received:?}") };
        let frame: Value = serde_json::from_str(&text).unwrap();
        match frame["type"].as_str() {
            Some("Message") => {
                let seq = frame["seq"].as_u64().unwrap();
                assert!(prev.is_none_or(|prev| frame["prev"] == prev), "{}", frame["prev"]);
                prev = Some(seq);
                got.push(seq);
            }
            Some("Lagging") => lagging += 1,
            Some("Live") => lives += 1,
            _ => {}
        }
    }
    assert!(lagging > 0);
    assert!(got == sent, "{} of {} came", got.len(), sent.len());
    // Live again: the next one comes by itself.
    let next = send(&mut author, chat, "and now live").await;
    assert_eq!(slow.expect("Message", SOON).await.unwrap()["seq"], next);
}
