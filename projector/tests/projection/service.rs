//! The projector's process on real servers: killed, stopped, fed with garbage, cut off.

use std::{path::Path, process::Command, time::Duration};

use shared::{
    event::{ChatCreated, Event, Fact, History, MemberRole},
    id::{ChatId, Seq, UserId},
    permission::{ChatType, Role},
};
use sql::{Db, SqlSettings};
use streams::signal::{ProjectionWanted, Signal, SignalKind};
use uuid::Uuid;
use xtask::testing::{Isolated, Stack};

use crate::log::{Log, PATIENCE, eventually, get, metric};

async fn open(name: &str) -> Log {
    Log::open(Isolated::new(name).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_folds_the_log_and_says_how_far() {
    let log = open("folds").await;
    let mut signals = log.nats.signals(&[SignalKind::Watermark]).await.unwrap();
    let (mut projector, address) = log.projector("projector");
    log.fill(1, 300).await;
    log.verify().await;
    let end = log.end().await;
    loop {
        let Signal::Watermark(watermark) = signals.next().await else { continue };
        if watermark.position.seq == end {
            break;
        }
    }
    assert_eq!(get(address, "/healthz").0, 200);
    let (status, body) = get(address, "/readyz");
    assert_eq!(status, 200, "{body}");
    assert_eq!(metric(address, "projector_checkpoint_seq"), end.get() as f64);
    assert_eq!(metric(address, "projector_events_total"), end.get() as f64);
    eventually("no lag", async || metric(address, "projector_lag_events") == 0.0).await;
    let status = projector.stop(PATIENCE).unwrap().expect("it ends");
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_no_gateway_can_have_been_given_uses_up_no_ids() {
    let log = open("madeup").await;
    let (_projector, address) = log.projector("projector");
    let settings = SqlSettings {
        postgres_url: log.corner.postgres_url(),
        postgres_pool: 2,
        postgres_timeout_ms: 10_000,
    };
    let db = Db::new(&settings, "tests").unwrap();
    let user = |id: u64| UserId::new(id).unwrap();
    let created = |actor: UserId| {
        let members = vec![MemberRole { user_id: actor, role: Role::Owner }];
        let (chat_type, history) = (ChatType::Group, History::All);
        let fact = Fact::ChatCreated(ChatCreated { chat_type, title: None, history, members });
        Event { actor, device: String::new(), uuid: Uuid::now_v7(), fact, unique_as_of: None }
    };
    let append = async |chat: u64, event: &Event| {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        log.appender.append(ChatId::new(chat).unwrap(), event, deadline).await.unwrap();
    };
    // The greatest ids that there can be, and beside them a chat that a restored database may well have forgotten.
    append(shared::id::MAX_ID, &created(user(shared::id::MAX_ID))).await;
    append(4_711, &created(user(1))).await;
    log.caught_up().await;
    eventually("it is counted", async || metric(address, "projector_unbelievable_ids_total") == 1.0).await;
    eventually("the other one counts", async || {
        let chat = db.claim_group(user(1), Uuid::new_v4()).await.unwrap();
        assert!(chat.get() < 1_000_000, "{chat}");
        chat.get() > 4_711
    })
    .await;
    for n in 0..10 {
        db.create_user(&format!("{n}@x.example"), "X", "hash", 1).await.unwrap().expect("an account");
    }
}

/// What a projector that gathers for four seconds has not written comes at once to whoever waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn it_writes_what_a_read_waits_for() {
    let log = open("wanted").await;
    let (_projector, _) =
        log.corner.spawn("projector", "projector", &[("MT_PROJECTOR_INTERVAL_MS", "4000")]).unwrap();
    log.fill(2, 5).await;
    log.caught_up().await;
    let began = std::time::Instant::now();
    for round in 0..10 {
        log.fill(30 + round, 2).await;
        let seq = log.end().await;
        let wanted = Signal::ProjectionWanted(ProjectionWanted { partition: 0, seq });
        log.nats.signal(&wanted).unwrap();
        log.caught_up().await;
    }
    assert!(began.elapsed() < Duration::from_secs(10 * 4 / 2), "they did not wait for the projector's time");
    log.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_large_groups_is_written_in_slices() {
    let log = open("slices").await;
    let members = |count: u64| {
        (1..=count).map(|id| MemberRole { user_id: UserId::new(id).unwrap(), role: Role::Member }).collect()
    };
    let append = async |chat: u64, fact: Fact| {
        let (actor, device, uuid) = (UserId::new(1).unwrap(), String::new(), Uuid::now_v7());
        let event = Event { actor, device, uuid, fact, unique_as_of: None };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        log.appender.append(ChatId::new(chat).unwrap(), &event, deadline).await.unwrap();
    };
    for chat in 1..=8 {
        let (chat_type, history) = (ChatType::Group, History::All);
        let created = ChatCreated { chat_type, title: None, history, members: members(4_000) };
        append(chat, Fact::ChatCreated(created)).await;
    }
    log.fill(6, 50).await;
    // All of that waits for the projector when it starts: it would fit into one batch.
    let (_projector, address) = log.corner.spawn("projector", "projector", &[]).unwrap();
    log.verify().await;
    let transactions = metric(address, "projector_batches_total");
    assert!(transactions >= 4.0, "two groups each: {transactions}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_neither_lose_nor_double() {
    let log = open("kills").await;
    let (mut projector, _) = log.projector("projector");
    for round in 0..8 {
        let before = log.checkpoint().await.1;
        let filling = log.fill(10 + round, 150);
        tokio::pin!(filling);
        // Killed while batches are on their way, wherever that is.
        let filled = tokio::select! {
            () = &mut filling => true,
            () = eventually("progress", async || log.checkpoint().await.1 > before) => false,
        };
        projector.kill9().unwrap();
        if !filled {
            filling.await;
        }
        projector.restart().unwrap();
    }
    log.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_projector_is_replaced_and_comes_back_as_standby() {
    let log = open("standby").await;
    let (mut first, first_address) = log.projector("first");
    log.fill(20, 100).await;
    log.caught_up().await;
    let (mut second, second_address) = log.projector("second");
    second
        .wait_log(PATIENCE, |fields| (fields["message"] == "standby").then_some(()))
        .expect("the second waits");
    assert_eq!(get(second_address, "/readyz").0, 200, "a standby is ready");

    first.sigstop().unwrap();
    log.fill(21, 100).await;
    log.caught_up().await;
    assert_eq!(metric(second_address, "projector_active"), 1.0);
    first.sigcont().unwrap();
    log.fill(22, 100).await;
    eventually("the first to notice", async || metric(first_address, "projector_active") == 0.0).await;
    log.verify().await;
    assert_eq!(metric(second_address, "projector_active"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_decoder_reads_is_set_aside() {
    let log = open("letters").await;
    let (_projector, address) = log.projector("projector");
    log.fill(30, 50).await;
    log.publish_raw(1, b"\xC1 no event");
    log.publish_raw(3, b"");
    log.fill(31, 50).await;
    log.verify().await;
    assert_eq!(metric(address, "projector_dead_letters_total"), 2.0);
    let letters = log.rows.query("SELECT payload FROM dead_letters ORDER BY seq", &[]).await.unwrap();
    assert_eq!(letters[0].get::<_, &[u8]>(0), b"\xC1 no event");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_stored_twice_counts_once() {
    let log = open("twice").await;
    let (_projector, _) = log.projector("projector");
    log.fill(40, 120).await;
    log.caught_up().await;
    for entry in log.entries().await.iter().step_by(7) {
        log.publish_raw(entry.chat.unwrap().get(), &entry.payload);
    }
    log.fill(41, 60).await;
    log.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stands_still_before_what_only_a_newer_build_can_judge() {
    let log = open("newer").await;
    let (_projector, address) = log.projector("projector");
    log.fill(50, 40).await;
    log.caught_up().await;
    let end = log.end().await;
    let newer = b"\x96\x7F\x02\x01\xA0\xC4\x00\x90";
    log.publish_raw(1, newer);
    log.fill(51, 40).await;
    eventually("the alarm", async || get(address, "/readyz").0 == 503).await;
    assert!(get(address, "/readyz").1.contains("stand still"));
    assert_eq!(metric(address, "projector_stopped"), 1.0);
    assert_eq!(get(address, "/healthz").0, 200);
    assert_eq!(log.checkpoint().await.1, end, "all before it is folded, and nothing is skipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_come_back_are_enough() {
    let mut stack = Stack::private("comeback").unwrap();
    let mut log = Log::open(Isolated::on("comeback", &stack.addresses()).unwrap()).await;
    let (_projector, address) = log.projector("projector");
    log.fill(60, 100).await;
    log.caught_up().await;

    stack.postgres.kill9().unwrap();
    log.fill(61, 100).await;
    eventually("the alarm", async || get(address, "/readyz").1.contains("down")).await;
    stack.postgres.restart().unwrap();
    log.rows = crate::store::connect(&log.corner.postgres_url()).await;
    log.caught_up().await;

    stack.nats.kill9().unwrap();
    stack.nats.restart().unwrap();
    log.fill(62, 100).await;
    log.verify().await;
    eventually("all is well", async || get(address, "/readyz").0 == 200).await;
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_tail_is_taken_back() {
    let mut stack = Stack::private("lost").unwrap();
    let log = Log::open(Isolated::on("lost", &stack.addresses()).unwrap()).await;
    let (_projector, address) = log.projector("projector");
    log.fill(70, 150).await;
    log.caught_up().await;
    let kept = log.end().await;

    // The store of an earlier moment takes the place of the present one.
    let (dir, old) = (stack.nats.dir().to_owned(), stack.nats.dir().with_extension("old"));
    stack.nats.stop().unwrap();
    copy(&dir, &old);
    stack.nats.restart().unwrap();
    log.fill(71, 150).await;
    log.caught_up().await;
    stack.nats.kill9().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    copy(&old, &dir);
    stack.nats.restart().unwrap();

    eventually("the new epoch", async || log.checkpoint().await.0 == 1).await;
    let cut = log.rows.query_one("SELECT cut_seq FROM epochs", &[]).await.unwrap();
    assert_eq!(Seq::from(cut.get::<_, i64>(0)), kept);
    log.fill(72, 100).await;
    log.verify().await;
    assert_eq!(metric(address, "projector_epoch_bumps_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_is_verified_and_replaced_while_in_use() {
    let log = open("rebuild").await;
    let (_projector, address) = log.projector("projector");
    log.fill(80, 200).await;
    log.caught_up().await;
    log.corner.run("projector", &["verify"]).unwrap();

    let spoil =
        "UPDATE events SET n = n + 1 WHERE kind = 2; DELETE FROM memberships; UPDATE chats SET title = 'no'";
    log.rows.batch_execute(spoil).await.unwrap();
    let output = log.corner.output("projector", &["verify"]).unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    for table in ["events", "memberships", "chats"] {
        assert!(told.contains(&format!("{table}: ")), "{told}");
    }

    // Meanwhile the log grows and the live projector folds on.
    let done = std::sync::atomic::AtomicBool::new(false);
    let growing = async {
        let mut seed = 81;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            log.fill(seed, 20).await;
            seed += 1;
        }
    };
    let replacing = async {
        let mut command = tokio::process::Command::new(xtask::testing::binary("projector").unwrap());
        let output = command.arg("rebuild").envs(log.corner.env()).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(growing, replacing);
    log.fill(200, 50).await;
    log.verify().await;
    assert_eq!(metric(address, "projector_active"), 1.0);
}
