use std::time::Duration;

use shared::id::{EventId, Seq};

use super::*;
use crate::hub::stage::*;

/// Three of these fill a piece of a catch-up.
const LARGE: usize = PIECE_BYTES / 3 + 1;

/// More than a device is served at once.
fn say_much(stage: &mut Stage) {
    for _ in 0..=AT_ONCE_EVENTS {
        stage.append(1, 1, sent("hi"));
    }
}

#[test]
fn a_device_that_missed_nothing_is_live_at_once_with_a_cursor_of_the_tip() {
    let mut stage = Stage::with_group(&[1, 2]);
    let tip = stage.append(1, 1, sent("hi"));
    let (mut device, attached) = stage.resume(2, tip);
    assert_eq!(attached, Attached::Live);
    assert_eq!(device.hears(), ["Live"]);
    assert_eq!(stage.opened(&device), Some(stage.cursor(tip)));
}

#[test]
fn a_device_gets_what_it_missed_in_all_its_chats_in_the_logs_order() {
    let mut stage = Stage::with_group(&[1, 2]);
    stage.append(2, 1, created(&[1, 2]));
    stage.append(3, 1, created(&[1]));
    let has = stage.append(1, 1, sent("known"));
    stage.append(2, 1, sent("in the second"));
    stage.append(3, 1, sent("in one of others"));
    stage.append(1, 1, sent("in the first"));
    let (mut device, attached) = stage.resume(2, has);
    assert_eq!(attached, Attached::Live);
    let frames = device.reads(usize::MAX);
    let told: Vec<String> = frames.iter().map(in_short).collect();
    assert_eq!(told, ["Message 5 after 2", "Message 7 after 4", "Live"]);
    assert!(matches!(&frames[2], frame::ServerFrame::Live(live) if live.replayed == 2));
}

#[test]
fn a_device_that_left_a_chat_meanwhile_gets_it_up_to_its_leave() {
    let mut stage = Stage::with_group(&[1, 2]);
    stage.append(1, 1, sent("hi"));
    stage.append(1, 2, left(2));
    stage.append(1, 1, sent("gone"));
    let (mut device, attached) = stage.resume(2, Seq(1));
    assert_eq!(attached, Attached::Live);
    assert_eq!(device.hears(), ["Message 2 after 1", "memberLeft 3 after 2", "Live"]);
}

#[test]
fn the_first_session_of_a_user_who_is_not_loaded_has_to_wait() {
    let stage = Stage::with_group(&[1]);
    let (mut device, attached) = stage.resume(2, Seq(1));
    assert_eq!(attached, Attached::Unknown);
    assert!(device.hears().is_empty());
    assert_eq!(device.session.lane(), Lane::Starting);
}

#[test]
fn a_cursor_of_another_epoch_attaches_nothing() {
    let stage = Stage::with_group(&[1]);
    let session = stage.session(1);
    let foreign = Cursor { epoch: 1, ..stage.cursor(Seq(1)) };
    assert_eq!(stage.hub.attach(&session, Some(foreign)), Attached::Cut);
    assert_eq!(stage.hub.sessions_of(user(1)), 0);
}

#[test]
fn a_device_that_missed_much_is_fed_in_pieces_as_it_reads() {
    let mut stage = Stage::with_group(&[1, 2]);
    for _ in 0..9 {
        stage.append(1, 1, sent(&"x".repeat(LARGE)));
    }
    let (mut device, attached) = stage.resume(2, Seq(1));
    assert_eq!(attached, Attached::CatchUp, "no more is queued than a piece");
    assert_eq!(device.session.fed(), Seq(4));
    assert_eq!(stage.hub.advance(&device.session), Step::More);
    assert_eq!(device.session.fed(), Seq(4), "nothing has been read since");
    stage.append(1, 1, sent("while it catches up"));
    assert_eq!(stage.catch_up(&mut device), Step::Live);
    device.hears();
    assert_eq!(device.has(), stage.log.entitled(user(2), stage.log.tip()));
    assert!(device.twice.is_empty());
}

