use super::*;
use crate::{
    feed::stage::{World, lost, until},
    hub::stage::{created, joined, user},
    session::Lane,
};

const LARGE_RING: usize = 1 << 20;

#[tokio::test]
async fn what_is_appended_comes_to_live_sessions() {
    let mut world = World::new("tail", LARGE_RING).await;
    world.append(1, 1, created(&[1, 2])).await;
    let last = world.say(1, 1, 3).await;
    world.project_to(last).await;
    world.follow();
    world.stage.hub.passed(last).await;
    world.loader.user(user(2)).await.unwrap();
    let mut device = world.stage.connect(2);
    let last = world.say(1, 1, 10).await;
    world.stage.hub.passed(last).await;
    device.hears();
    world.assert_complete(&device, last);
}

#[tokio::test]
async fn a_chat_that_a_local_user_joins_is_loaded_and_the_session_goes_on() {
    let mut world = World::new("joins", LARGE_RING).await;
    world.append(1, 1, created(&[1])).await;
    let last = world.append(2, 2, created(&[2])).await;
    world.project_to(last).await;
    world.follow();
    world.stage.hub.passed(last).await;
    world.loader.user(user(2)).await.unwrap();
    let mut device = world.stage.connect(2);
    world.append(1, 1, joined(&[2])).await;
    let last = world.say(1, 1, 3).await;
    until("it is all there, and the session is live", || {
        device.hears();
        device.session.lane() == Lane::Live && device.has().last().is_some_and(|(_, seq)| *seq == last)
    })
    .await;
    world.assert_complete(&device, last);
}

#[tokio::test]
async fn a_session_that_reads_too_slowly_is_fed_by_a_catch_up() {
    let mut world = World::new("slow", LARGE_RING).await;
    let last = world.append(1, 1, created(&[1, 2])).await;
    world.project_to(last).await;
    world.stage.settings.outbox_frames = 5;
    world.follow();
    world.stage.hub.passed(last).await;
    world.loader.user(user(2)).await.unwrap();
    let mut device = world.stage.connect(2);
    let last = world.say(1, 1, 30).await;
    world.stage.hub.passed(last).await;
    assert!(device.session.lane() != Lane::Live || world.replayed("ring") > 0);
    world.until_live(&mut device).await;
    world.assert_complete(&device, last);
}

#[tokio::test]
async fn a_log_that_lost_its_newest_entries_is_cut_and_sessions_go_on_in_the_new_epoch() {
    let mut world = World::new("losttail", LARGE_RING).await;
    world.append(1, 1, created(&[1, 2])).await;
    let kept = world.say(1, 1, 4).await;
    world.project_to(kept).await;
    world.apply_to(kept).await;
    world.loader.user(user(2)).await.unwrap();
    let mut device = world.stage.connect(2);
    let gone = lost(&world.entries[4], kept.next());
    world.stage.hub.apply(&[gone]).unwrap();
    // The copy of a command is no event of its own, so the device has not been sent it. That is not what this is about.
    device.hears();
    world.follow();
    until("the hub is in the epoch that begins at the cut", || world.stage.hub.epoch() == 1).await;
    assert_eq!(world.epochs.lowest_after(0), Some(world.position(kept)));
    world.until_live(&mut device).await;
    let last = world.say(1, 1, 3).await;
    world.stage.hub.passed(last).await;
    world.until_live(&mut device).await;
    world.assert_complete(&device, last);
}

#[tokio::test]
async fn a_cut_that_another_gateway_declared_is_followed() {
    let mut world = World::new("follows", LARGE_RING).await;
    world.append(1, 1, created(&[1, 2])).await;
    let last = world.say(1, 1, 4).await;
    world.project_to(last).await;
    world.follow();
    world.stage.hub.passed(last).await;
    let cut = world.nats.read_one(Partition::FIRST, last).await.unwrap().unwrap().position();
    world.epochs.declare(0, cut, 0).await.unwrap();
    until("the hub is in the new epoch", || world.stage.hub.epoch() == 1).await;
    let next = world.say(1, 1, 1).await;
    world.stage.hub.passed(next).await;
}

#[tokio::test]
async fn the_reader_ends_when_the_gateway_does() {
    let mut world = World::new("ends", LARGE_RING).await;
    let cancel = world.follow();
    cancel.cancel();
    until("it has ended", || world.tasks.len() < 2 || world.tasks.try_join_next().is_some()).await;
}
