//! Each kind of planted violation is found, and a run without any is clean.

use std::sync::Arc;

use uuid::Uuid;

use super::{Breach, Oracle, device_log::DeviceLog, history::HistoryMessage, log::Entry};
use crate::frame::Incoming;

const CHAT: u64 = 5;
const ALICE: u64 = 1;
const BOB: u64 = 2;

struct Run {
    oracle: Oracle,
    alice: Arc<DeviceLog>,
    bob: Arc<DeviceLog>,
}

fn run() -> Run {
    let oracle = Oracle::default();
    oracle.chat(CHAT, [ALICE, BOB]);
    let alice = device(&oracle, ALICE);
    let bob = device(&oracle, BOB);
    Run { oracle, alice, bob }
}

fn device(oracle: &Oracle, user: u64) -> Arc<DeviceLog> {
    let log = oracle.device(user, format!("u{user}"));
    log.connecting(false);
    log.welcome(false);
    log.live(oracle.tick(), 0);
    log
}

fn message(from: u64, uuid: Uuid, seq: u64, prev: u64) -> String {
    body(from, uuid, seq, prev, "hi")
}

fn body(from: u64, uuid: Uuid, seq: u64, prev: u64, body: &str) -> String {
    format!(
        r#"{{"type":"Message","chatId":{CHAT},"seq":{seq},"prev":{prev},"uuid":"{uuid}","from":{from},"body":"{body}","ts":0}}"#
    )
}

fn event(kind: &str, seq: u64, prev: u64, data: &str) -> String {
    format!(
        r#"{{"type":"Event","chatId":{CHAT},"seq":{seq},"prev":{prev},"kind":"{kind}","from":{ALICE},"ts":0,"data":{data}}}"#
    )
}

fn give_when(log: &DeviceLog, text: &str, live: bool) {
    match Incoming::parse(text) {
        Ok(Incoming::Durable(event)) => {
            log.durable(&event, live);
        }
        other => panic!("{other:?}"),
    }
}

fn give(log: &DeviceLog, text: &str) {
    give_when(log, text, true);
}

fn in_history(from: u64, uuid: Uuid, seq: u64, prev: u64) -> HistoryMessage {
    HistoryMessage {
        chat_id: CHAT,
        seq,
        prev,
        uuid,
        from,
        body: "hi".to_owned(),
        deleted: false,
        edited_ts: None,
    }
}

impl Run {
    /// Sent and acked.
    fn send(&self, seq: u64) -> Uuid {
        let uuid = Uuid::now_v7();
        self.oracle.sent(ALICE, CHAT, uuid, "hi");
        self.oracle.acked(ALICE, CHAT, uuid, seq, false);
        uuid
    }

    fn give_both(&self, text: &str) {
        give(&self.alice, text);
        give(&self.bob, text);
    }

    /// Three clean messages at 10, 12 and 13.
    fn three(&self) -> [Uuid; 3] {
        let uuids = [self.send(10), self.send(12), self.send(13)];
        for (uuid, (seq, prev)) in uuids.iter().zip([(10, 3), (12, 10), (13, 12)]) {
            self.give_both(&message(ALICE, *uuid, seq, prev));
        }
        uuids
    }

    fn only(&self, breach: Breach) {
        let verdict = self.oracle.check();
        assert!(verdict.count(breach) > 0, "no {breach:?} in {verdict}");
        assert_eq!(verdict.counts().len(), 1, "{verdict}");
    }

    fn clean(&self) {
        let verdict = self.oracle.check();
        assert!(verdict.is_clean(), "{verdict}");
    }
}

#[test]
fn a_clean_run_is_clean() {
    let run = run();
    let [a, b, c] = run.three();
    let messages =
        vec![in_history(ALICE, a, 10, 3), in_history(ALICE, b, 12, 10), in_history(ALICE, c, 13, 12)];
    run.oracle.history(BOB, CHAT, messages, false);
    let verdict = run.oracle.check();
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!((verdict.sent, verdict.acked, verdict.received), (3, 3, 6));
    assert_eq!(run.oracle.outstanding(), 0);
}

#[test]
fn an_acked_message_that_a_device_never_got_is_lost() {
    let run = run();
    let uuid = run.send(10);
    give(&run.alice, &message(ALICE, uuid, 10, 3));
    assert_eq!(run.oracle.outstanding(), 1);
    run.only(Breach::Lost);
}

#[test]
fn what_was_sent_before_a_device_was_live_is_not_owed_to_it() {
    let run = run();
    run.three();
    device(&run.oracle, BOB);
    run.clean();
}

#[test]
fn nothing_is_owed_to_a_device_that_is_gone() {
    let run = run();
    run.bob.finish();
    let uuid = run.send(10);
    give(&run.alice, &message(ALICE, uuid, 10, 3));
    run.clean();
}

#[test]
fn a_second_delivery_is_a_duplicate() {
    let run = run();
    let [_, _, c] = run.three();
    give(&run.bob, &message(ALICE, c, 13, 12));
    run.only(Breach::Duplicated);
}

