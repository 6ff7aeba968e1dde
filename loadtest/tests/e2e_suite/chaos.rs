//! Each process in turn is killed with SIGKILL, or frozen with SIGSTOP, under load, and comes back; no promise
//! breaks. The others recover without being restarted.

use std::time::Duration;

use loadtest::smoke::{Crowd, Load};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use xtask::servers::Server;

use crate::support::{
    cluster::{Build, Cluster},
    wait::{secs, until},
};

/// How long a killed process stays away: longer than the reconnect back-offs of everyone.
const AWAY: Duration = secs(2);
/// Load before the kill.
const BEFORE: Duration = secs(3);

fn load(seconds: u64) -> Load {
    Load {
        sockets: 24,
        chats: 6,
        members: 8,
        rate: 80,
        seconds,
        reconnects: 1.0,
        away_ms: 500,
        body_bytes: 20,
        connects: 200.0,
        settle_s: 45,
        seed: 7,
    }
}

/// How long the load goes on: long enough for the harm, its repair, and some calm.
const LENGTH_S: u64 = 10;

async fn survives(name: &str, hurt: impl AsyncFnOnce(&mut Cluster)) {
    survives_for(name, LENGTH_S, hurt).await;
}

async fn survives_for(name: &str, seconds: u64, hurt: impl AsyncFnOnce(&mut Cluster)) {
    let mut cluster = Build::new(name).private().gateways(2).projectors(2).presence().start().await;
    let load = load(seconds);
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

/// Longer than a command's deadline, so that clients get temporary errors for what NATS still has in its buffers
/// and takes when it wakes.
const FROZEN: Duration = secs(12);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_frozen() {
    survives_for("freeze_nats", 18, async |cluster| {
        cluster.stack().nats.sigstop().unwrap();
        tokio::time::sleep(FROZEN).await;
        cluster.stack().nats.sigcont().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_and_both_projectors_are_frozen() {
    survives_for("freeze_services", 14, async |cluster| {
        cluster.gateways[0].sigstop().unwrap();
        for projector in &mut cluster.projectors {
            projector.sigstop().unwrap();
        }
        tokio::time::sleep(secs(6)).await;
        cluster.gateways[0].sigcont().unwrap();
        for projector in &mut cluster.projectors {
            projector.sigcont().unwrap();
        }
    })
    .await;
}

/// Everything at once, over and over: what one failure leaves behind meets the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_thing_after_the_other_is_killed() {
    let seed = std::env::var("MT_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let rounds = std::env::var("MT_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(8);
    survives_for("kill_all", rounds * 3, async |cluster| {
        let mut rng = SmallRng::seed_from_u64(seed);
        for _ in 0..rounds {
            let pause = Duration::from_millis(rng.random_range(100..1_500));
            let victim = rng.random_range(0..7);
            println!("victim {victim}, away for {pause:?}");
            match victim {
                at @ 0..=1 => cluster.gateways[at].kill9().unwrap(),
                at @ 2..=3 => cluster.projectors[at - 2].kill9().unwrap(),
                4 => cluster.stack().nats.kill9().unwrap(),
                5 => cluster.stack().postgres.kill9().unwrap(),
                _ => cluster.stack().redis.kill9().unwrap(),
            }
            tokio::time::sleep(pause).await;
            match victim {
                at @ 0..=1 => cluster.restart_gateway(at).await,
                at @ 2..=3 => cluster.projectors[at - 2].restart().unwrap(),
                4 => start_again(&mut cluster.stack().nats).await,
                5 => start_again(&mut cluster.stack().postgres).await,
                _ => start_again(&mut cluster.stack().redis).await,
            }
        }
    })
    .await;
}
