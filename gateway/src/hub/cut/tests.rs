use std::time::Duration;

use shared::{
    frame::ServerFrame,
    id::{EventId, Seq},
};
use uuid::Uuid;

use super::*;
use crate::hub::{
    attach::{Attached, Reattached, Step},
    stage::*,
    verdict::Waiter,
};

/// Attaches the sessions again, as their catch-ups do once their users are loaded, and reads until they are live.
fn come_back(stage: &Stage, device: &mut Device) -> Vec<String> {
    let user = device.session.user();
    if !stage.hub.knows(user) {
        stage.load_user(user.get());
    }
    assert_eq!(stage.hub.reattach(&device.session, stage.hub.epoch()), Reattached::CatchUp);
    let mut heard = device.hears();
    assert_eq!(stage.catch_up(device), Step::Live);
    heard.extend(device.hears());
    heard
}

#[test]
fn a_live_session_is_told_of_the_lost_events_and_goes_on_in_the_new_history() {
    let mut stage = Stage::with_group(&[1, 2]);
    let mut device = stage.connect(2);
    for _ in 0..3 {
        stage.append(1, 1, sent("hi"));
    }
    device.hears();
    assert_eq!(stage.lose_tail(Seq(2)).len(), 1);
    stage.append(1, 1, sent("instead"));
    assert_eq!(come_back(&stage, &mut device), ["Reset 1 to 2", "Message 3 after 2", "Live"]);
    assert_eq!(device.has(), stage.log.entitled(device.session.user(), stage.log.tip()));
    let cursor = stage.opened(&device).unwrap();
    assert_eq!((cursor.epoch, cursor.position), (1, stage.log.position(Seq(3))));
}

/// What waits in a session's outbox, and how each of its `Reset`s seals a place to go on from.
fn resets(stage: &Stage, device: &mut Device) -> Vec<(u64, Seq, u32, Seq)> {
    let user = device.session.user();
    let of = |frame: ServerFrame| match frame {
        ServerFrame::Reset(reset) => {
            let cursor = stage.hub.sealer.open(user, &reset.cursor).unwrap();
            Some((reset.chat_id.get(), reset.after_seq, cursor.epoch, cursor.position.seq))
        }
        _ => None,
    };
    device.reads(usize::MAX).into_iter().filter_map(of).collect()
}

#[test]
fn only_the_chats_that_lost_events_are_reset_and_only_the_last_reset_is_of_the_new_epoch() {
    let mut stage = Stage::with_group(&[1, 2]);
    for chat in [2, 3] {
        stage.append(chat, 1, created(&[1, 2]));
    }
    let kept = stage.append(2, 1, sent("kept"));
    let mut device = stage.connect(2);
    for chat in [1, 3] {
        stage.append(chat, 1, sent("lost"));
    }
    device.hears();
    stage.lose_tail(kept);
    // The first one's cursor is of the former epoch: a device that drops here is told both again.
    assert_eq!(resets(&stage, &mut device), [(1, Seq(1), 0, kept), (3, Seq(3), 1, kept)]);
}

#[test]
fn a_session_whose_chats_lost_nothing_is_told_nothing_and_misses_nothing() {
    let mut stage = Stage::with_group(&[1, 2]);
    let mut device = stage.connect(2);
    let kept = stage.append(1, 1, sent("queued"));
    stage.append(9, 8, created(&[8]));
    stage.lose_tail(kept);
    assert_eq!(come_back(&stage, &mut device), ["Message 2 after 1", "Live"]);
}

#[test]
fn events_that_were_queued_and_not_written_are_read_again_up_to_the_cut() {
    let mut stage = Stage::with_group(&[1, 2]);
    let mut device = stage.connect(2);
    for _ in 0..4 {
        stage.append(1, 1, sent("hi"));
    }
    stage.lose_tail(Seq(3));
    assert_eq!(
        come_back(&stage, &mut device),
        ["Reset 1 to 3", "Message 2 after 1", "Message 3 after 2", "Live"]
    );
    assert!(device.twice.is_empty());
}

#[test]
fn a_frame_beyond_the_cut_that_is_half_on_the_wire_is_finished_and_taken_back() {
    let mut stage = Stage::with_group(&[1, 2]);
    let mut device = stage.connect(2);
    for _ in 0..3 {
        stage.append(1, 1, sent("hi"));
    }
    let whole = device.session.queued_bytes();
    assert_eq!(device.hears_within(whole - 5), ["Message 2 after 1", "Message 3 after 2"]);
    stage.lose_tail(Seq(2));
    assert_eq!(device.session.fed(), Seq(2));
    stage.append(1, 1, sent("instead"));
    let heard = come_back(&stage, &mut device);
    assert_eq!(heard, ["Message 4 after 3", "Reset 1 to 2", "Message 3 after 2", "Live"]);
    assert_eq!(device.session.outbox().written(), Seq(3), "what the lost frame proved counts no more");
    assert_eq!(device.has(), stage.log.entitled(user(2), Seq(3)));
}

