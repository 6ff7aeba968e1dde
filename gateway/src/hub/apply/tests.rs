use shared::{event::History, id::Seq, permission::Role};

use super::*;
use crate::hub::{attach::Step, stage::*};

/// The bytes of an event whose head can be read and whose data cannot.
fn corrupt_data(log: &mut Log) -> Vec<u8> {
    let seq = log.append_corrupt((1, 1), 0, uuid::Uuid::nil());
    let payload = log.entry(seq).payload.to_vec();
    log.cut(Seq(seq.get() - 1));
    payload
}

#[test]
fn a_message_reaches_the_members_and_nobody_else() {
    let mut stage = Stage::with_group(&[1, 2]);
    stage.load_user(3);
    let [mut author, mut member, mut stranger] = [1, 2, 3].map(|id| stage.connect(id));
    stage.append(1, 1, sent("hi"));
    stage.append(1, 2, sent("hello"));
    assert_eq!(author.hears(), ["Message 2 after 1", "Message 3 after 2"]);
    assert_eq!(member.hears(), ["Message 2 after 1", "Message 3 after 2"]);
    assert!(stranger.hears().is_empty());
}

#[test]
fn every_kind_of_event_reaches_the_members() {
    let mut stage = Stage::with_group(&[1, 2]);
    let mut device = stage.connect(1);
    let message = stage.append(1, 2, sent("hi"));
    stage.append(1, 2, edited(message, 2));
    stage.append(1, 1, reacted(message));
    stage.append(1, 2, deleted(message, 2));
    stage.append(1, 1, joined(&[3, 4]));
    stage.append(1, 3, left(3));
    stage.append(1, 1, removed(4));
    stage.append(1, 1, role_changed(2, Role::Admin));
    stage.append(1, 1, titled("us"));
    stage.append(1, 1, history(History::Join));
    let expected = [
        "Message 2 after 1",
        "edited 3 after 2",
        "reaction 4 after 3",
        "deleted 5 after 4",
        "memberJoined 6 after 5",
        "memberLeft 7 after 6",
        "memberLeft 8 after 7",
        "roleChanged 9 after 8",
        "titleChanged 10 after 9",
        "settingsChanged 11 after 10",
    ];
    assert_eq!(device.hears(), expected);
}

#[test]
fn a_removed_member_gets_the_own_removal_and_nothing_after_it() {
    let mut stage = Stage::with_group(&[1, 2]);
    let mut device = stage.connect(2);
    stage.append(1, 1, removed(2));
    stage.append(1, 1, sent("at last"));
    assert_eq!(device.hears(), ["memberLeft 2 after 1"]);
    stage.append(1, 1, joined(&[2]));
    stage.append(1, 1, sent("welcome back"));
    assert_eq!(device.hears(), ["memberJoined 4 after 3", "Message 5 after 4"]);
}

#[test]
fn what_the_fold_refuses_reaches_nobody_and_is_no_part_of_the_chat() {
    let mut stage = Stage::with_group(&[1, 2]);
    let mut device = stage.connect(2);
    stage.append(1, 9, sent("from a stranger"));
    stage.append(1, 2, removed(1));
    stage.append(1, 1, sent("hi"));
    assert_eq!(device.hears(), ["Message 4 after 1"]);
}

#[test]
fn nothing_about_a_message_that_was_deleted_before_reaches_anybody() {
    let mut stage = Stage::with_group(&[1, 2]);
    let mut device = stage.connect(2);
    let message = stage.append(1, 1, sent("a secret"));
    stage.append(1, 1, looked(deleted(message, 1), message));
    // Their gateways had looked before the deletion came.
    for late in [edited(message, 1), reacted(message), deleted(message, 1)] {
        stage.append(1, 1, looked(late, message));
    }
    stage.append(1, 1, sent("hi"));
    assert_eq!(device.hears(), ["Message 2 after 1", "deleted 3 after 2", "Message 7 after 3"]);
    let (mut back, _) = stage.resume(2, Seq(1));
    assert_eq!(back.hears()[1..], ["deleted 3 after 2", "Message 7 after 3", "Live"]);
}

