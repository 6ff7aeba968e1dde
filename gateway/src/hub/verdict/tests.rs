use shared::{code::Code, id::Seq};

use super::*;
use crate::hub::stage::*;

/// A waiter of a session, whose command counts as taken.
fn of(session: &Arc<Session>) -> Waiter {
    assert!(session.begin_command(64));
    Waiter::Session { session: session.clone(), uuid: Uuid::nil(), deadline_ms: 1_000 }
}

fn caller() -> (oneshot::Receiver<Result<Stored, Failure>>, Waiter) {
    let (answer, outcome) = oneshot::channel();
    (outcome, Waiter::Caller { answer })
}

#[test]
fn an_entry_that_is_judged_already_is_answered_at_once() {
    let mut stage = Stage::with_group(&[1]);
    let mut device = stage.connect(1);
    let seq = stage.append(1, 1, sent("hi"));
    stage.hub.await_verdict(seq, stage.log.key(seq), of(&device.session));
    assert_eq!(device.hears(), ["Message 2 after 1", "Ack 2"]);
    assert_eq!(device.session.inflight(), 0);
}

#[test]
fn an_answer_comes_between_the_event_and_its_successors() {
    let mut stage = Stage::with_group(&[1]);
    let mut device = stage.connect(1);
    stage.hub.await_verdict(Seq(2), stage.log.next_key(1, 1), of(&device.session));
    assert!(device.hears().is_empty(), "the tail has not come so far");
    let entries = [stage.log.append(1, 1, sent("mine")), stage.log.append(1, 1, sent("next"))];
    stage.hub.apply(&entries).unwrap();
    assert_eq!(device.hears(), ["Message 2 after 1", "Ack 2", "Message 3 after 2"]);
}

#[test]
fn a_command_that_the_fold_refuses_is_answered_with_its_code() {
    let mut stage = Stage::with_group(&[1, 2]);
    let mut device = stage.connect(2);
    stage.hub.await_verdict(Seq(2), stage.log.next_key(1, 2), of(&device.session));
    stage.append(1, 2, removed(1));
    assert_eq!(device.hears(), ["Error chat.forbidden"]);
    assert_eq!(device.session.inflight(), 0);
}

#[test]
fn bytes_that_are_no_event_are_answered_as_invalid() {
    let mut stage = Stage::with_group(&[1]);
    let (mut outcome, waiter) = caller();
    let key = stage.log.next_key(1, 1);
    stage.hub.await_verdict(Seq(2), key, waiter);
    let seq = stage.log.append_corrupt((1, 1), 0, key.uuid);
    stage.apply(stage.log.entry(seq));
    assert_eq!(outcome.try_recv().unwrap().unwrap_err().code, Code::CommandInvalid);
}

/// A gateway that had looked before more deletions than the fold remembers: nobody can tell whether the message was one
/// of them.
#[test]
fn a_command_that_was_looked_up_too_long_ago_may_be_sent_again() {
    let mut stage = Stage::with_group(&[1]);
    let kept = stage.append(1, 1, sent("kept"));
    let others: Vec<Seq> = (0..=shared::fold::KEPT).map(|_| stage.append(1, 1, sent("hi"))).collect();
    let before = stage.hub.position();
    for other in others {
        stage.append(1, 1, looked(deleted(other, 1), before));
    }
    let key = stage.log.next_key(1, 1);
    let stale = stage.append(1, 1, looked(edited(kept, 1), before));
    let (mut outcome, waiter) = caller();
    stage.hub.await_verdict(stale, key, waiter);
    assert_eq!(outcome.try_recv().unwrap(), Err(Failure::log_unavailable()));
    assert_eq!(stage.hub.copy_of(key.chat, key.actor, key.uuid).0.map(|copy| copy.is_stale()), Some(true));
    // The same command again, by a gateway that has looked just now.
    let here = stage.hub.position();
    let again = stage.log.append_again(stale, looked(edited(kept, 1), here));
    stage.apply(&again);
    let (mut outcome, waiter) = caller();
    stage.hub.await_verdict(again.seq, key, waiter);
    let stored = outcome.try_recv().unwrap().unwrap();
    assert_eq!((stored.seq, stored.dup), (again.seq, false));
    let copy = stage.hub.copy_of(key.chat, key.actor, key.uuid).0.unwrap();
    assert_eq!((copy.seq, copy.verdict), (again.seq, crate::hub::ring::Verdict::Valid));
}

