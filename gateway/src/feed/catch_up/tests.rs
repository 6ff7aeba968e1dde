use super::*;
use crate::{
    feed::stage::{World, until},
    hub::stage::{created, deleted, joined, left, removed, sent, user},
    session::Lane,
};

/// A ring of some ten messages.
const SMALL_RING: usize = 3_000;

/// The projection has not come to the end of the log, but into the ring.
const NOT_PROJECTED: u64 = 3;

/// Two users in one group, whose log is far longer than the ring. The projection ends within the ring.
async fn far_behind(name: &str, messages: usize) -> World {
    let mut world = World::new(name, SMALL_RING).await;
    world.append(1, 1, created(&[1, 2])).await;
    let last = world.say(1, 1, messages).await;
    let projected = Seq(last.get() - NOT_PROJECTED);
    world.project_to(projected).await;
    world.apply_to(last).await;
    let floor = world.stage.hub.floor().seq;
    assert!(floor.get() > messages as u64 - 20 && floor < projected);
    world
}

#[tokio::test]
async fn a_session_far_below_the_ring_is_fed_from_the_projection_then_the_ring_then_live() {
    // More than one page of the projection.
    let mut world = far_behind("farbehind", 2 * PAGE_EVENTS).await;
    let mut device = world.behind(2, Seq(3)).await;
    world.catch_ups.spawn(&device.session);
    world.until_live(&mut device).await;
    let caught_up = world.stage.hub.position();
    world.assert_complete(&device, caught_up);
    let sources = ["projection", "ring", "log"].map(|source| world.replayed(source) > 0);
    assert_eq!(sources, [true, true, false]);

    let last = world.say(1, 1, 3).await;
    world.apply_to(last).await;
    device.hears();
    world.assert_complete(&device, last);
}

#[tokio::test]
async fn events_that_come_while_a_session_catches_up_leave_no_gap() {
    let mut world = far_behind("meanwhile", 100).await;
    let mut device = world.behind(2, Seq(3)).await;
    world.catch_ups.spawn(&device.session);
    for _ in 0..20 {
        let last = world.say(1, 1, 10).await;
        world.project_to(last).await;
        world.apply_to(last).await;
        device.hears();
    }
    world.until_live(&mut device).await;
    let last = world.say(1, 1, 3).await;
    world.apply_to(last).await;
    device.hears();
    world.assert_complete(&device, last);
}

#[tokio::test]
async fn a_session_is_fed_no_faster_than_its_client_reads() {
    let world = far_behind("pace", 4 * PAGE_EVENTS).await;
    let mut device = world.behind(2, Seq(3)).await;
    world.catch_ups.spawn(&device.session);
    until("something is queued", || device.session.queued_bytes() > 0).await;
    // As long as nothing is read, there is no second page: whatever else the runtime has to do is done by now.
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert!(device.session.fed() <= Seq(3 + PAGE_EVENTS as u64));
    }
    world.until_live(&mut device).await;
    world.assert_complete(&device, world.stage.hub.position());
}

#[tokio::test]
async fn a_later_catch_up_of_a_session_ends_the_earlier_one() {
    let world = far_behind("later", 2 * PAGE_EVENTS).await;
    let mut device = world.behind(2, Seq(3)).await;
    for _ in 0..5 {
        world.catch_ups.spawn(&device.session);
    }
    world.until_live(&mut device).await;
    world.tracker.close();
    world.tracker.wait().await;
    world.assert_complete(&device, world.stage.hub.position());
}

#[tokio::test]
async fn the_catch_up_of_a_session_that_closes_ends() {
    let world = far_behind("closes", 2 * PAGE_EVENTS).await;
    let device = world.behind(2, Seq(3)).await;
    world.catch_ups.spawn(&device.session);
    until("something is queued", || device.session.queued_bytes() > 0).await;
    device.session.close(Close::Draining, 0);
    world.tracker.close();
    world.tracker.wait().await;
    assert_eq!(device.session.lane(), Lane::CatchUp);
}

