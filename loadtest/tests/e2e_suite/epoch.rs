//! The log loses its tail: NATS is stopped, an older copy of its store is put back, and NATS is started. The loss is
//! not hidden: devices get `Reset`, the history holds no lost message, no void cursor is accepted, and the lost
//! messages can be sent again.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use loadtest::{
    client::{
        device::{Device, Identity},
        socket::Socket,
    },
    latency::Latencies,
    oracle::{Oracle, log},
    smoke::{Crowd, Load},
};
use serde_json::{Value, json};
use xtask::servers::{Options, Server};

use crate::support::{
    cluster::{Build, Cluster, SOON, ask, send_frame},
    wait::{secs, until},
};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Settled: every send answered, every device up to date.
async fn settled(oracle: &Oracle) {
    until("everything is delivered", secs(40), async || oracle.outstanding() == 0).await;
}

async fn projected(cluster: &Cluster, account: &loadtest::provision::Account, chat: u64) -> Vec<u64> {
    let mut seqs = Vec::new();
    until("a fresh history", secs(40), async || {
        let Ok((messages, stale)) = cluster.api(0, account).history(chat).await else { return false };
        seqs = messages.iter().map(|message| message.seq).collect();
        !stale
    })
    .await;
    seqs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lost_its_tail_is_reset_for_everyone() {
    let mut cluster = Build::new("epoch").private().gateways(2).projectors(2).start().await;
    let accounts = cluster.accounts(4).await;
    let members: Vec<_> = accounts.iter().collect();
    let chats = [cluster.group(&members).await, cluster.group(&members).await];
    let untouched = cluster.group(&members).await;
    let oracle = Arc::new(Oracle::default());
    let latencies = Arc::new(Latencies::default());
    for chat in chats.iter().chain([&untouched]) {
        oracle.chat(*chat, accounts.iter().map(|account| account.user_id));
    }
    let devices: Vec<Device> = accounts
        .iter()
        .enumerate()
        .map(|(n, account)| {
            let identity = Identity {
                user: account.user_id,
                token: account.access_token.clone(),
                device: format!("web:{n}"),
                gateways: cluster.urls.clone(),
                first: n,
                source: None,
            };
            Device::start(identity, oracle.clone(), latencies.clone())
        })
        .collect();
    for device in &devices {
        assert!(device.live(secs(20)).await, "{}", device.log.label);
    }
    let say = |text: &str| {
        for (n, device) in devices.iter().enumerate() {
            device.send(chats[n % 2], text);
        }
    };
    devices[0].send(untouched, "nothing happens here later");
    for round in 0..5 {
        say(&format!("kept {round}"));
    }
    settled(&oracle).await;
    let (kept_socket, kept_cursor) = cluster.live(0, &accounts[0]).await;
    kept_socket.close().await;
    let kept: Vec<Vec<u64>> = {
        let mut kept = Vec::new();
        for chat in chats {
            kept.push(projected(&cluster, &accounts[0], chat).await);
        }
        kept
    };

    let last_untouched = *projected(&cluster, &accounts[0], untouched).await.last().unwrap();

    let backup = back_up(&mut cluster);
    for round in 0..5 {
        say(&format!("lost {round}"));
    }
    settled(&oracle).await;
    projected(&cluster, &accounts[0], chats[0]).await;
    let (void_socket, void_cursor) = cluster.live(1, &accounts[1]).await;
    void_socket.close().await;

    restore(&mut cluster, &backup);
    // Every device hears of it, for the chats that lost something.
    until("everyone is told", secs(60), async || {
        devices.iter().all(|device| chats.iter().all(|chat| device.log.resets(*chat) > 0))
    })
    .await;
    // Each has sent its own again.
    settled(&oracle).await;
    say("after the cut");
    settled(&oracle).await;
    for (chat, kept) in chats.iter().zip(&kept) {
        let now = projected(&cluster, &accounts[3], *chat).await;
        assert_eq!(&now[..kept.len()], kept.as_slice());
        assert_eq!(now.len(), kept.len() + 12);
        let (messages, stale) = cluster.api(1, &accounts[2]).history(*chat).await.unwrap();
        oracle.history(accounts[2].user_id, *chat, messages, stale);
    }

    void_cursors(&cluster, &accounts, &chats, (untouched, last_untouched), [&kept_cursor, &void_cursor])
        .await;
    let mut verdict = oracle.check();
    let target = cluster.target();
    let entries = log::read(target.nats_url.as_ref().unwrap(), cluster.env("MT_STREAM_PREFIX"));
    verdict.violations.extend(oracle.check_log(&entries.await.unwrap()));
    assert!(verdict.is_clean(), "{verdict}");
    for device in devices {
        device.stop().await;
    }
}

/// A cursor from before the cut is good, but its device may hold more than the cursor covers; one from what was lost
/// goes on from the cut. Either is told where its chats stand, then what is true now; and all of it again, to a device
/// that dropped after the first `Reset`.
async fn void_cursors(
    cluster: &Cluster,
    accounts: &[loadtest::provision::Account],
    chats: &[u64; 2],
    (untouched, last_untouched): (u64, u64),
    [kept, void]: [&str; 2],
) {
    let mut resumed = cluster.connect(1, &accounts[0]).with("cursor", kept).open().await.unwrap();
    let frames = until_live(&mut resumed).await;
    let told = resets(&frames);
    assert!(chats.iter().all(|chat| told.iter().any(|(reset, ..)| reset == chat)), "{told:?}");
    assert_eq!(frames.iter().filter(|frame| frame["type"] == "Message").count(), 24);

    let mut voids = vec![void.to_owned()];
    for gateway in [0, 1, 0, 1] {
        let void = voids.pop().unwrap();
        let mut resumed = cluster.connect(gateway, &accounts[1]).with("cursor", &void).open().await.unwrap();
        let frames = until_live(&mut resumed).await;
        let resets = resets(&frames);
        voids.push(resets[0].2.clone());
        assert!(chats.iter().all(|chat| resets.iter().any(|(reset, ..)| reset == chat)), "{resets:?}");
        // The gateway can't know what a void cursor had seen of other chats; it may say that nothing was lost.
        assert!(
            resets.iter().all(|(chat, after, _)| *chat != untouched || *after >= last_untouched),
            "{resets:?}"
        );
        // What was lost has come again once, and not beside its void copy.
        let bodies: Vec<&str> = frames
            .iter()
            .filter(|frame| frame["type"] == "Message")
            .map(|frame| frame["body"].as_str().unwrap())
            .collect();
        assert_eq!(bodies.len(), 24, "{bodies:?}");
        assert!(bodies.iter().all(|body| body.starts_with("lost") || *body == "after the cut"), "{bodies:?}");
        resumed.close().await;
    }
}

/// Chat, the last that remains of it, and the cursor of each `Reset`.
fn resets(frames: &[Value]) -> Vec<(u64, u64, String)> {
    let resets = frames.iter().filter(|frame| frame["type"] == "Reset");
    let number = |value: &Value| value.as_u64().unwrap();
    resets
        .map(|frame| {
            let cursor = frame["cursor"].as_str().unwrap().to_owned();
            (number(&frame["chatId"]), number(&frame["afterSeq"]), cursor)
        })
        .collect()
}

async fn until_live(socket: &mut Socket) -> Vec<Value> {
    let mut frames = Vec::new();
    loop {
        let frame = socket.frame(SOON).await.unwrap();
        let live = frame["type"] == json!("Live");
        frames.push(frame);
        if live {
            return frames;
        }
    }
}

/// The same while everyone keeps talking and dropping: sends that have no answer yet are stored anew, and what was
/// acked and lost is sent again by its author.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_loses_its_tail_while_everyone_talks() {
    let mut cluster = Build::new("epoch_load").private().gateways(2).projectors(2).start().await;
    let load = Load {
        sockets: 24,
        chats: 6,
        members: 8,
        rate: 80,
        seconds: 12,
        reconnects: 25.0,
        away_ms: 60,
        body_bytes: 10,
        connects: 200.0,
        settle_s: 45,
        seed: 5,
    };
    let accounts = cluster.accounts(load.sockets).await;
    let target = cluster.target();
    let crowd = Crowd::gather(&target, accounts, &load).await.unwrap();
    let (outcome, ()) = tokio::join!(crowd.talk(&target, &load), lose_the_tail(&mut cluster));
    let mut outcome = outcome.unwrap();
    outcome.check_log(&crowd.oracle, &target).await.unwrap();
    outcome.print();
    assert!(outcome.verdict.is_clean(), "{}", outcome.verdict);
    crowd.leave().await;
}