#[test]
fn a_second_copy_of_a_command_reaches_nobody() {
    let mut stage = Stage::with_group(&[1, 2]);
    let mut device = stage.connect(2);
    let first = stage.append(1, 1, sent("once"));
    let copy = stage.log.append_copy(first);
    stage.apply(&copy);
    stage.append(1, 1, sent("twice"));
    assert_eq!(device.hears(), ["Message 2 after 1", "Message 4 after 2"]);
}

#[test]
fn bytes_that_are_no_event_reach_nobody_and_stop_nobody() {
    let mut stage = Stage::with_group(&[1, 2]);
    let mut live = stage.connect(1);
    let data = corrupt_data(&mut stage.log);
    for payload in [b"nonsense".to_vec(), data] {
        let entry = stage.log.append_raw(Some(1), payload);
        stage.apply(&entry);
    }
    stage.append(1, 1, sent("hi"));
    assert_eq!(live.hears(), ["Message 4 after 1"]);
    let (mut back, attached) = stage.resume(2, Seq(1));
    assert_eq!(attached, crate::hub::attach::Attached::Live);
    assert_eq!(back.hears(), ["Message 4 after 1", "Live"]);
}

#[test]
fn an_event_of_a_newer_build_stops_the_hub_before_it() {
    let mut stage = Stage::with_group(&[1]);
    let before = stage.log.append(1, 1, sent("known"));
    let mut newer = before.payload.to_vec();
    newer[1] = shared::event::VERSION + 1;
    let newer = stage.log.append_raw(Some(1), newer);
    let after = stage.log.append(1, 1, sent("never reached"));
    let refused = stage.hub.apply(&[before, newer, after]).unwrap_err();
    assert_eq!(refused.seq, Seq(3));
    assert_eq!(stage.hub.position(), Seq(2), "what comes before it is applied");
}

#[test]
fn an_unknown_chat_without_local_members_is_not_loaded() {
    let mut stage = Stage::with_group(&[1]);
    let mut device = stage.connect(1);
    stage.append(5, 8, created(&[8, 9]));
    stage.append(5, 8, sent("hi"));
    let left = stage.hub.take_follow_ups();
    assert!(left.wanted.is_empty() && left.behind.is_empty());
    assert!(device.hears().is_empty());
}

#[test]
fn a_new_chat_is_known_from_its_first_event() {
    let mut stage = Stage::with_group(&[1]);
    let mut device = stage.connect(1);
    stage.append(5, 9, created(&[9, 1]));
    stage.append(5, 9, sent("hi"));
    assert_eq!(device.hears(), ["chatCreated 2 after 0", "Message 3 after 2"]);
    assert!(stage.hub.take_follow_ups().wanted.is_empty(), "there is nothing to load");
}

#[test]
fn a_local_user_who_joins_an_unknown_chat_waits_for_its_state() {
    let mut stage = Stage::with_group(&[1, 2]);
    let [mut joining, mut other] = [1, 2].map(|id| stage.connect(id));
    stage.append(5, 9, created(&[9]));
    stage.append(5, 9, joined(&[1]));
    stage.append(1, 2, sent("in the known chat"));
    stage.append(5, 9, sent("in the new chat"));
    let left = stage.hub.take_follow_ups();
    assert_eq!(left.wanted, [chat(5)]);
    assert_eq!(left.behind.len(), 1, "once, although two entries waited");
    assert!(Arc::ptr_eq(&left.behind[0], &joining.session));
    assert_eq!(stage.catch_up(&mut joining), Step::Held);
    assert_eq!(other.hears(), ["Message 4 after 1"], "others don't wait");

    stage.load_chat(5);
    assert_eq!(stage.hub.advance(&joining.session), Step::Live);
    assert_eq!(joining.hears(), ["memberJoined 3 after 2", "Message 4 after 1", "Message 5 after 3", "Live"]);
    stage.append(5, 1, sent("now live"));
    assert_eq!(joining.hears(), ["Message 6 after 5"]);
}