#[test]
fn a_catch_up_ends_where_live_delivery_begins() {
    let mut stage = Stage::with_group(&[1, 2]);
    say_much(&mut stage);
    let (mut device, attached) = stage.resume(2, Seq(1));
    assert_eq!(attached, Attached::CatchUp);
    assert!(device.hears().is_empty(), "more than is served at once");
    assert_eq!(stage.catch_up(&mut device), Step::Live);
    let last = stage.append(1, 1, sent("live"));
    assert_eq!(device.hears().last().unwrap(), &format!("Message {last} after {}", last.get() - 1));
    assert_eq!(stage.opened(&device), Some(stage.cursor(Seq(last.get() - 1))), "of Live");
    assert_eq!(device.has(), stage.log.entitled(user(2), last));
}

#[test]
fn a_session_below_the_ring_must_be_fed_from_elsewhere_until_it_reaches_it() {
    let mut stage = Stage::with_ring(4_000);
    stage.append(1, 1, created(&[1, 2]));
    stage.load_user(1);
    stage.load_user(2);
    for _ in 0..50 {
        stage.append(1, 1, sent("hi"));
    }
    let floor = stage.hub.floor().seq;
    let (mut device, attached) = stage.resume(2, Seq(floor.get() - 1));
    assert_eq!(attached, Attached::CatchUp);
    assert_eq!(stage.hub.advance(&device.session), Step::BelowRing);
    assert!(device.hears().is_empty());
    device.session.start_at(floor);
    assert_eq!(stage.hub.advance(&device.session), Step::Live);
    let (mut device, attached) = stage.resume(2, floor);
    assert_eq!(attached, Attached::Live, "the floor itself is no entry of the ring");
    device.hears();
    assert_eq!(device.has(), stage.log.entitled(user(2), stage.log.tip()));
}

#[test]
fn only_an_attached_session_in_its_catch_up_is_fed() {
    let mut stage = Stage::with_group(&[1, 2]);
    assert_eq!(stage.hub.advance(&stage.session(9)), Step::Gone, "an unknown user's");
    assert_eq!(stage.hub.advance(&stage.session(1)), Step::Gone, "not attached");
    let live = stage.connect(1);
    assert_eq!(stage.hub.advance(&live.session), Step::Gone, "live");
    say_much(&mut stage);
    let (behind, _) = stage.resume(2, Seq(1));
    stage.hub.detach(&behind.session);
    assert_eq!(stage.hub.advance(&behind.session), Step::Gone, "detached");
}