async fn lose_the_tail(cluster: &mut Cluster) {
    tokio::time::sleep(secs(2)).await;
    let backup = back_up(cluster);
    let (url, prefix) = (cluster.env("MT_NATS_URL").to_owned(), cluster.env("MT_STREAM_PREFIX").to_owned());
    tokio::time::sleep(secs(2)).await;
    let lost_at_least = log::read(&url, &prefix).await.unwrap().last().unwrap().seq;
    assert!(last_kept(&backup, cluster).await < lost_at_least);
    restore(cluster, &backup);
}

/// A gateway that has yet to hear of the cut still holds what was lost. A device that has been told of it elsewhere is not
/// shown that again.
#[tokio::test]
async fn a_gateway_that_has_yet_to_hear_of_the_cut_shows_nothing_void() {
    let mut cluster = Build::new("epoch_behind").private().gateways(2).start().await;
    let accounts = cluster.accounts(2).await;
    let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
    let (mut reader, _) = cluster.live(0, &accounts[0]).await;
    let (mut writer, _) = cluster.live(0, &accounts[1]).await;
    let (mut elsewhere, _) = cluster.live(1, &accounts[0]).await;
    stored(&mut writer, chat, "kept").await;
    let backup = back_up(&mut cluster);
    for _ in 0..5 {
        stored(&mut writer, chat, "lost").await;
    }
    let mut messages = 0;
    while messages < 6 {
        elsewhere.expect("Message", SOON).await.unwrap();
        messages += 1;
    }
    elsewhere.close().await;

    cluster.gateways[1].sigstop().unwrap();
    restore(&mut cluster, &backup);
    let reset = reader.expect("Reset", secs(30)).await.unwrap();
    writer.expect("Reset", secs(30)).await.unwrap();
    for _ in 0..5 {
        stored(&mut writer, chat, "new").await;
    }
    reader.close().await;
    let behind = cluster.connect(1, &accounts[0]).with("cursor", reset["cursor"].as_str().unwrap());
    let thaw = async { cluster.gateways[1].sigcont().unwrap() };
    let (resumed, ()) = tokio::join!(behind.open(), thaw);
    let frames = until_live(&mut resumed.unwrap()).await;
    let bodies: Vec<&str> = frames.iter().filter_map(|frame| frame["body"].as_str()).collect();
    assert_eq!(bodies, ["new"; 5]);
}

