//! The dedupe window of the log and the time in a uuid: which commands are looked up, and that none is stored twice.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use loadtest::provision::Account;
use serde_json::{Value, json};

use crate::support::{
    cluster::{Build, Cluster, ask, send, send_frame},
    session::replay,
    wait::{millis, secs, until},
};

/// The log's window is two minutes: after this it recognises no earlier copy.
const WINDOW_IS_OVER: Duration = secs(122);
/// How far ahead the device's clock is. When the window is over, the uuid's time is that of the moment.
const AHEAD: Duration = secs(130);

/// A value of a gateway's `/metrics`.
async fn metric(cluster: &Cluster, gateway: usize, name: &str) -> Option<f64> {
    let text = cluster.anonymous(gateway).get("/metrics").await.unwrap().text;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// How many commands a gateway has looked up for this reason.
async fn looked_up(cluster: &Cluster, gateway: usize, reason: &str) -> f64 {
    let name = format!("gateway_commands_looked_up_total{{reason=\"{reason}\"}}");
    metric(cluster, gateway, &name).await.unwrap_or(0.0)
}

/// A message whose uuid is made by a clock that is ahead.
fn from_the_future(chat: u64, body: &str) -> Value {
    let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + AHEAD;
    let made = uuid::Timestamp::from_unix(uuid::NoContext, made.as_secs(), made.subsec_nanos());
    let mut frame = send_frame(chat, body).1;
    frame["uuid"] = json!(uuid::Uuid::new_v7(made));
    frame
}

/// A message of the moment is not looked up, from some moment after the gateway's start on.
async fn is_fresh(cluster: &Cluster, gateway: usize, account: &Account, chat: u64) {
    let (mut socket, _) = cluster.live(gateway, account).await;
    let reasons = ["no_time", "position", "log_time", "own_clock", "no_marks", "not_near", "ahead"];
    until("a message of the moment is fresh", secs(20), async || {
        let mut counts = [0.0; 2];
        for count in &mut counts {
            for reason in reasons {
                *count += looked_up(cluster, gateway, reason).await;
            }
            send(&mut socket, chat, "now").await;
        }
        counts[0] == counts[1]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_the_moment_is_not_looked_up_and_the_clocks_agree() {
    let mut cluster = Build::new("fresh").start().await;
    let accounts = cluster.accounts(3).await;
    let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
    is_fresh(&cluster, 0, &accounts[0], chat).await;
    let skew = metric(&cluster, 0, "gateway_clock_skew_seconds").await.unwrap();
    assert!(skew.abs() < 1.0, "one machine has one clock: {skew}");

    // One user's clock is wrong. It is their commands that are looked up, and only theirs.
    let (mut socket, _) = cluster.live(0, &accounts[1]).await;
    let frame = from_the_future(chat, "ahead");
    let ack = ask(&mut socket, &frame).await;
    assert_eq!((&ack["type"], &ack["dup"]), (&json!("Ack"), &json!(false)), "{ack}");
    assert_eq!(looked_up(&cluster, 0, "not_near").await, 1.0);
    send(&mut socket, chat, "the clock was set").await;
    assert_eq!(looked_up(&cluster, 0, "ahead").await, 1.0);
    is_fresh(&cluster, 0, &accounts[0], chat).await;
    // Also at a gateway that starts: the marks are in the projection.
    let other = cluster.add_gateway(&[("MT_RING_BYTES", "1")]).await;
    is_fresh(&cluster, other, &accounts[0], chat).await;
    let (mut socket, _) = cluster.live(other, &accounts[1]).await;
    // A ring of one entry leaves the look-up to the projection, which has everything once a read is answered.
    let path = format!("/v1/chats/{chat}/messages");
    cluster.api(other, &accounts[1]).get(&path).await.unwrap().ok().unwrap();
    let before = looked_up(&cluster, other, "ahead").await;
    send(&mut socket, chat, "elsewhere").await;
    assert_eq!(looked_up(&cluster, other, "ahead").await, before + 1.0);
}

/// Most of its two minutes are spent waiting, so it runs beside other tests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_uuid_from_the_future_is_one_message_also_when_the_window_is_over() {
    let mut cluster = Build::new("ahead").gateways(2).env("MT_RING_BYTES", 262_144).start().await;
    let accounts = cluster.accounts(2).await;
    let (alice, bob) = (&accounts[0], &accounts[1]);
    let chat = cluster.group(&[alice, bob]).await;
    let (mut alices, _) = cluster.live(0, alice).await;
    let (mut bobs, start) = cluster.live(1, bob).await;
    let frame = from_the_future(chat, "from the future");
    let ack = ask(&mut alices, &frame).await;
    assert_eq!((&ack["type"], &ack["dup"]), (&json!("Ack"), &json!(false)), "{ack}");
    let stored = Instant::now();
    // More than the ring holds.
    let mut seqs = vec![ack["seq"].as_u64().unwrap()];
    for _ in 0..40 {
        seqs.push(send(&mut bobs, chat, &"x".repeat(16_000)).await);
    }
    // Time itself is tested: NATS forgets a command after two minutes, and nothing tells when it has.
    until("the window is over", WINDOW_IS_OVER + secs(10), async || {
        tokio::time::sleep(millis(200)).await;
        stored.elapsed() > WINDOW_IS_OVER
    })
    .await;
    for attempt in 0..4 {
        if attempt == 2 {
            cluster.restart_gateway(0).await;
        }
        let (mut alices, _) = cluster.live(attempt % 2, alice).await;
        let again = ask(&mut alices, &frame).await;
        assert_eq!(
            (&again["type"], &again["seq"], &again["dup"]),
            (&json!("Ack"), &ack["seq"], &json!(true)),
            "{again}"
        );
    }
    for gateway in 0..2 {
        assert!(looked_up(&cluster, gateway, "ahead").await > 0.0, "not because it was far ahead");
        // What a device gets in the end: each once, and each after the one before.
        let (_, events, ..) = replay(&cluster.connect(gateway, bob).with("cursor", &start)).await;
        let got: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(got, seqs);
        let prevs: Vec<u64> = events[1..].iter().map(|event| event["prev"].as_u64().unwrap()).collect();
        assert_eq!(prevs, seqs[..seqs.len() - 1]);
    }
}
