//! Three servers and three copies: what one server can't show.

use std::{collections::HashSet, sync::Arc, time::Duration};

use shared::id::Position;
use streams::{Appender, Barrier, Nats, NatsSettings, Tail, TailItem, TailSettings};

use crate::{P, append_many, chat, eventually, log, message, server::Server, soon, tail::Ring, within};

async fn connect(cluster: &[Server]) -> Nats {
    let urls: Vec<String> = cluster.iter().map(Server::url).collect();
    let settings = NatsSettings { nats_url: urls.join(","), replicas: 3, ..NatsSettings::default() };
    cluster[0].nats_with(settings).await
}

/// Which server leads the log.
pub(crate) async fn leader(nats: &Nats, cluster: &[Server]) -> usize {
    within(20, "a leader", async {
        loop {
            if let Ok(Some(name)) = nats.leader(P).await {
                break cluster.iter().position(|server| server.is_called(&name)).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_costs_seconds_and_no_event() {
    let mut cluster = Server::cluster();
    let nats = connect(&cluster).await;
    let appender = Appender::start(&nats);
    append_many(&appender, 500).await;
    let known = Arc::new(Ring::default());
    let mut tail = Tail::open(&nats, P, Position::default(), known.clone(), TailSettings::default());
    let mut seen = 0;
    let leader = leader(&nats, &cluster).await;
    let load = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster[leader].kill9();
        append_many(&appender, 500).await;
    };
    let read = async {
        while seen < 1_000 {
            if let TailItem::Batch(entries) = tail.next().await {
                seen += entries.len();
                known.keep(&entries);
            }
        }
    };
    within(40, "the cluster to go on", async { tokio::join!(load, read) }).await;
    let keys: HashSet<_> = log(&nats).await.iter().map(|entry| entry.id).collect();
    assert_eq!((keys.len(), known.len()), (1_000, 1_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_followers_proves_nothing() {
    let mut cluster = Server::cluster();
    let nats = connect(&cluster).await;
    let appender = Appender::start(&nats);
    let barrier = Barrier::start(&nats, &appender, P);
    append_many(&appender, 10).await;
    eventually("a proven end", async || barrier.last_seq().await.is_ok_and(|last| last.get() >= 10)).await;
    let leader = leader(&nats, &cluster).await;
    let mut followers: Vec<&mut Server> = cluster.iter_mut().collect();
    followers.remove(leader);
    followers.iter_mut().for_each(|follower| follower.stop());
    eventually("the doubt", async || barrier.last_seq().await.is_err()).await;
    followers.iter_mut().for_each(|follower| follower.resume());
    eventually("the proof", async || barrier.last_seq().await.is_ok()).await;
    within(30, "an append", appender.append(chat(1), &message("x"), soon())).await.unwrap();
}
