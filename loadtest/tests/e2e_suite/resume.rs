//! Sessions resume at a thousand random moments, at either gateway, and no event is lost.

use loadtest::smoke::{Crowd, Load};

use crate::support::cluster::Build;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_resumes_at_random_moments() {
    let mut cluster = Build::new("resume").gateways(2).start().await;
    let load = Load {
        sockets: 30,
        chats: 10,
        members: 6,
        rate: 150,
        seconds: 15,
        reconnects: 80.0,
        away_ms: 60,
        body_bytes: 10,
        connects: 200.0,
        settle_s: 30,
        seed: 11,
    };
    let accounts = cluster.accounts(load.sockets).await;
    let target = cluster.target();
    let crowd = Crowd::gather(&target, accounts, &load).await.unwrap();
    let mut outcome = crowd.talk(&target, &load).await.unwrap();
    outcome.check_log(&crowd.oracle, &target).await.unwrap();
    assert!(outcome.verdict.is_clean(), "{}", outcome.verdict);
    assert!(outcome.verdict.resumes >= 1_000, "{}", outcome.verdict);
    crowd.leave().await;
}