#[test]
fn a_detached_session_gets_nothing_and_its_users_other_sessions_stay() {
    let mut stage = Stage::with_group(&[1, 2]);
    let [mut gone, mut stays] = [2, 2].map(|id| stage.connect(id));
    stage.hub.detach(&gone.session);
    stage.append(1, 1, sent("hi"));
    assert!(gone.hears().is_empty());
    assert_eq!(stays.hears(), ["Message 2 after 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_user_without_sessions_is_remembered_for_a_while() {
    let mut stage = Stage::with_group(&[1, 2]);
    let [one, two] = [1, 2].map(|id| stage.connect(id));
    stage.hub.detach(&one.session);
    tokio::time::advance(Duration::from_secs(60)).await;
    stage.hub.detach(&two.session);
    tokio::time::advance(Duration::from_secs(1)).await;
    stage.hub.forget_idle(stage.hub.clock.now_ms() - 30_000);
    assert!(!stage.hub.knows(user(1)));
    assert!(stage.hub.knows(user(2)));
    // The chat has a local member, so a device that comes back needs nobody else.
    stage.append(1, 1, sent("hi"));
    let (mut back, attached) = stage.resume(2, Seq(1));
    assert_eq!(attached, Attached::Live);
    assert_eq!(back.hears(), ["Message 2 after 1", "Live"]);
    // Forgetting changes nothing of what a user is entitled to once they are loaded again.
    stage.load_user(1);
    let (mut again, _) = stage.resume(1, Seq(1));
    assert_eq!(again.hears(), ["Message 2 after 1", "Live"]);
}

#[tokio::test(start_paused = true)]
async fn a_chat_without_local_members_is_kept_for_as_long_as_a_command_may_take() {
    let stage = Stage::with_group(&[1]);
    stage.hub.forget_idle(u64::MAX);
    assert!(!stage.hub.knows(user(1)));
    assert!(stage.hub.keep(chat(1)), "younger than the longest command");
    tokio::time::advance(Duration::from_millis(COMMAND_MEMORY_MS)).await;
    stage.hub.forget_idle(u64::MAX);
    assert!(stage.hub.keep(chat(1)), "needed again since");
    tokio::time::advance(Duration::from_millis(COMMAND_MEMORY_MS + 1)).await;
    stage.hub.forget_idle(u64::MAX);
    assert!(!stage.hub.keep(chat(1)));
}

#[test]
fn a_cursor_follows_events_once_and_covers_what_was_queued() {
    let mut stage = Stage::with_group(&[1, 2]);
    let mut live = stage.connect(2);
    let sessions = [live.session.clone()];
    stage.hub.send_cursors(&sessions, 0);
    assert!(live.hears().is_empty(), "nothing has come since Live");
    let seq = stage.append(1, 1, sent("hi"));
    // An event of a chat that is not theirs is covered as well.
    let tip = stage.append(9, 8, created(&[8]));
    stage.hub.send_cursors(&sessions, 0);
    stage.hub.send_cursors(&sessions, 0);
    assert_eq!(live.hears(), [format!("Message {seq} after 1"), "Cursor".into()]);
    assert_eq!(stage.opened(&live), Some(stage.cursor(tip)));
}

#[test]
fn a_cursor_during_a_catch_up_covers_only_what_it_has_queued() {
    let mut stage = Stage::with_group(&[1, 2]);
    for _ in 0..9 {
        stage.append(1, 1, sent(&"x".repeat(LARGE)));
    }
    let (mut device, _) = stage.resume(2, Seq(1));
    let fed = device.session.fed();
    assert!(fed < stage.hub.position());
    stage.hub.send_cursors(&[device.session.clone()], 0);
    assert_eq!(device.hears().last().unwrap(), "Cursor");
    assert_eq!(stage.opened(&device), Some(stage.cursor(fed)));
}

#[test]
fn a_session_that_ended_is_not_attached_again() {
    let stage = Stage::with_group(&[1]);
    let session = stage.session(1);
    session.end();
    assert_eq!(stage.hub.reattach(&session, 0), Reattached::Ended);
    assert_eq!(stage.hub.sessions_of(user(1)), 0);
}

/// The gateway was away for longer than the log keeps its entries.
#[test]
fn a_hub_that_skips_goes_on_after_the_gap_with_the_sessions_in_their_catch_ups() {
    let mut stage = Stage::with_group(&[1, 2]);
    let mut device = stage.connect(2);
    stage.append(1, 1, sent("read"));
    device.hears();
    stage.append(1, 1, sent("queued and dropped"));
    for _ in 0..3 {
        stage.log.append(1, 1, sent("never seen here"));
    }
    let after = Position { seq: stage.log.tip(), id: EventId::default() };
    let sessions = stage.hub.skip_to(after);
    assert_eq!(sessions.len(), 1);
    assert!(!stage.hub.knows(user(2)));
    assert_eq!(stage.hub.position(), after.seq);
    assert_eq!((device.session.lane(), device.session.fed()), (Lane::CatchUp, Seq(2)));
    stage.load_user(2);
    assert_eq!(stage.hub.reattach(&device.session, 0), Reattached::CatchUp);
    assert_eq!(stage.hub.advance(&device.session), Step::BelowRing);
}