#[test]
fn a_uuid_under_two_sequences_is_a_duplicate() {
    let run = run();
    let [a, ..] = run.three();
    run.give_both(&message(ALICE, a, 14, 13));
    run.only(Breach::Duplicated);
}

#[test]
fn a_lower_sequence_after_a_higher_one_is_out_of_order() {
    let run = run();
    let (a, b) = (run.send(10), run.send(12));
    for log in [&run.alice, &run.bob] {
        give(log, &message(ALICE, b, 12, 10));
        give(log, &message(ALICE, a, 10, 3));
    }
    run.only(Breach::OutOfOrder);
}

#[test]
fn a_skipped_event_is_a_gap_and_a_loss() {
    let run = run();
    let (a, b, c) = (run.send(10), run.send(12), run.send(13));
    for (uuid, seq, prev) in [(a, 10, 3), (b, 12, 10), (c, 13, 12)] {
        give(&run.alice, &message(ALICE, uuid, seq, prev));
        if uuid != b {
            give(&run.bob, &message(ALICE, uuid, seq, prev));
        }
    }
    let verdict = run.oracle.check();
    assert_eq!((verdict.count(Breach::Gap), verdict.count(Breach::Lost)), (1, 1), "{verdict}");
    assert_eq!(verdict.violations.len(), 2, "{verdict}");
}

#[test]
fn a_prev_that_skips_what_others_saw_is_a_gap() {
    let run = run();
    let (a, b) = (run.send(10), run.send(12));
    give(&run.alice, &message(ALICE, a, 10, 3));
    give(&run.bob, &message(ALICE, a, 10, 3));
    run.give_both(&message(ALICE, b, 12, 10));
    let late = device(&run.oracle, BOB);
    let c = run.send(13);
    run.give_both(&message(ALICE, c, 13, 12));
    give(&late, &message(ALICE, c, 13, 10));
    let verdict = run.oracle.check();
    assert!(verdict.count(Breach::Disagreement) > 0, "{verdict}");
}

#[test]
fn devices_that_saw_different_things_disagree() {
    let run = run();
    let a = run.send(10);
    give(&run.alice, &message(ALICE, a, 10, 3));
    give(&run.bob, &body(ALICE, a, 10, 3, "something else"));
    run.only(Breach::Disagreement);
}

