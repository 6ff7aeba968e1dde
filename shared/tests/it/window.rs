//! What is said to be new is new: against a log that forgets, and users whose clocks show anything.

use std::collections::HashMap;

use proptest::prelude::*;
use shared::{
    id::UserId,
    window::{AHEAD_MS, Ahead, CLOCK_ERROR_MS, Window, ahead_until, uuid_time_ms},
};
use uuid::{Builder, Uuid};

use crate::samples::user;

/// What the product's streams are set to.
const PRODUCT: Window = Window { ms: 120_000 };
/// The deadline of a command.
const APPEND_MS: u64 = 10_000;

fn uuid_v7(made_ms: u64, tail: u8) -> Uuid {
    Builder::from_unix_timestamp_millis(made_ms, &[tail; 10]).into_uuid()
}

#[test]
fn only_version_7_names_a_time() {
    assert_eq!(uuid_time_ms(uuid_v7(1_700_000_000_123, 1)), Some(1_700_000_000_123));
    assert_eq!(uuid_time_ms(uuid_v7(0, 1)), Some(0));
    assert_eq!(uuid_time_ms(uuid_v7((1 << 48) - 1, 0xFF)), Some((1 << 48) - 1));
    for none in [Uuid::nil(), Uuid::max(), Uuid::from_u128(0x0190_0000_0000_4000_8000_0000_0000_0001)] {
        assert_eq!(uuid_time_ms(none), None, "{none}");
    }
    let microsoft = Uuid::from_u128(uuid_v7(5, 0).as_u128() | 0b110 << 61);
    assert_eq!((microsoft.get_version_num(), uuid_time_ms(microsoft)), (7, None), "of another variant");
}

#[test]
fn an_entry_is_ahead_if_its_uuid_is_later_than_itself_by_the_margin() {
    let at = |made_ms| ahead_until(uuid_v7(made_ms, 0), 1_000_000);
    assert_eq!(at(1_000_000 + AHEAD_MS), None);
    assert_eq!(at(1_000_001 + AHEAD_MS), Some(1_000_001 + AHEAD_MS));
    assert_eq!(at(0), None);
    assert_eq!(ahead_until(Uuid::nil(), 0), None);
}

#[test]
fn a_mark_covers_its_user_up_to_its_time() {
    let mut ahead = Ahead::default();
    assert!(!ahead.covers(user(1), 0));
    assert!(!ahead.note(user(1), uuid_v7(AHEAD_MS, 0), 0), "not ahead");
    assert!(ahead.note(user(1), uuid_v7(150_000, 0), 0));
    ahead.mark(user(1), 100_000);
    assert!(ahead.covers(user(1), 1) && ahead.covers(user(1), 150_000));
    assert!(!ahead.covers(user(1), 150_001) && !ahead.covers(user(2), 1));
}

#[test]
fn a_thousand_marked_users_cost_few_others_a_look_up() {
    let mut ahead = Ahead::default();
    (1..=1_000).for_each(|id| ahead.mark(user(id), 9_999));
    let covered =
        |ids: std::ops::RangeInclusive<u64>| ids.filter(|id| ahead.covers(user(*id), 9_999)).count();
    assert_eq!(covered(1..=1_000), 1_000);
    assert!(covered(1_001..=101_000) < 250, "{}", covered(1_001..=101_000));
}

#[test]
fn a_window_that_is_too_short_proves_nothing() {
    assert_eq!(PRODUCT.fresh_ms(APPEND_MS), 45_000);
    assert_eq!(Window { ms: 100_000 }.fresh_ms(APPEND_MS), 25_000);
    assert_eq!(Window { ms: u64::MAX }.fresh_ms(APPEND_MS), 45_000, "however long the window is");
    for short in [0, 100, 60_000] {
        assert_eq!(Window { ms: short }.fresh_ms(APPEND_MS), 0);
    }
    let new = |ms| Window { ms }.proves_new(&Ahead::default(), user(1), uuid_v7(5, 0), 5);
    assert!(new(120_000) && new(AHEAD_MS + CLOCK_ERROR_MS) && !new(AHEAD_MS + CLOCK_ERROR_MS - 1));
}

#[test]
fn what_was_fresh_is_stored_as_new_and_not_ahead() {
    let fresh = PRODUCT.fresh_ms(APPEND_MS);
    let ahead = Ahead::default();
    let log_ms: u64 = 1_000_000;
    for estimate_ms in [log_ms - CLOCK_ERROR_MS, log_ms, log_ms + CLOCK_ERROR_MS] {
        for made_ms in [estimate_ms - fresh + 1, estimate_ms, estimate_ms + fresh - 1] {
            for ts_ms in [log_ms, log_ms + APPEND_MS] {
                assert!(PRODUCT.proves_new(&ahead, user(1), uuid_v7(made_ms, 0), ts_ms), "{made_ms} {ts_ms}");
            }
        }
    }
}

/// One attempt to store a command.
#[derive(Debug, Clone)]
struct Attempt {
    user: u64,
    /// Which of the user's commands it is. A command has one uuid.
    command: u8,
    /// How much later than the attempt before, by the log's time.
    after_ms: u64,
}

fn attempt() -> impl Strategy<Value = Attempt> {
    let pause = prop_oneof![0..1_000_u64, 1_000..200_000_u64, 100_000..130_000_u64];
    (1..4_u64, 0..4_u8, pause).prop_map(|(user, command, after_ms)| Attempt { user, command, after_ms })
}

proptest! {
    /// Whoever makes a uuid with whatever clock, whenever and however often it is appended: an entry that is said to be
    /// new has no earlier copy. The log stores every attempt that its window does not cover, as one from a gateway does
    /// that looks nothing up.
    #[test]
    fn no_copy_is_said_to_be_new(
        made in prop::collection::vec(prop_oneof![0..700_000_u64, 450_000..460_000_u64], 16),
        attempts in prop::collection::vec(attempt(), 1..60),
        window_ms in prop::sample::select(vec![120_000, 90_000, 60_000, 1_000, 600_000]),
        first_ms in 300_000..500_000_u64,
    ) {
        let window = Window { ms: window_ms };
        let (mut ahead, mut now_ms) = (Ahead::default(), first_ms);
        let mut stored: HashMap<(UserId, Uuid), Vec<u64>> = HashMap::new();
        for attempt in attempts {
            now_ms += attempt.after_ms;
            let actor = user(attempt.user);
            let uuid = uuid_v7(made[(attempt.user * 4) as usize % 16 + attempt.command as usize % 4], attempt.command);
            let copies = stored.entry((actor, uuid)).or_default();
            if copies.last().is_some_and(|last| now_ms - last < window_ms) {
                continue;
            }
            let is_new = window.proves_new(&ahead, actor, uuid, now_ms);
            prop_assert!(!is_new || copies.is_empty(), "{:?} at {now_ms} after {copies:?}", uuid_time_ms(uuid));
            copies.push(now_ms);
            ahead.note(actor, uuid, now_ms);
        }
    }
}
