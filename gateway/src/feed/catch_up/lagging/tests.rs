use super::*;
use crate::{
    feed::stage::{World, until},
    hub::stage::{Device, created, deleted, edited, joined, left, looked, reacted, removed, sent},
    session::stage::{session, settings},
};

const SMALL_RING: usize = 3_000;

/// A group of users 1 to 3. The projection stands at the returned sequence, and the ring begins far above it.
async fn lagging(name: &str) -> (World, Seq) {
    let mut world = World::new(name, SMALL_RING).await;
    world.append(1, 1, created(&[1, 2, 3])).await;
    let projected = world.say(1, 1, 20).await;
    world.project_to(projected).await;
    let last = world.say(1, 1, 60).await;
    world.apply_to(last).await;
    assert!(world.stage.hub.floor().seq > projected.next());
    (world, projected)
}

fn waits(world: &World, device: &Device) {
    world.catch_ups.spawn(&device.session);
}

#[tokio::test]
async fn one_scan_feeds_sessions_at_different_positions() {
    let (world, projected) = lagging("positions").await;
    let mut below = world.behind(1, Seq(5)).await;
    let mut at = world.behind(2, projected).await;
    let mut above = world.behind(3, Seq(projected.get() + 7)).await;
    for device in [&below, &at, &above] {
        waits(&world, device);
    }
    for device in [&mut below, &mut at, &mut above] {
        world.until_live(device).await;
        world.assert_complete(device, world.stage.hub.position());
    }
    let span = world.stage.hub.floor().seq.get() - projected.get();
    assert!(world.replayed("log") <= 3 * span - 7, "nobody was fed what they had");
    assert!(world.replayed("log") > 0);
}

#[tokio::test]
async fn memberships_that_begin_and_end_within_the_span_are_kept_to() {
    let (mut world, projected) = lagging("within").await;
    world.append(2, 1, created(&[1, 2])).await;
    world.say(2, 1, 3).await;
    world.append(2, 1, joined(&[3])).await;
    world.append(1, 1, removed(2)).await;
    world.say(2, 2, 3).await;
    world.append(2, 3, left(3)).await;
    world.say(2, 1, 3).await;
    world.append(1, 1, joined(&[2])).await;
    let last = world.say(1, 1, 40).await;
    world.apply_to(last).await;
    for id in 1..=3 {
        let mut device = world.behind(id, projected).await;
        waits(&world, &device);
        world.until_live(&mut device).await;
        world.assert_complete(&device, last);
    }
}

#[tokio::test]
async fn events_that_the_fold_refuses_are_not_fed() {
    let (mut world, projected) = lagging("refused").await;
    // Neither is a member of chat 1, so nothing of it counts.
    world.append(1, 7, joined(&[8])).await;
    world.append(1, 8, sent("an intruder's")).await;
    world.append(1, 7, removed(2)).await;
    let last = world.say(1, 1, 40).await;
    world.apply_to(last).await;
    for id in [2, 8] {
        world.loader.user(crate::hub::stage::user(id)).await.unwrap();
    }
    let mut device = world.behind(2, projected).await;
    waits(&world, &device);
    world.until_live(&mut device).await;
    world.assert_complete(&device, last);
}

#[tokio::test]
async fn a_body_that_is_deleted_later_in_the_span_is_withheld() {
    let (mut world, projected) = lagging("deleted").await;
    let message = world.append(1, 1, sent("a secret")).await;
    world.append(1, 1, edited(message, 1)).await;
    world.append(1, 1, deleted(message, 1)).await;
    let last = world.say(1, 1, 40).await;
    world.apply_to(last).await;
    assert_eq!(withheld(&world, projected).await, [message, message.next()], "the message and its edit");
}

/// The events of whose bodies user 2 is told nothing.
async fn withheld(world: &World, from: Seq) -> Vec<Seq> {
    let mut device = world.behind(2, from).await;
    waits(world, &device);
    let mut told = Vec::new();
    until("the session is live", || {
        told.extend(device.hears());
        device.session.lane() == Lane::Live
    })
    .await;
    world.assert_complete(&device, world.stage.hub.position());
    let blank = told.iter().filter_map(|line| line.strip_suffix(" blank"));
    blank.map(|line| Seq(line.split(' ').nth(1).unwrap().parse().unwrap())).collect()
}

#[tokio::test]
async fn a_deletion_in_the_ring_withholds_a_body_of_the_span() {
    let (mut world, projected) = lagging("ringdeleted").await;
    let message = world.append(1, 1, sent("a secret")).await;
    world.say(1, 1, 40).await;
    let last = world.append(1, 1, deleted(message, 1)).await;
    world.apply_to(last).await;
    assert!(world.stage.hub.floor().seq > message);
    world.loader.user(crate::hub::stage::user(2)).await.unwrap();
    assert_eq!(withheld(&world, projected).await, [message]);
}

