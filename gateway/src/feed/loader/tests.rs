use shared::event::Event;

use super::*;
use crate::{
    feed::stage::{World, until},
    hub::stage::{chat, created, deleted, edited, joined, left, looked, removed, sent, user},
};

const LARGE_RING: usize = 1 << 20;
const SMALL_RING: usize = 3_000;

#[tokio::test]
async fn a_thousand_requests_at_once_are_served_together() {
    let mut world = World::new("batches", LARGE_RING).await;
    for group in 1..=20 {
        let members: Vec<u64> = (1..=50).map(|id| 100 * group + id).collect();
        world.append(group, members[0], created(&members)).await;
    }
    let last = world.stage.log.tip();
    world.project_to(last).await;
    world.apply_to(last).await;
    let users = (1..=20).flat_map(|group| (1..=50).map(move |id| user(100 * group + id)));
    let users: Vec<UserId> = users.collect();
    let loads = users.iter().map(|user| world.loader.user(*user));
    let chats = (1..=20).map(|id| world.loader.chat(chat(id)));
    let (users_loaded, chats_loaded) =
        futures_util::join!(futures_util::future::join_all(loads), futures_util::future::join_all(chats));
    assert!(users_loaded.into_iter().chain(chats_loaded).all(|outcome| outcome.is_ok()));
    assert!(users.iter().all(|user| world.stage.hub.knows(*user)));
    assert_eq!(world.stage.hub.missing((1..=20).map(chat)), []);
}

#[tokio::test]
async fn a_user_or_a_chat_that_nobody_has_heard_of_is_loaded_as_empty() {
    let world = World::new("nobody", LARGE_RING).await;
    world.loader.user(user(7)).await.unwrap();
    world.loader.chat(chat(7)).await.unwrap();
    assert!(world.stage.hub.knows(user(7)));
    assert_eq!(world.stage.hub.missing([chat(7)].into_iter()), []);
    assert_eq!(world.stage.hub.member_count(chat(7)), 0);
}

#[tokio::test]
async fn a_load_waits_for_the_hub_where_the_projection_is_ahead() {
    let mut world = World::new("ahead", LARGE_RING).await;
    world.append(1, 1, created(&[1, 2])).await;
    let joins = world.append(1, 1, joined(&[3])).await;
    world.project_to(joins).await;
    world.apply_to(Seq(1)).await;
    let loader = world.loader.clone();
    let load = world.tracker.spawn(async move { loader.user(user(3)).await });
    // Whoever is loaded behind it waits with it, so the load has begun once this one times out.
    let other = tokio::time::timeout(Duration::from_millis(200), world.loader.chat(chat(1))).await;
    assert!(other.is_err() && !load.is_finished());
    assert!(!world.stage.hub.knows(user(3)));
    world.apply_to(joins).await;
    load.await.unwrap().unwrap();
    assert!(world.stage.hub.is_member(chat(1), user(3)));
}

#[tokio::test]
async fn a_load_that_the_ring_has_moved_past_is_made_again() {
    let mut world = World::new("overtaken", SMALL_RING).await;
    world.append(1, 1, created(&[1, 2])).await;
    let projected = world.say(1, 1, 5).await;
    world.project_to(projected).await;
    world.apply_to(Seq(2)).await;
    let loader = world.loader.clone();
    let load = world.tracker.spawn(async move { loader.user(user(2)).await });
    let other = tokio::time::timeout(Duration::from_millis(200), world.loader.chat(chat(1))).await;
    assert!(other.is_err() && !load.is_finished(), "it waits for the hub to come to the checkpoint");
    world.append(1, 1, removed(2)).await;
    let last = world.say(1, 1, 60).await;
    // In one go: when the load looks again, the checkpoint is far below the ring.
    world.apply_to(last).await;
    assert!(world.stage.hub.floor().seq > projected.next());
    load.await.unwrap().unwrap();
    assert!(world.stage.hub.knows(user(2)));
    assert!(!world.stage.hub.is_member(chat(1), user(2)), "what came since is not lost");
}

#[tokio::test]
async fn a_load_that_began_before_a_cut_is_made_again_after_it() {
    let mut world = World::new("loadcut", LARGE_RING).await;
    world.append(1, 1, created(&[1, 2])).await;
    let last = world.say(1, 1, 5).await;
    world.project_to(last).await;
    world.apply_to(Seq(3)).await;
    let loader = world.loader.clone();
    let load = world.tracker.spawn(async move { loader.user(user(2)).await });
    let other = tokio::time::timeout(Duration::from_millis(200), world.loader.chat(chat(1))).await;
    assert!(other.is_err() && !load.is_finished());
    world.stage.hub.cut(world.position(Seq(3)), 1);
    world.apply_to(last).await;
    load.await.unwrap().unwrap();
    assert_eq!(world.stage.hub.epoch(), 1);
    assert!(world.stage.hub.is_member(chat(1), user(2)));
}

