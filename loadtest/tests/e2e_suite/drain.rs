//! SIGTERM under load: every command is answered, the closes are spread, the exit code is 0.

use std::time::Instant;

use loadtest::{
    client::socket::{Received, Socket},
    smoke::{Crowd, Load},
};
use serde_json::Value;

use crate::support::{
    cluster::{Build, SOON, send_frame},
    wait::{millis, secs},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_gateway_answers_everything_and_its_devices_move_on() {
    let mut cluster = Build::new("drain_load").gateways(2).env("MT_DRAIN_MS", 3_000).start().await;
    let load = Load {
        sockets: 40,
        chats: 10,
        members: 6,
        rate: 500,
        seconds: 8,
        reconnects: 0.0,
        away_ms: 100,
        body_bytes: 10,
        connects: 200.0,
        settle_s: 30,
        seed: 3,
    };
    let accounts = cluster.accounts(load.sockets).await;
    let target = cluster.target();
    let crowd = Crowd::gather(&target, accounts, &load).await.unwrap();
    let (outcome, ()) = tokio::join!(crowd.talk(&target, &load), async {
        tokio::time::sleep(secs(2)).await;
        cluster.gateways[1].sigterm().unwrap();
        let exit = cluster.gateways[1].wait_exit(secs(10)).unwrap().expect("it ends within its grace period");
        assert!(exit.success(), "{exit}");
        cluster.restart_gateway(1).await;
    });
    let outcome = outcome.unwrap();
    assert!(outcome.verdict.is_clean(), "{}", outcome.verdict);
    assert_eq!(outcome.verdict.acked, usize::try_from(load.seconds).unwrap() * load.rate as usize);
    crowd.leave().await;
}

/// What a draining gateway says to one session.
struct Farewell {
    answered: usize,
    announced: bool,
    code: Option<u16>,
    at: Instant,
}

async fn farewell(mut socket: Socket, asked: usize) -> Farewell {
    let (mut answered, mut announced) = (0, false);
    loop {
        match tokio::time::timeout(SOON, socket.next()).await.unwrap() {
            Received::Text(text) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                announced |= frame["type"] == "Drain";
                answered += usize::from(matches!(frame["type"].as_str(), Some("Ack" | "Error")));
            }
            Received::Binary(_) => {}
            Received::Closed(code) => {
                assert!(answered <= asked);
                return Farewell { answered, announced, code, at: Instant::now() };
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_are_spread_and_come_with_their_code() {
    let mut cluster = Build::new("drain_spread").env("MT_DRAIN_MS", 3_000).start().await;
    let accounts = cluster.accounts(30).await;
    let members: Vec<_> = accounts.iter().collect();
    let chat = cluster.group(&members).await;
    let mut sockets = Vec::new();
    for account in &accounts {
        sockets.push(cluster.live(0, account).await.0);
    }
    for socket in &mut sockets {
        for _ in 0..3 {
            socket.say(&send_frame(chat, "on the way").1).await.unwrap();
        }
    }
    // The commands are on the wire: one answer proves that the first has been read.
    sockets[0].expect("Ack", SOON).await.unwrap();
    let begun = Instant::now();
    cluster.gateways[0].sigterm().unwrap();
    let mut watches = tokio::task::JoinSet::new();
    for (n, socket) in sockets.into_iter().enumerate() {
        watches.spawn(farewell(socket, if n == 0 { 2 } else { 3 }));
    }
    let farewells = watches.join_all().await;
    let exit = cluster.gateways[0].wait_exit(secs(10)).unwrap().expect("an end");
    assert!(exit.success(), "{exit}");
    assert!(farewells.iter().all(|farewell| farewell.announced && farewell.code == Some(4401)));
    let answered: usize = farewells.iter().map(|farewell| farewell.answered).sum();
    assert_eq!(answered, 3 * 30 - 1);
    let mut times: Vec<_> = farewells.iter().map(|farewell| farewell.at - begun).collect();
    times.sort();
    let spread = times[times.len() - 1] - times[0];
    assert!(spread > millis(500), "all closed within {spread:?}");
    assert!(times[times.len() - 1] < secs(5), "{times:?}");
}
