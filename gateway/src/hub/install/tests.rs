use shared::id::Seq;

use super::*;
use crate::hub::{attach::Attached, stage::*};

/// A hub whose ring holds some of these messages of group 1, and its log. Nothing is loaded.
fn busy(ring_bytes: usize, messages: u64) -> Stage {
    let mut stage = Stage::with_ring(ring_bytes);
    stage.append(1, 1, created(&[1, 2]));
    for _ in 0..messages {
        stage.append(1, 1, sent("hi"));
    }
    stage
}

/// What a device gets that comes back at the ring's floor.
fn heard_since(stage: &Stage, id: u64, from: Seq) -> Vec<String> {
    let (mut device, attached) = stage.resume(id, from);
    assert_eq!(attached, Attached::Live);
    device.hears()
}

#[test]
fn a_chat_is_brought_up_to_the_hubs_position_by_the_ring() {
    let mut stage = busy(8 << 20, 1);
    let pin = stage.hub.pin();
    let loaded = stage.log.chat(chat(1), Seq(2), pin.floor);
    drop(pin);
    stage.append(1, 9, sent("from a stranger"));
    stage.append(1, 1, joined(&[3]));
    stage.append(1, 3, sent("hi"));
    stage.hub.install_chat(loaded, 0).unwrap();
    for id in [2, 3] {
        stage.load_user(id);
    }
    let expected = ["Message 2 after 1", "memberJoined 4 after 2", "Message 5 after 4", "Live"];
    assert_eq!(heard_since(&stage, 2, Seq(1)), expected);
    assert_eq!(heard_since(&stage, 3, Seq(3)), ["memberJoined 4 after 2", "Message 5 after 4", "Live"]);
}

#[test]
fn entries_that_the_projection_has_judged_are_taken_as_it_says() {
    let mut stage = busy(8 << 20, 0);
    stage.append(1, 9, sent("from a stranger"));
    let first = stage.append(1, 1, sent("hi"));
    let whole = stage.log.entry(first).payload.clone();
    for payload in [b"nonsense".to_vec(), whole[..whole.len() - 1].to_vec()] {
        let entry = stage.log.append_raw(Some(1), payload);
        stage.apply(&entry);
    }
    let copy = stage.log.append_copy(first);
    stage.apply(&copy);
    stage.append(1, 1, sent("again"));
    stage.load_user(2);
    assert_eq!(heard_since(&stage, 2, Seq(1)), ["Message 3 after 1", "Message 7 after 3", "Live"]);
}

#[test]
fn bodies_that_were_deleted_before_the_chat_was_loaded_stay_withheld() {
    let mut stage = busy(8 << 20, 0);
    let message = stage.append(1, 1, sent("regret"));
    stage.append(1, 1, edited(message, 1));
    stage.append(1, 1, deleted(message, 1));
    stage.append(1, 1, edited(message, 1));
    stage.load_user(2);
    let expected = [
        "Message 2 after 1 blank",
        "edited 3 after 2 blank",
        "deleted 4 after 3",
        "edited 5 after 4 blank",
        "Live",
    ];
    assert_eq!(heard_since(&stage, 2, Seq(1)), expected);
}

#[test]
fn what_was_loaded_before_the_ring_moved_past_it_is_stale() {
    let mut stage = busy(4_000, 50);
    let early = stage.hub.floor().seq;
    let chat_then = stage.log.chat(chat(1), early, early);
    let user_then = stage.log.user(user(2), early);
    for _ in 0..5 {
        stage.append(1, 1, sent("hi"));
    }
    assert!(stage.hub.floor().seq > early);
    assert_eq!(stage.hub.install_chat(chat_then, 0), Err(Stale::Ring));
    stage.load_chat(1);
    assert_eq!(stage.hub.install_user(&user_then, 0), Err(Stale::Ring));
    stage.load_user(2);
}

/// The chat is loaded as of the present, but the ring has given up the entry before the oldest that it still has: the
/// `prev` of that one is known neither from the ring nor from the load.
#[test]
fn a_chat_whose_entries_were_evicted_during_the_load_is_stale() {
    let mut stage = busy(4_000, 50);
    let floor = stage.hub.floor().seq;
    for _ in 0..5 {
        stage.append(1, 1, sent("hi"));
    }
    assert!(stage.hub.floor().seq > floor);
    let loaded = stage.log.chat(chat(1), stage.hub.position(), floor);
    assert_eq!(stage.hub.install_chat(loaded, 0), Err(Stale::Ring));
}

#[test]
fn what_the_projection_has_beyond_the_hub_is_stale_until_the_tail_has_passed_it() {
    let mut stage = busy(8 << 20, 1);
    let ahead = stage.log.append(1, 1, sent("not here yet"));
    let loaded = stage.log.chat(chat(1), ahead.seq, Seq::ZERO);
    let member = stage.log.user(user(2), ahead.seq);
    assert_eq!(stage.hub.install_chat(loaded.clone(), 0), Err(Stale::Ring));
    assert_eq!(stage.hub.install_user(&member, 0), Err(Stale::Ring));
    stage.apply(&ahead);
    stage.hub.install_chat(loaded, 0).unwrap();
    stage.hub.install_user(&member, 0).unwrap();
}

