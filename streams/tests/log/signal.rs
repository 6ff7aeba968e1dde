use std::time::Duration;

use shared::id::{Seq, UserId};
use streams::{
    marks::{Mark, MarkReader},
    signal::{Revoked, Signal, SignalKind, Typing},
    stream,
};
use uuid::Uuid;

use crate::{chat, eventually, server::Server, within};

fn user(id: u64) -> UserId {
    UserId::new(id).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_reach_their_subscribers_over_a_restart() {
    let mut server = Server::start();
    let (sender, receiver) = (server.nats().await, server.nats().await);
    let mut signals = receiver.signals(&[SignalKind::Typing, SignalKind::Revoked]).await.unwrap();
    let typing = Signal::Typing(Typing { chat: chat(1), user: user(7) });
    receiver.ping().await.unwrap();
    sender.signal(&typing).unwrap();
    assert_eq!(within(5, "a signal", signals.next()).await, typing);

    server.kill9();
    eventually("the disconnect", async || !sender.is_connected()).await;
    assert!(sender.signal(&typing).is_err(), "nothing is kept for later");
    server.restart();
    eventually("the reconnects", async || sender.ping().await.is_ok() && receiver.ping().await.is_ok()).await;
    let revoked = Signal::Revoked(Revoked { user: user(7), did: Uuid::now_v7(), until_ms: Some(9) });
    sender.signal(&revoked).unwrap();
    assert_eq!(within(5, "a signal", signals.next()).await, revoked);
}

#[tokio::test]
async fn marks_wait_for_presence_and_are_redelivered_until_acked() {
    let server = Server::start();
    let nats = server.nats().await;
    let mark = |seq| Mark { user: user(7), chat: chat(1), read: Some(Seq(seq)), delivered: None };
    for seq in 1..=10 {
        nats.publish_mark(&mark(seq)).unwrap();
    }
    let mut reader = MarkReader::new(&nats);
    let mut got = Vec::new();
    while got.len() < 10 {
        let batch = within(5, "marks", reader.batch(4, Duration::from_millis(50))).await;
        assert!(batch.marks.len() <= 4);
        got.extend(batch.marks.clone());
        batch.ack().await;
    }
    assert_eq!(got, (1..=10).map(mark).collect::<Vec<_>>());
}

#[tokio::test]
async fn drift_is_reported_and_repaired() {
    let server = Server::start();
    let nats = server.nats().await;
    assert_eq!(stream::check(&nats).await.unwrap(), []);
    let js = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let mut config = js.get_stream("CHAT_0").await.unwrap().cached_info().config.clone();
    config.duplicate_window = Duration::from_secs(1);
    js.update_stream(config).await.unwrap();
    js.delete_stream("READ").await.unwrap();
    let drifts: Vec<String> = stream::check(&nats).await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(drifts.len(), 2, "{drifts:?}");
    assert!(drifts[0].contains("duplicate_window") && drifts[1].contains("missing"), "{drifts:?}");
    stream::apply(&nats).await.unwrap();
    assert_eq!(stream::check(&nats).await.unwrap(), []);
}