/// Sends until it is acked: NATS has just been away.
async fn stored(socket: &mut Socket, chat: u64, body: &str) {
    let (_, frame) = send_frame(chat, body);
    until("an ack", secs(30), async || ask(socket, &frame).await["type"] == "Ack").await;
}

/// Copies the store of NATS, which is down meanwhile.
fn back_up(cluster: &mut Cluster) -> PathBuf {
    let backup = cluster.dir().join("older");
    let nats = &mut cluster.stack().nats;
    nats.stop().unwrap();
    copy(&nats.dir().join("jetstream"), &backup);
    nats.restart().unwrap();
    backup
}

/// Puts the copy in the place of the store, as after a power failure.
fn restore(cluster: &mut Cluster, backup: &Path) {
    let nats = &mut cluster.stack().nats;
    nats.stop().unwrap();
    let store = nats.dir().join("jetstream");
    fs::remove_dir_all(&store).unwrap();
    copy(backup, &store);
    nats.restart().unwrap();
}

/// The last sequence of a store, as another server sees it.
async fn last_kept(store: &Path, cluster: &Cluster) -> u64 {
    let dir = cluster.dir().join("reader");
    copy(store, &dir.join("jetstream"));
    let reader = Server::nats(&dir, &Options::throwaway()).unwrap();
    log::read(&reader.url(), cluster.env("MT_STREAM_PREFIX")).await.unwrap().last().unwrap().seq
}