#[tokio::test]
async fn what_the_projection_lacks_below_the_ring_is_read_from_the_log() {
    let mut world = World::new("extends", SMALL_RING).await;
    world.append(1, 1, created(&[1, 2, 3])).await;
    let projected = world.say(1, 1, 5).await;
    world.project_to(projected).await;
    world.append(1, 2, left(2)).await;
    world.append(1, 1, joined(&[4])).await;
    world.append(2, 4, created(&[4, 3])).await;
    let last = world.say(1, 1, 60).await;
    world.apply_to(last).await;
    assert!(world.stage.hub.floor().seq.get() > projected.get() + 4);
    let loads = (1..=4).map(|id| world.loader.user(user(id)));
    assert!(futures_util::future::join_all(loads).await.into_iter().all(|outcome| outcome.is_ok()));
    let is_member = |chat_id, id| world.stage.hub.is_member(chat(chat_id), user(id));
    assert_eq!([1, 2, 3, 4].map(|id| is_member(1, id)), [true, false, true, true]);
    assert_eq!([1, 2, 3, 4].map(|id| is_member(2, id)), [false, false, true, true]);
    assert_eq!((world.stage.hub.member_count(chat(1)), world.stage.hub.member_count(chat(2))), (3, 2));
}

#[tokio::test]
async fn deletions_of_the_projection_and_of_the_log_above_it_are_part_of_a_loaded_state() {
    let mut world = World::new("deletions", SMALL_RING).await;
    world.append(1, 1, created(&[1, 2])).await;
    let messages = [world.append(1, 1, sent("one")).await, world.append(1, 1, sent("two")).await];
    let projected = world.append(1, 1, looked(deleted(messages[0], 1), messages[1])).await;
    world.project_to(projected).await;
    world.append(1, 1, looked(deleted(messages[1], 1), messages[1])).await;
    let last = world.say(1, 1, 60).await;
    world.apply_to(last).await;
    assert!(world.stage.hub.floor().seq > projected.next());
    world.loader.user(user(2)).await.unwrap();
    let mut device = world.stage.connect(2);
    for message in messages {
        let late = world.append(1, 1, looked(edited(message, 1), messages[1])).await;
        world.apply_to(late).await;
    }
    assert_eq!(device.hears(), [""; 0]);
}

#[tokio::test]
async fn a_chat_whose_first_local_member_joins_is_loaded_and_its_events_are_delivered() {
    let mut world = World::new("wanted", LARGE_RING).await;
    world.append(1, 1, created(&[1])).await;
    let last = world.append(2, 2, created(&[2])).await;
    world.project_to(last).await;
    world.apply_to(last).await;
    world.loader.user(user(2)).await.unwrap();
    let mut device = world.stage.connect(2);
    world.append(1, 1, joined(&[2])).await;
    let last = world.append(1, 1, sent("welcome")).await;
    world.apply_to(last).await;
    let wanted = world.stage.hub.take_follow_ups();
    assert_eq!(wanted.wanted, [chat(1)]);
    assert_eq!(device.hears(), [""; 0], "the events wait for the chat's state");
    world.catch_ups.spawn(&wanted.behind[0]);
    world.loader.chat(chat(1)).await.unwrap();
    until("both events have come", || {
        device.hears();
        device.has().last().is_some_and(|(_, seq)| *seq == last)
    })
    .await;
    world.assert_complete(&device, last);
}

/// An event of a user's, of which nobody can tell by its uuid or by a look whether it is the first copy.
fn doubtful(actor: u64, number: u8, body: &str) -> Event {
    let uuid = uuid::Builder::from_random_bytes([number; 16]).into_uuid();
    Event { actor: user(actor), device: "web".into(), uuid, fact: sent(body), unique_as_of: None }
}

#[tokio::test]
async fn whether_an_entry_repeats_a_command_that_is_older_than_the_ring_is_asked_of_the_projection() {
    let mut world = World::new("repeats", SMALL_RING).await;
    world.append(1, 1, created(&[1, 2])).await;
    let first = world.append_event(1, doubtful(1, 7, "once")).await;
    let last = world.say(1, 1, 60).await;
    world.project_to(last).await;
    world.apply_to(last).await;
    assert!(world.stage.hub.floor().seq > first);
    world.loader.user(user(2)).await.unwrap();
    let mut device = world.stage.connect(2);
    world.append_copy(1, doubtful(1, 7, "once"), Some(first)).await;
    world.append_event(1, doubtful(1, 8, "another")).await;
    let last = world.say(1, 1, 1).await;
    world.apply_to(last).await;
    assert_eq!(device.hears(), [""; 0], "nothing of the chat before the projection has answered");
    let wanted = world.stage.hub.take_follow_ups();
    assert_eq!(wanted.wanted, [chat(1)]);
    world.catch_ups.spawn(&wanted.behind[0]);
    world.loader.chat(chat(1)).await.unwrap();
    world.until_live(&mut device).await;
    // The device panics at a wrong `prev`.
    world.assert_complete(&device, last);
}