#[test]
fn what_was_loaded_in_a_former_epoch_is_stale() {
    let mut stage = busy(8 << 20, 1);
    let loaded = stage.log.chat(chat(1), Seq(2), Seq::ZERO);
    let member = stage.log.user(user(2), Seq(2));
    stage.lose_tail(Seq(2));
    assert_eq!(stage.hub.install_chat(loaded, 0), Err(Stale::Ring));
    assert_eq!(stage.hub.install_user(&member, 0), Err(Stale::Ring));
}

#[test]
fn a_pin_keeps_the_ring_for_a_load_that_does_not_take_too_long() {
    let mut stage = busy(4_000, 50);
    let pin = stage.hub.pin();
    let floor = pin.floor;
    let loaded = stage.log.chat(chat(1), floor, floor);
    stage.log.append(1, 1, sent("hi"));
    stage.apply(stage.log.entry(stage.log.tip()));
    assert_eq!(stage.hub.floor().seq, floor);
    stage.hub.install_chat(loaded, pin.epoch).unwrap();
    drop(pin);
    assert!(stage.hub.floor().seq > floor, "the ring gives up what is beyond its budget");
}

#[test]
fn a_chat_that_is_loaded_already_is_left_as_it_is() {
    let mut stage = busy(8 << 20, 1);
    let loaded = stage.log.chat(chat(1), Seq(2), Seq::ZERO);
    stage.load_user(2);
    let mut device = stage.connect(2);
    stage.append(1, 1, sent("hi"));
    stage.hub.install_chat(loaded, 0).unwrap();
    stage.append(1, 1, sent("hi"));
    assert_eq!(device.hears(), ["Message 3 after 2", "Message 4 after 3"]);
}

#[test]
fn a_user_needs_all_chats_also_those_that_they_may_have_joined_since_the_load() {
    let mut stage = busy(8 << 20, 0);
    stage.append(5, 9, created(&[9]));
    let member = stage.log.user(user(2), stage.hub.position());
    stage.append(5, 9, joined(&[2]));
    assert_eq!(stage.hub.missing([chat(1), chat(5)].into_iter()), [chat(1), chat(5)]);
    let Err(Stale::Chats(mut unknown)) = stage.hub.install_user(&member, 0) else { panic!() };
    unknown.sort_unstable();
    assert_eq!(unknown, [chat(1), chat(5)]);
    assert!(!stage.hub.knows(user(2)));
    for id in [1, 5] {
        stage.load_chat(id);
    }
    stage.hub.install_user(&member, 0).unwrap();
    assert!(stage.hub.is_member(chat(5), user(2)));
    assert_eq!(heard_since(&stage, 2, Seq(1)), ["memberJoined 3 after 2", "Live"]);
}

#[test]
fn what_happened_to_a_user_since_the_load_is_taken_from_the_ring() {
    let mut stage = busy(8 << 20, 0);
    let member = stage.log.user(user(2), Seq(1));
    stage.append(1, 2, removed(1)); // Refused: it changes nothing.
    stage.append(1, 2, left(2));
    stage.append(1, 1, sent("gone"));
    stage.append(1, 1, joined(&[2]));
    stage.load_chat(1);
    stage.hub.install_user(&member, 0).unwrap();
    assert_eq!(heard_since(&stage, 2, Seq(1)), ["memberLeft 3 after 1", "memberJoined 5 after 4", "Live"]);
}

/// The user joins and leaves the chat before its state is here.
#[test]
fn a_user_who_comes_and_goes_while_a_chat_is_on_the_way_gets_what_lay_between() {
    for upto in [2, 3, 4, 5, 6] {
        let mut stage = Stage::with_group(&[1]);
        let mut device = stage.connect(1);
        stage.append(5, 9, created(&[9]));
        stage.append(5, 9, joined(&[1]));
        stage.append(5, 9, sent("between"));
        stage.append(5, 9, removed(1));
        stage.append(5, 9, sent("gone"));
        let loaded = stage.log.chat(chat(5), Seq(upto), Seq::ZERO);
        stage.hub.install_chat(loaded, 0).unwrap();
        assert_eq!(stage.catch_up(&mut device), crate::hub::attach::Step::Live);
        let expected = ["memberJoined 3 after 2", "Message 4 after 3", "memberLeft 5 after 4", "Live"];
        assert_eq!(device.hears(), expected, "loaded as of {upto}");
        assert!(!stage.hub.is_member(chat(5), user(1)));
        stage.append(5, 9, sent("gone"));
        assert!(device.hears().is_empty());
    }
}

#[tokio::test]
async fn whoever_waits_for_a_state_is_woken_when_it_comes() {
    let stage = busy(8 << 20, 1);
    let mut waits = std::pin::pin!(stage.hub.installed());
    let first = futures_util::poll!(waits.as_mut());
    assert!(first.is_pending());
    stage.load_chat(1);
    assert!(futures_util::poll!(waits).is_ready());
}
