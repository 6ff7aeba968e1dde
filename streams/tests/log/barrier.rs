use futures_util::future::join_all;
use shared::id::Seq;
use streams::{Appender, Barrier, Scan};

use crate::{P, append_many, chat, eventually, log, message, server::Server, soon, within};

#[tokio::test]
async fn a_barrier_covers_everything_acked_before_it() {
    let server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    let barrier = Barrier::start(&nats, &appender, P);
    assert_eq!(barrier.last_seq().await.unwrap(), Seq::ZERO);
    for _ in 0..50 {
        let appended = appender.append(chat(1), &message("x"), soon()).await.unwrap();
        assert!(barrier.last_seq().await.unwrap() >= appended.seq);
    }
}

#[tokio::test]
async fn concurrent_barriers_share_requests() {
    let server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    append_many(&appender, 3).await;
    let barrier = Barrier::start(&nats, &appender, P);
    let before = requests(&server).await;
    let answers = join_all((0..500).map(|_| barrier.last_seq())).await;
    assert!(answers.into_iter().all(|answer| answer.is_ok_and(|end| end == Seq(3))));
    // The runtime lets about a hundred ask before the barrier's task has its turn.
    let asked = requests(&server).await - before;
    assert!(asked < 20, "{asked} requests");
}

/// How many requests JetStream's API has served.
async fn requests(server: &Server) -> usize {
    let js = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    js.query_account().await.unwrap().requests.total as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_barrier_without_server_fails_in_time() {
    let mut server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    let barrier = Barrier::start(&nats, &appender, P);
    server.kill9();
    eventually("the disconnect", async || !nats.is_connected()).await;
    let answer = within(4, "the barrier", barrier.last_seq()).await;
    assert!(answer.is_err());
    server.restart();
    eventually("the barrier to work again", async || barrier.last_seq().await.is_ok()).await;
}

#[tokio::test]
async fn scans_read_exactly_their_range() {
    let server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    append_many(&appender, 1_000).await;
    for (from, to) in [(0, 1_000), (0, 1), (999, 1_000), (300, 700), (5, 5)] {
        let mut scan = Scan::new(&nats, P, Seq(from), Seq(to));
        let mut seqs = Vec::new();
        while let Some(batch) = scan.next().await.unwrap() {
            seqs.extend(batch.iter().map(|entry| entry.seq.get()));
        }
        assert_eq!(seqs, (from + 1..=to).collect::<Vec<_>>());
    }
    // Beyond the end there is nothing to wait for.
    let mut scan = Scan::new(&nats, P, Seq(1_000), Seq(1_001));
    assert!(within(20, "the scan", scan.next()).await.is_err());
}

#[tokio::test]
async fn a_long_scan_takes_one_consumer() {
    let server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    append_many(&appender, 20_000).await;
    assert_eq!(log(&nats).await.len(), 20_000);
    let js = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let consumers = js.get_stream("CHAT_0").await.unwrap().cached_info().state.consumer_count;
    assert_eq!(consumers, 1, "flow control is no end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_survives_a_restart() {
    let mut server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    append_many(&appender, 2_000).await;
    let mut scan = Scan::new(&nats, P, Seq::ZERO, Seq(2_000));
    let mut seqs: Vec<u64> =
        scan.next().await.unwrap().unwrap().iter().map(|entry| entry.seq.get()).collect();
    server.kill9();
    server.restart();
    eventually("the server", async || nats.bounds(P).await.is_ok()).await;
    while let Some(batch) = scan.next().await.unwrap() {
        seqs.extend(batch.iter().map(|entry| entry.seq.get()));
    }
    assert_eq!(seqs, (1..=2_000).collect::<Vec<_>>());
    assert_eq!(log(&nats).await.len(), 2_000);
}