#[test]
fn a_second_copy_is_answered_with_the_outcome_of_the_first() {
    let mut stage = Stage::with_group(&[1, 2]);
    let valid = stage.append(1, 1, sent("once"));
    let void = stage.append(1, 2, removed(1));
    let copies = [valid, void].map(|seq| stage.log.append_copy(seq));
    stage.hub.apply(&copies).unwrap();
    let (mut outcome, waiter) = caller();
    stage.hub.await_verdict(copies[0].seq, stage.log.key(valid), waiter);
    let stored = outcome.try_recv().unwrap().unwrap();
    assert_eq!((stored.seq, stored.dup), (valid, true));
    let (mut outcome, waiter) = caller();
    stage.hub.await_verdict(copies[1].seq, stage.log.key(void), waiter);
    assert_eq!(outcome.try_recv().unwrap().unwrap_err().code, Code::ChatForbidden);
}

#[test]
fn a_command_to_a_chat_on_the_way_is_answered_once_its_state_is_here() {
    let mut stage = Stage::new();
    let seqs = [created(&[1]), sent("hi")].map(|fact| stage.append(1, 1, fact));
    let (mut outcome, waiter) = caller();
    stage.hub.await_verdict(seqs[1], stage.log.key(seqs[1]), waiter);
    assert!(outcome.try_recv().is_err());
    stage.load_chat(1);
    let stored = outcome.try_recv().unwrap().unwrap();
    assert_eq!((stored.chat, stored.seq, stored.dup), (chat(1), seqs[1], false));
}

#[test]
fn a_session_that_waited_too_long_is_told_that_the_outcome_is_unknown() {
    let stage = Stage::with_group(&[1]);
    let mut device = stage.connect(1);
    let (mut waits, waiter) = caller();
    let (gone, gone_waiter) = caller();
    drop(gone);
    stage.hub.await_verdict(Seq(2), stage.log.next_key(1, 1), of(&device.session));
    stage.hub.await_verdict(Seq(2), stage.log.next_key(1, 1), waiter);
    stage.hub.await_verdict(Seq(3), stage.log.next_key(1, 1), gone_waiter);
    stage.hub.expire_waiters(1_000);
    assert!(device.hears().is_empty(), "its time is not over");
    stage.hub.expire_waiters(1_001);
    assert_eq!(device.hears(), ["Error log.unavailable"]);
    assert_eq!(device.session.inflight(), 0);
    assert!(waits.try_recv().is_err(), "a caller keeps time itself");
    assert_eq!(stage.hub.lock().waiters.len(), 1, "and is forgotten when it has given up");
}

#[test]
fn the_answer_arrives_late_only_once() {
    let mut stage = Stage::with_group(&[1]);
    let mut device = stage.connect(1);
    stage.hub.await_verdict(Seq(2), stage.log.next_key(1, 1), of(&device.session));
    stage.hub.expire_waiters(u64::MAX);
    stage.append(1, 1, sent("stored after all"));
    assert_eq!(device.hears(), ["Error log.unavailable", "Message 2 after 1"]);
    assert_eq!(device.session.inflight(), 0);
}

/// The log stored a command, lost it before this gateway's tail had come so far, and gave its sequence to another one.
#[test]
fn a_command_is_not_answered_by_another_ones_entry() {
    let mut stage = Stage::with_group(&[1, 2]);
    let mut device = stage.connect(1);
    let (mut outcome, waiter) = caller();
    let lost = Key { uuid: Uuid::nil(), ..stage.log.next_key(1, 1) };
    stage.hub.await_verdict(Seq(2), lost, of(&device.session));
    stage.hub.await_verdict(Seq(2), stage.log.next_key(1, 2), waiter);
    stage.append(1, 2, sent("came instead"));
    assert_eq!(device.hears(), ["Message 2 after 1", "Error log.unavailable"]);
    assert_eq!(outcome.try_recv().unwrap().unwrap().seq, Seq(2));
    stage.hub.await_verdict(Seq(2), lost, of(&device.session));
    assert_eq!(device.hears(), ["Error log.unavailable"]);
    assert_eq!(device.session.inflight(), 0);
}