#[tokio::test]
async fn a_chat_with_doubtful_entries_is_loaded_although_the_projection_lags_behind_the_ring() {
    let mut world = World::new("doubtlag", SMALL_RING).await;
    world.append(1, 1, created(&[1, 2])).await;
    let stored = world.append_event(1, doubtful(1, 7, "stored")).await;
    let projected = world.say(1, 1, 5).await;
    world.project_to(projected).await;
    let between = world.append_event(1, doubtful(1, 8, "between")).await;
    world.say(1, 1, 60).await;
    world.append_copy(1, doubtful(1, 7, "stored"), Some(stored)).await;
    world.append_copy(1, doubtful(1, 8, "between"), Some(between)).await;
    world.append_event(1, doubtful(1, 9, "new")).await;
    let last = world.say(1, 1, 1).await;
    world.apply_to(last).await;
    assert!(world.stage.hub.floor().seq > between);
    let mut device = world.behind(2, projected).await;
    world.catch_ups.spawn(&device.session);
    world.until_live(&mut device).await;
    world.assert_complete(&device, last);
}

#[tokio::test]
async fn a_repeat_between_the_projection_and_the_ring_is_void_too() {
    let mut world = World::new("repeatbelow", SMALL_RING).await;
    world.append(1, 1, created(&[1, 2])).await;
    let first = world.append_event(1, doubtful(1, 7, "once")).await;
    let projected = world.say(1, 1, 5).await;
    world.project_to(projected).await;
    let again = world.append_copy(1, doubtful(1, 7, "once"), Some(first)).await;
    world.append_event(1, doubtful(1, 8, "another")).await;
    world.append_copy(1, doubtful(1, 8, "another"), Some(again)).await;
    // With it the load's `prev` would be wrong.
    world.append_copy(1, doubtful(1, 7, "once"), Some(again)).await;
    let last = world.say(1, 2, 60).await;
    world.apply_to(last).await;
    assert!(world.stage.hub.floor().seq > again);
    let mut device = world.behind(2, projected).await;
    world.catch_ups.spawn(&device.session);
    world.until_live(&mut device).await;
    world.assert_complete(&device, last);
    assert!(world.replayed("log") > 0, "by a scan");
}

#[tokio::test]
async fn a_caller_is_told_when_nothing_can_be_loaded() {
    let world = World::new("gone", LARGE_RING).await;
    let (loader, loads) = Loader::new(world.stage.hub.clone(), world.db.clone(), world.nats.clone());
    drop(loads);
    assert_eq!(loader.user(user(1)).await, Err(unavailable()));
}

/// The chat is loaded already, for another member, so it is not in the batch whose span of the log is read.
#[tokio::test]
async fn a_user_who_left_a_loaded_chat_below_the_ring_is_no_member_of_it() {
    let mut world = World::new("leaver", SMALL_RING).await;
    world.append(1, 1, created(&[1, 2])).await;
    let projected = world.say(1, 1, 5).await;
    world.project_to(projected).await;
    world.append(1, 2, left(2)).await;
    let last = world.say(1, 1, 60).await;
    world.apply_to(last).await;
    world.loader.user(user(1)).await.unwrap();
    world.loader.user(user(2)).await.unwrap();
    assert!(!world.stage.hub.is_member(chat(1), user(2)));
    let mut device = world.stage.connect(2);
    let last = world.append(1, 1, sent("not for user 2")).await;
    world.apply_to(last).await;
    assert_eq!(device.hears(), [""; 0]);
}

/// Likewise, with a join that the fold refuses: user 7 is no member and can let nobody in.
#[tokio::test]
async fn a_user_whose_joining_was_refused_below_the_ring_is_no_member_of_a_loaded_chat() {
    let mut world = World::new("intruder", SMALL_RING).await;
    world.append(1, 1, created(&[1, 2])).await;
    let projected = world.say(1, 1, 5).await;
    world.project_to(projected).await;
    world.append(1, 7, joined(&[8])).await;
    let last = world.say(1, 1, 60).await;
    world.apply_to(last).await;
    world.loader.user(user(1)).await.unwrap();
    world.loader.user(user(8)).await.unwrap();
    assert!(!world.stage.hub.is_member(chat(1), user(8)));
}
