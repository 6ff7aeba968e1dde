//! Each process in turn is killed with SIGKILL under load and started again, and no promise breaks. The others
//! recover without being restarted.

use std::time::Duration;

use loadtest::smoke::{Crowd, Load};
use xtask::servers::Server;

use crate::support::{
    cluster::{Build, Cluster},
    wait::{secs, until},
};

/// How long a killed process stays away: longer than the reconnect back-offs of everyone.
const AWAY: Duration = secs(2);
/// Load before the kill.
const BEFORE: Duration = secs(3);

fn load() -> Load {
    Load {
        sockets: 24,
        chats: 6,
        members: 8,
        rate: 80,
        seconds: 10,
        reconnects: 1.0,
        away_ms: 500,
        body_bytes: 20,
        connects: 200.0,
        settle_s: 45,
        seed: 7,
    }
}

async fn survives(name: &str, hurt: impl AsyncFnOnce(&mut Cluster)) {
    let mut cluster = Build::new(name).private().gateways(2).projectors(2).presence().start().await;
    let load = load();
    let accounts = cluster.accounts(load.sockets).await;
    let target = cluster.target();
    let crowd = Crowd::gather(&target, accounts, &load).await.unwrap();
    let (outcome, ()) = tokio::join!(crowd.talk(&target, &load), async {
        tokio::time::sleep(BEFORE).await;
        hurt(&mut cluster).await;
    });
    let mut outcome = outcome.unwrap();
    outcome.check_log(&crowd.oracle, &target).await.unwrap();
    outcome.print();
    assert!(outcome.verdict.is_clean(), "{name}: {}", outcome.verdict);
    // An outage holds messages up; it does not stop the talk.
    let intended = u64::from(load.rate) * load.seconds;
    assert!(outcome.verdict.acked as u64 > intended / 2, "{name}: {}", outcome.verdict);
    crowd.leave().await;
}

/// A killed Postgres leaves its backends for a moment, and refuses to start beside them.
async fn start_again(server: &mut Server) {
    until("the server starts again", secs(20), async || server.restart().is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_killed() {
    survives("kill_gateway", async |cluster| {
        cluster.gateways[1].kill9().unwrap();
        tokio::time::sleep(AWAY).await;
        cluster.restart_gateway(1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_projectors_are_killed() {
    survives("kill_projector", async |cluster| {
        for projector in &mut cluster.projectors {
            projector.kill9().unwrap();
        }
        tokio::time::sleep(AWAY).await;
        for projector in &mut cluster.projectors {
            projector.restart().unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_is_killed() {
    survives("kill_presence", async |cluster| {
        let presence = cluster.presence.as_mut().unwrap();
        presence.kill9().unwrap();
        tokio::time::sleep(AWAY).await;
        presence.restart().unwrap();
        presence.wait_listening(secs(30)).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_killed() {
    survives("kill_nats", async |cluster| {
        cluster.stack().nats.kill9().unwrap();
        tokio::time::sleep(AWAY).await;
        start_again(&mut cluster.stack().nats).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_killed() {
    survives("kill_postgres", async |cluster| {
        cluster.stack().postgres.kill9().unwrap();
        tokio::time::sleep(AWAY).await;
        start_again(&mut cluster.stack().postgres).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_killed() {
    survives("kill_redis", async |cluster| {
        cluster.stack().redis.kill9().unwrap();
        tokio::time::sleep(AWAY).await;
        start_again(&mut cluster.stack().redis).await;
    })
    .await;
}
