use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::{
    command::Failure,
    hub::{
        stage::{Device, Stage, sent, user},
        verdict::Waiter,
    },
    session::close::Close,
};

const INTERVALS: Intervals = Intervals {
    tick: Duration::from_millis(100),
    heartbeat_ms: 1_000,
    stall_ms: 5_000,
    write_ms: 60_000,
    linger_ms: 300,
    expiry_notice_ms: 60_000,
    memory_ms: 4_000,
};

fn sweep(stage: &Stage) -> Sweep {
    Sweep::new(stage.hub.clone(), Pages::for_tests(), INTERVALS)
}

async fn pass(ms: u64) {
    tokio::time::advance(Duration::from_millis(ms)).await;
}

#[tokio::test(start_paused = true)]
async fn every_session_that_got_events_gets_one_cursor_that_covers_them() {
    let members: Vec<u64> = (1..=3 * CURSOR_BATCH as u64 + 1).collect();
    let mut stage = Stage::with_group(&members);
    let mut devices: Vec<Device> = members.iter().map(|id| stage.connect(*id)).collect();
    let mut sweep = sweep(&stage);
    sweep.tick();
    assert!(devices.iter_mut().all(|device| device.hears().is_empty()), "they got no events");
    stage.append(1, 1, sent("one"));
    let last = stage.append(1, 1, sent("two"));
    sweep.tick();
    for device in &mut devices {
        assert_eq!(device.hears(), ["Message 2 after 1", "Message 3 after 2", "Cursor"]);
        assert_eq!(stage.opened(device), Some(stage.cursor(last)));
    }
    sweep.tick();
    assert!(devices.iter_mut().all(|device| device.hears().is_empty()), "all is covered");
}

#[tokio::test(start_paused = true)]
async fn sessions_are_pinged_and_closed_as_time_passes() {
    let stage = Stage::with_group(&[1]);
    let device = stage.connect(1);
    let mut sweep = sweep(&stage);
    pass(1_000).await;
    sweep.tick();
    assert!(device.session.queued_bytes() > 0, "a ping");
    pass(1_001).await;
    sweep.tick();
    assert_eq!(device.session.closing(), Some(Close::NoHeartbeat.code()));
    pass(300).await;
    sweep.tick();
    assert!(!device.session.is_ended());
    pass(1).await;
    sweep.tick();
    assert!(device.session.is_ended());
}

#[tokio::test(start_paused = true)]
async fn a_command_without_a_verdict_is_answered_at_its_deadline() {
    let stage = Stage::with_group(&[1]);
    let mut device = stage.connect(1);
    let mut sweep = sweep(&stage);
    assert!(device.session.begin_command(1));
    let seq = stage.hub.position().next();
    let session = device.session.clone();
    let deadline_ms = stage.hub.clock.now_ms() + 500;
    let key = stage.log.next_key(1, 1);
    stage.hub.await_verdict(seq, key, Waiter::Session { session, uuid: Uuid::nil(), deadline_ms });
    pass(500).await;
    sweep.tick();
    assert_eq!(device.hears(), [""; 0]);
    pass(1).await;
    sweep.tick();
    assert_eq!(device.hears(), [format!("Error {}", Failure::log_unavailable().code)]);
    assert_eq!(device.session.inflight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_user_without_sessions_is_remembered_for_a_while() {
    let stage = Stage::with_group(&[1, 2]);
    let (gone, stays) = (stage.connect(1), stage.connect(2));
    let mut sweep = sweep(&stage);
    stage.hub.detach(&gone.session);
    pass(4_000).await;
    stays.session.heard(stage.hub.clock.now_ms());
    sweep.tick();
    assert!(stage.hub.knows(user(1)), "it may come back");
    pass(1_001).await;
    sweep.tick();
    assert!(!stage.hub.knows(user(1)));
    assert!(stage.hub.knows(user(2)), "it has a session");
}