#[test]
fn a_deleted_message_may_be_replayed_without_its_body() {
    let run = run();
    let a = run.send(10);
    give(&run.alice, &message(ALICE, a, 10, 3));
    give(&run.bob, &body(ALICE, a, 10, 3, ""));
    run.give_both(&event("deleted", 11, 10, r#"{"seq":10}"#));
    run.clean();
}

#[test]
fn a_refused_command_that_took_effect_is_undead() {
    let run = run();
    let uuid = Uuid::now_v7();
    run.oracle.sent(ALICE, CHAT, uuid, "hi");
    run.oracle.refused(ALICE, CHAT, uuid, "chat.not_found");
    run.clean();
    run.oracle.history(BOB, CHAT, vec![in_history(ALICE, uuid, 10, 3)], false);
    run.only(Breach::Undead);
    run.give_both(&message(ALICE, uuid, 10, 3));
    run.only(Breach::Undead);
}

#[test]
fn contradicting_answers_are_wrong() {
    let run = run();
    let [a, ..] = run.three();
    run.oracle.acked(ALICE, CHAT, a, 10, true);
    run.clean();
    run.oracle.acked(ALICE, CHAT, a, 11, true);
    run.only(Breach::WrongAck);
    run.oracle.refused(ALICE, CHAT, a, "log.full");
    run.oracle.acked(BOB, CHAT, a, 10, true);
    run.only(Breach::WrongAck);
}

#[test]
fn an_ack_with_another_message_s_sequence_disagrees() {
    let run = run();
    let uuid = Uuid::now_v7();
    run.oracle.sent(ALICE, CHAT, uuid, "hi");
    run.three();
    run.oracle.acked(ALICE, CHAT, uuid, 12, false);
    run.only(Breach::Disagreement);
}

#[test]
fn a_send_without_an_answer_is_unanswered() {
    let run = run();
    run.oracle.sent(ALICE, CHAT, Uuid::now_v7(), "hi");
    assert_eq!(run.oracle.outstanding(), 1);
    run.only(Breach::Unanswered);
}

#[test]
fn a_message_that_nobody_sent_is_a_phantom() {
    let run = run();
    run.give_both(&message(BOB, Uuid::now_v7(), 10, 3));
    run.only(Breach::Phantom);
}

#[test]
fn a_removed_member_gets_the_own_removal_and_no_more() {
    let run = run();
    run.three();
    run.give_both(&event("memberLeft", 15, 13, r#"{"userId":2,"reason":"removed"}"#));
    let d = run.send(16);
    give(&run.alice, &message(ALICE, d, 16, 15));
    run.clean();
    give(&run.bob, &message(ALICE, d, 16, 15));
    run.only(Breach::Trespass);
}

#[test]
fn a_member_who_comes_back_starts_a_new_chain() {
    let run = run();
    run.three();
    run.give_both(&event("memberLeft", 15, 13, r#"{"userId":2,"reason":"left"}"#));
    let d = run.send(16);
    give(&run.alice, &message(ALICE, d, 16, 15));
    run.give_both(&event("memberJoined", 17, 16, r#"{"members":[{"userId":2,"role":"member"}]}"#));
    run.clean();
    let e = run.send(18);
    give(&run.alice, &message(ALICE, e, 18, 17));
    run.only(Breach::Lost);
}

#[test]
fn a_resume_starts_at_its_cursor() {
    let run = run();
    let (a, b) = (run.send(10), run.send(12));
    run.give_both(&message(ALICE, a, 10, 3));
    run.bob.cursor();
    run.give_both(&message(ALICE, b, 12, 10));
    run.bob.connecting(true);
    run.bob.welcome(true);
    give_when(&run.bob, &message(ALICE, b, 12, 10), false);
    run.bob.live(run.oracle.tick(), 1);
    run.clean();
    let c = run.send(13);
    run.give_both(&message(ALICE, c, 13, 12));
    run.clean();
    let d = run.send(14);
    run.give_both(&message(ALICE, d, 14, 13));
    run.bob.connecting(true);
    run.bob.welcome(true);
    give_when(&run.bob, &message(ALICE, d, 14, 13), false);
    run.only(Breach::Gap);
}

#[test]
fn a_miscounted_replay_and_a_refused_cursor_are_noticed() {
    let run = run();
    run.bob.connecting(true);
    run.bob.welcome(true);
    run.bob.live(run.oracle.tick(), 1);
    run.only(Breach::Protocol);
    run.bob.connecting(true);
    run.bob.welcome(false);
    assert_eq!(run.oracle.check().count(Breach::Protocol), 2);
}

#[test]
fn what_a_cut_made_void_must_be_gone() {
    let run = run();
    let [a, b, c] = run.three();
    for log in [&run.alice, &run.bob] {
        log.reset(CHAT, 10);
    }
    let void = run.oracle.cut(ALICE, CHAT, 10);
    assert_eq!(void.iter().map(|(key, _)| key.uuid).collect::<Vec<_>>(), [b, c]);
    run.clean();
    run.oracle.sent(ALICE, CHAT, b, "hi");
    run.oracle.acked(ALICE, CHAT, b, 11, false);
    run.give_both(&message(ALICE, b, 11, 10));
    let history = vec![in_history(ALICE, a, 10, 3), in_history(ALICE, b, 11, 10)];
    run.oracle.history(BOB, CHAT, history, false);
    run.clean();
    run.give_both(&message(ALICE, c, 12, 11));
    assert!(run.oracle.check().count(Breach::Undead) > 0);
}

#[test]
fn a_history_that_differs_is_found() {
    let all = |uuids: &[Uuid; 3]| -> Vec<HistoryMessage> {
        uuids
            .iter()
            .zip([(10, 3), (12, 10), (13, 12)])
            .map(|(u, (s, p))| in_history(ALICE, *u, s, p))
            .collect()
    };
    type Plant = fn(&mut Vec<HistoryMessage>);
    let plants: [(Breach, Plant); 6] = [
        (Breach::Lost, |history| drop(history.remove(1))),
        (Breach::OutOfOrder, |history| history.swap(0, 1)),
        (Breach::Disagreement, |history| history[1].body.push('!')),
        (Breach::Disagreement, |history| history[1].prev = 3),
        (Breach::Lost, |history| history.push(in_history(BOB, Uuid::now_v7(), 14, 13))),
        (Breach::Duplicated, |history| {
            let again = in_history(ALICE, history[0].uuid, 14, 13);
            history.push(again);
        }),
    ];
    for (at, (breach, plant)) in plants.into_iter().enumerate() {
        let run = run();
        let mut history = all(&run.three());
        plant(&mut history);
        run.oracle.history(BOB, CHAT, history, false);
        assert!(run.oracle.check().count(breach) > 0, "plant {at}: {}", run.oracle.check());
    }
}

#[test]
fn the_log_is_compared() {
    let run = run();
    let uuids = run.three();
    let entry = |uuid, seq| Entry { seq, chat: CHAT, kind: 2, actor: ALICE, uuid };
    let void = entry(uuids[0], 11);
    let log = [entry(uuids[0], 10), void, entry(uuids[1], 12), entry(uuids[2], 13)];
    assert_eq!(run.oracle.check_log(&log), []);
    let breaches = |log: &[Entry]| -> Vec<Breach> {
        run.oracle.check_log(log).iter().map(|violation| violation.breach).collect()
    };
    assert!(breaches(&log[..3]).contains(&Breach::Lost));
    assert!(breaches(&[log[0].clone(), log[2].clone(), log[3].clone()]).contains(&Breach::Gap));
    let mut other = log.clone();
    other[2].uuid = Uuid::now_v7();
    assert!(breaches(&other).contains(&Breach::Disagreement));
}