/// The chat's state is on the way because of the first user when the second one joins.
#[test]
fn another_local_user_who_joins_a_chat_on_the_way_waits_as_well() {
    let mut stage = Stage::with_group(&[1, 2]);
    let [mut first, mut second] = [1, 2].map(|id| stage.connect(id));
    stage.append(5, 9, created(&[9]));
    stage.append(5, 9, joined(&[1]));
    stage.append(5, 9, joined(&[2]));
    stage.append(5, 9, sent("to both"));
    assert_eq!(stage.hub.take_follow_ups().behind.len(), 2);
    stage.load_chat(5);
    assert_eq!(stage.catch_up(&mut first), Step::Live);
    assert_eq!(stage.catch_up(&mut second), Step::Live);
    assert_eq!(
        first.hears(),
        ["memberJoined 3 after 2", "memberJoined 4 after 3", "Message 5 after 4", "Live"]
    );
    assert_eq!(second.hears(), ["memberJoined 4 after 3", "Message 5 after 4", "Live"]);
}

#[test]
fn a_session_without_room_is_told_and_goes_on_after_what_was_written() {
    let mut stage = Stage::with_group(&[1, 2]);
    stage.settings.outbox_frames = 3;
    let mut slow = stage.connect(2);
    for _ in 0..2 {
        stage.append(1, 1, sent("hi"));
    }
    // The first frame is half on the wire when there is no more room.
    assert!(slow.hears_within(10).is_empty());
    for _ in 0..3 {
        stage.append(1, 1, sent("hi"));
    }
    assert_eq!(slow.session.lane(), Lane::CatchUp);
    assert_eq!(slow.session.fed(), Seq(2), "the half-written frame is not queued again");
    let left = stage.hub.take_follow_ups();
    assert_eq!(left.behind.len(), 1);
    assert_eq!(slow.hears(), ["Message 2 after 1", "Lagging 3"]);
    assert_eq!(stage.hub.advance(&slow.session), Step::Live);
    assert_eq!(
        slow.hears(),
        ["Message 3 after 2", "Message 4 after 3", "Message 5 after 4", "Message 6 after 5", "Live"]
    );
    assert!(slow.twice.is_empty());
}

#[test]
fn a_replay_withholds_the_body_of_a_deleted_message_and_of_its_edits() {
    let mut stage = Stage::with_group(&[1, 2]);
    let message = stage.append(1, 1, sent("regret"));
    let other = stage.append(1, 1, sent("stays"));
    stage.append(1, 1, edited(message, 1));
    stage.append(1, 1, edited(other, 1));
    let mut live = stage.connect(2);
    stage.append(1, 1, deleted(message, 1));
    stage.append(1, 1, edited(message, 1));
    assert_eq!(live.hears(), ["deleted 6 after 5", "edited 7 after 6 blank"]);
    let (mut back, _) = stage.resume(2, Seq(1));
    let expected = [
        "Message 2 after 1 blank",
        "Message 3 after 2",
        "edited 4 after 3 blank",
        "edited 5 after 4",
        "deleted 6 after 5",
        "edited 7 after 6 blank",
        "Live",
    ];
    assert_eq!(back.hears(), expected);
}

/// Its uuid is the client's idempotency key, and names no time.
#[test]
fn the_first_event_of_a_chat_needs_no_look_for_an_earlier_copy() {
    let mut stage = Stage::with_ring(2_000);
    stage.append(1, 1, created(&[1, 2]));
    stage.load_user(2);
    let mut member = stage.connect(2);
    while stage.hub.floor().seq < Seq(10) {
        stage.append(1, 1, sent("hi"));
        member.hears();
    }
    let key = uuid::Builder::from_random_bytes([7; 16]).into_uuid();
    let seq = stage.log.append_at((2, 1), 0, key, created(&[1, 2]), None);
    let entry = stage.log.entry(seq).clone();
    stage.apply(&entry);
    assert_eq!(member.hears(), [format!("chatCreated {seq} after 0")]);
    assert!(stage.hub.take_follow_ups().wanted.is_empty(), "the chat is not to be loaded");
    assert_eq!(stage.hub.metrics.doubtful_total.get(), 0);
}