#[tokio::test]
async fn a_void_deletion_withholds_nothing() {
    let (mut world, projected) = lagging("undeleted").await;
    let message = world.append(1, 1, sent("stays")).await;
    world.append(1, 9, deleted(message, 9)).await;
    world.append(1, 2, deleted(message, 1)).await;
    let last = world.say(1, 1, 40).await;
    world.apply_to(last).await;
    assert_eq!(withheld(&world, projected).await, []);
}

/// The deletion is in the projection, and the edit is in the span: the loaded state knows of it.
#[tokio::test]
async fn an_edit_of_a_message_that_was_deleted_before_the_span_is_not_fed() {
    let mut world = World::new("deletedbefore", SMALL_RING).await;
    world.append(1, 1, created(&[1, 2, 3])).await;
    let message = world.append(1, 1, sent("a secret")).await;
    let projected = world.append(1, 1, looked(deleted(message, 1), message)).await;
    world.project_to(projected).await;
    for late in [edited(message, 1), reacted(message)] {
        world.append(1, 1, looked(late, message)).await;
    }
    let last = world.say(1, 1, 60).await;
    world.apply_to(last).await;
    assert!(world.stage.hub.floor().seq.get() > projected.get() + 2);
    // The device panics at a gap or at an event that it is not to get.
    assert_eq!(withheld(&world, projected).await, []);
}

#[tokio::test]
async fn a_session_that_does_not_read_holds_up_nobody_and_is_served_later() {
    let mut world = World::new("full", SMALL_RING).await;
    world.append(1, 1, created(&[1, 2, 3])).await;
    let projected = world.say(1, 1, 5).await;
    world.project_to(projected).await;
    let body = "x".repeat(4_000);
    for _ in 0..60 {
        world.append(1, 1, sent(&body)).await;
    }
    let last = world.stage.log.tip();
    world.apply_to(last).await;
    let mut slow = world.behind(2, projected).await;
    let mut quick = world.behind(3, projected).await;
    waits(&world, &slow);
    waits(&world, &quick);
    world.until_live(&mut quick).await;
    world.assert_complete(&quick, last);
    assert_eq!(slow.session.lane(), Lane::CatchUp);
    assert!(slow.session.queued_bytes() < 2 * FULL_BYTES, "it was left out when it was full");
    world.until_live(&mut slow).await;
    world.assert_complete(&slow, last);
}

#[tokio::test]
async fn nothing_is_fed_from_a_scan_of_a_former_epoch() {
    let (world, projected) = lagging("former").await;
    let device = world.behind(2, projected).await;
    let waiting = &world.catch_ups.lagging;
    let span = Span::load(waiting, vec![device.session.clone()]).await.unwrap();
    let cut = world.stage.hub.floor();
    world.stage.hub.cut(cut, 1);
    let before = device.session.queued_bytes();
    span.scan(waiting).await.unwrap();
    assert_eq!(device.session.queued_bytes(), before);
}

#[tokio::test]
async fn sessions_that_wait_together_are_served_by_one_scan() {
    let (world, projected) = lagging("together").await;
    let (one, two) = (world.behind(1, projected).await, world.behind(2, projected).await);
    let waiting = &world.catch_ups.lagging;
    let outcome = tokio::join!(waiting.read(&one.session), waiting.read(&two.session));
    assert_eq!(outcome, (Ok(()), Ok(())));
    assert!(waiting.waiting.lock().is_empty());
    let floor = world.stage.hub.floor().seq;
    assert_eq!([one.session.fed(), two.session.fed()], [floor; 2]);
    // One of the two found that the other's scan had served it: nothing was fed twice.
    assert_eq!(world.replayed("log"), 2 * (floor.get() - projected.get()));
}

/// The session was told by the projection that it has nothing beyond its position. Before the shared scan is loaded, the
/// projection goes on, so the scan begins above that position.
#[tokio::test]
async fn a_scan_that_begins_above_a_sessions_position_leaves_no_gap() {
    let (mut world, projected) = lagging("hole").await;
    let mut device = world.behind(2, projected).await;
    world.project_to(Seq(projected.get() + 10)).await;
    world.catch_ups.lagging.read(&device.session).await.unwrap();
    waits(&world, &device);
    // The device panics at a gap.
    world.until_live(&mut device).await;
    world.assert_complete(&device, world.stage.hub.position());
}

#[test]
fn a_scan_takes_no_session_that_stands_below_its_start() {
    let behind = |at| {
        let session = Arc::new(session(1, &settings()));
        session.start_at(Seq(at));
        session
    };
    for (at, taken) in [(9, false), (10, true), (11, true)] {
        assert_eq!(Reader::from(behind(at), Seq(10)).is_some(), taken, "at {at}");
    }
}