#[test]
fn a_session_in_its_catch_up_keeps_what_was_queued_below_the_cut() {
    let mut stage = Stage::with_group(&[1, 2]);
    for _ in 0..9 {
        stage.append(1, 1, sent(&"x".repeat(20_000)));
    }
    let (mut device, attached) = stage.resume(2, Seq(1));
    assert_eq!(attached, Attached::CatchUp);
    device.hears();
    let fed = device.session.fed();
    stage.lose_tail(Seq(6));
    assert_eq!(device.session.fed(), fed);
    come_back(&stage, &mut device);
    assert_eq!(device.has(), stage.log.entitled(user(2), Seq(6)));
    assert!(device.twice.is_empty());
}

#[test]
fn a_lost_join_and_a_lost_leave_are_taken_back() {
    let mut stage = Stage::with_group(&[1, 2]);
    stage.append(2, 9, created(&[9]));
    stage.append(3, 9, created(&[9]));
    let mut device = stage.connect(2);
    let kept = stage.hub.position();
    stage.append(1, 2, left(2));
    stage.append(4, 1, created(&[1, 2]));
    assert_eq!(device.hears(), ["memberLeft 4 after 1", "chatCreated 5 after 0"]);
    stage.lose_tail(kept);
    stage.append(1, 1, sent("you are still here"));
    stage.append(4, 8, created(&[8]));
    // Of a chat whose creation is lost nothing remains; the cut itself is as true as 0.
    let heard = come_back(&stage, &mut device);
    assert_eq!(heard, ["Reset 4 to 0", "Reset 1 to 1", "Message 4 after 1", "Live"]);
    assert_eq!(device.has(), stage.log.entitled(user(2), stage.log.tip()));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_came_from_elsewhere_lately_is_told_of_all_its_chats() {
    let mut stage = Stage::with_group(&[1, 2]);
    stage.append(2, 1, created(&[1, 2]));
    let (mut long_ago, _) = stage.resume(2, Seq(2));
    tokio::time::advance(Duration::from_millis(RESUME_DOUBT_MS + 1)).await;
    let kept = stage.append(9, 8, created(&[8]));
    let (mut lately, _) = stage.resume(2, kept);
    for device in [&mut long_ago, &mut lately] {
        assert_eq!(device.hears(), ["Live"]);
    }
    stage.append(2, 1, sent("lost"));
    stage.lose_tail(kept);
    // Another gateway may have given it events of chat 1 that this one has not seen.
    assert_eq!(lately.hears(), ["Reset 1 to 1", "Reset 2 to 2"]);
    assert_eq!(long_ago.hears(), ["Reset 2 to 2"]);
}

#[test]
fn a_cut_below_the_ring_closes_the_sessions_which_are_told_when_they_come_back() {
    let mut stage = Stage::with_ring(4_000);
    stage.append(1, 1, created(&[1, 2]));
    stage.load_user(1);
    stage.load_user(2);
    let mut device = stage.connect(2);
    for _ in 0..50 {
        stage.append(1, 1, sent("hi"));
        device.hears();
    }
    let cut = Seq(stage.hub.floor().seq.get() - 1);
    assert_eq!(stage.lose_tail(cut).len(), 1);
    assert_eq!(device.session.closing(), Some(Close::Internal.code()));
    assert!(device.hears().is_empty());
    assert_eq!(stage.hub.tip(), stage.log.position(cut), "the hub goes on behind the cut");
    stage.append(1, 1, sent("instead"));
    assert_eq!(stage.hub.position(), cut.next());

    let mut back = Device::new(stage.session(2), device.has());
    let former = Cursor { epoch: 0, position: Position { seq: Seq(51), id: EventId(51) } };
    stage.load_user(2);
    let carried = stage.hub.carry_over(&back.session, former, stage.log.position(cut), &[]).unwrap();
    assert_eq!(carried, stage.cursor(cut));
    stage.hub.attach(&back.session, Some(carried));
    back.hears();
    assert_eq!(back.has(), stage.log.entitled(user(2), cut.next()));
}

#[test]
fn a_cut_that_the_hub_has_not_come_to_resets_to_the_cut_itself() {
    let mut stage = Stage::with_group(&[1, 2]);
    let (mut device, _) = stage.resume(2, Seq(1));
    assert_eq!(device.hears(), ["Live"]);
    for _ in 0..5 {
        stage.log.append(1, 1, sent("not seen here yet"));
    }
    stage.lose_tail(Seq(4));
    assert_eq!(stage.hub.position(), Seq(1));
    assert_eq!(device.hears(), ["Reset 1 to 4"], "it may have been elsewhere before");
}

#[test]
fn commands_that_wait_are_told_that_their_outcome_is_unknown() {
    let mut stage = Stage::with_group(&[1]);
    let mut device = stage.connect(1);
    assert!(device.session.begin_command(1));
    let session = device.session.clone();
    let waiter = Waiter::Session { session, uuid: Uuid::nil(), deadline_ms: u64::MAX };
    stage.hub.expect(Seq(5));
    stage.hub.await_verdict(Seq(5), stage.log.next_key(1, 1), waiter);
    stage.lose_tail(Seq(1));
    assert_eq!(device.hears(), ["Error log.unavailable"]);
    assert_eq!(stage.hub.expected(), Seq(1), "what was known to be stored is gone");
}

#[test]
fn a_session_that_ends_during_a_cut_stays_away() {
    let mut stage = Stage::with_group(&[1]);
    let device = stage.connect(1);
    let sessions = stage.lose_tail(Seq(1));
    // Its task ends before its user is loaded again; the hub does not know the session any more.
    device.session.end();
    stage.hub.detach(&device.session);
    stage.load_user(1);
    assert_eq!(stage.hub.reattach(&sessions[0], 1), Reattached::Ended);
    assert_eq!(stage.hub.sessions_of(user(1)), 0);
}

#[test]
fn a_second_cut_before_a_session_is_back_is_not_hidden_from_it() {
    let mut stage = Stage::with_group(&[1, 2]);
    let device = stage.connect(2);
    stage.append(1, 1, sent("hi"));
    let first = stage.lose_tail(Seq(2));
    assert_eq!(stage.hub.reattach(&first[0], 1), Reattached::Unknown, "its user is not loaded");
    assert!(stage.lose_tail(Seq(1)).is_empty(), "the second cut cannot tell it");
    stage.load_user(2);
    assert_eq!(stage.hub.reattach(&device.session, 1), Reattached::Cut);
    assert_eq!(stage.hub.sessions_of(user(2)), 0);
}

#[test]
fn a_cursor_of_a_former_epoch_is_carried_over_with_all_chats_told() {
    let mut stage = Stage::with_group(&[1, 2]);
    stage.append(2, 1, created(&[1, 2]));
    stage.append(1, 1, sent("kept"));
    let below = stage.cursor(Seq(2));
    stage.append(1, 1, sent("lost"));
    let above = stage.cursor(Seq(4));
    let cut = stage.log.position(Seq(3));
    let device = |stage: &Stage| stage.device(2, Seq(2));
    let mut early = device(&stage);
    stage.lose_tail(Seq(3));
    assert_eq!(stage.hub.carry_over(&early.session, below, cut, &[]), None, "its user is to be loaded first");
    stage.load_user(2);
    let carried = stage.hub.carry_over(&early.session, below, cut, &[chat(7)]);
    assert_eq!(carried, Some(Cursor { epoch: 1, ..below }));
    let told = [(1, Seq(3), 0, Seq(2)), (2, Seq(2), 0, Seq(2)), (7, Seq(3), 1, Seq(2))];
    assert_eq!(resets(&stage, &mut early), told, "the chat that it left since as well");
    let late = device(&stage);
    assert_eq!(stage.hub.carry_over(&late.session, above, cut, &[]), Some(stage.cursor(Seq(3))));
}

#[test]
fn a_device_that_never_had_an_event_of_the_lost_ones_is_not_shown_them_again() {
    let mut stage = Stage::with_group(&[1, 2]);
    stage.append(1, 1, sent("lost"));
    stage.lose_tail(Seq(1));
    stage.append(1, 2, sent("instead"));
    stage.load_user(2);
    let (mut device, attached) = stage.resume(2, Seq(1));
    assert_eq!(attached, Attached::Live);
    let frames = device.reads(usize::MAX);
    assert!(matches!(&frames[0], ServerFrame::Message(message) if message.body == "instead"));
}

#[test]
fn a_message_whose_deletion_was_lost_has_its_body_again() {
    let mut stage = Stage::with_group(&[1, 2]);
    let message = stage.append(1, 1, sent("kept"));
    stage.append(1, 1, deleted(message, 1));
    stage.lose_tail(message);
    stage.load_user(2);
    let (mut device, attached) = stage.resume(2, Seq(1));
    assert_eq!(attached, Attached::Live);
    assert_eq!(device.hears(), ["Message 2 after 1", "Live"]);
}