#[tokio::test]
async fn a_body_that_was_deleted_after_the_projections_checkpoint_is_withheld() {
    let mut world = World::new("withheld", SMALL_RING).await;
    world.append(1, 1, created(&[1, 2])).await;
    let message = world.append(1, 1, sent("a secret")).await;
    let projected = world.say(1, 1, 20).await;
    world.project_to(projected).await;
    let last = world.append(1, 1, deleted(message, 1)).await;
    world.apply_to(projected).await;
    // The ring's floor must not pass the checkpoint, or the log would be read instead.
    world.apply_to(last).await;
    assert!(world.stage.hub.floor().seq <= projected);
    let mut device = world.behind(2, Seq(1)).await;
    world.catch_ups.spawn(&device.session);
    until("the message has come", || device.session.queued_bytes() > 0).await;
    assert_eq!(device.hears().first().map(String::as_str), Some("Message 2 after 1 blank"));
    world.until_live(&mut device).await;
    world.assert_complete(&device, last);
}

#[tokio::test]
async fn a_session_gets_only_what_its_user_was_a_member_for() {
    let mut world = World::new("entitled", SMALL_RING).await;
    world.append(1, 1, created(&[1, 2, 3])).await;
    world.append(2, 1, created(&[1, 3])).await;
    world.say(1, 1, 3).await;
    world.append(1, 1, removed(2)).await;
    world.say(1, 1, 3).await;
    world.append(2, 1, joined(&[2])).await;
    world.say(2, 3, 3).await;
    world.append(1, 1, joined(&[2])).await;
    world.say(1, 1, 3).await;
    world.append(2, 2, left(2)).await;
    let last = world.say(2, 1, 30).await;
    world.project_to(last).await;
    world.apply_to(last).await;
    for id in 1..=3 {
        let mut device = world.behind(id, Seq(1)).await;
        world.catch_ups.spawn(&device.session);
        world.until_live(&mut device).await;
        world.assert_complete(&device, last);
    }
}

/// The hub entered a new epoch and forgot its users; see `hub/cut.rs`.
#[tokio::test]
async fn sessions_are_attached_again_after_a_cut() {
    let mut world = World::new("again", 1 << 20).await;
    world.append(1, 1, created(&[1, 2])).await;
    let last = world.say(1, 1, 5).await;
    world.project_to(last).await;
    world.apply_to(last).await;
    world.loader.user(user(2)).await.unwrap();
    let mut device = world.stage.connect(2);
    let sessions = world.stage.hub.cut(world.position(last), 1);
    assert_eq!(sessions.len(), 1);
    assert!(!world.stage.hub.knows(user(2)));
    world.catch_ups.reattach(&device.session, 1);
    world.until_live(&mut device).await;
    assert!(world.stage.hub.knows(user(2)));
    let last = world.say(1, 1, 3).await;
    world.apply_to(last).await;
    device.hears();
    world.assert_complete(&device, last);
}

#[tokio::test]
async fn a_session_that_meets_a_second_cut_before_it_is_back_is_closed_and_not_attached() {
    let mut world = World::new("secondcut", 1 << 20).await;
    let last = world.append(1, 1, created(&[1, 2])).await;
    world.project_to(last).await;
    world.apply_to(last).await;
    world.loader.user(user(2)).await.unwrap();
    let device = world.stage.connect(2);
    world.stage.hub.cut(world.position(last), 1);
    world.stage.hub.cut(world.position(last), 2);
    world.catch_ups.reattach(&device.session, 1);
    until("it is closed", || device.session.closing() == Some(Close::Internal.code())).await;
    world.tracker.close();
    world.tracker.wait().await;
    assert_eq!(world.stage.hub.sessions_of(user(2)), 0);
}

#[tokio::test]
async fn a_session_that_ended_meanwhile_is_not_attached_again() {
    let mut world = World::new("ended", 1 << 20).await;
    let last = world.append(1, 1, created(&[1, 2])).await;
    world.project_to(last).await;
    world.apply_to(last).await;
    world.loader.user(user(2)).await.unwrap();
    let device = world.stage.connect(2);
    world.stage.hub.cut(world.position(last), 1);
    device.session.end();
    world.catch_ups.reattach(&device.session, 1);
    world.tracker.close();
    world.tracker.wait().await;
    assert_eq!(world.stage.hub.sessions_of(user(2)), 0);
}
