//! At most one copy of a command is stored, whatever the clocks show: the judgement and the log's clock as they are, in a
//! model of everything around them.
//!
//! The model's log forgets after its window, by the clock of whichever server leads it. Users' devices make uuids by
//! clocks that are wrong by any amount, and send each command any number of times to any gateway. Gateways have wrong
//! clocks, tails that lag, and restart. What is fresh is appended; for the rest an earlier copy is looked for first.
//! Appends arrive late, up to a command's deadline.

use std::collections::HashMap;

use proptest::prelude::*;
use shared::{id::Seq, window::Ahead};

use super::*;

const GATEWAYS: usize = 3;
const USERS: u64 = 2;
const COMMANDS: u64 = 3;
const WINDOW: Window = Window { ms: 120_000 };
/// When the model begins: true time, in ms.
const BEGIN_MS: u64 = 1_000_000;

#[derive(Debug, Clone)]
enum Step {
    Pass {
        ms: u64,
    },
    /// Another server leads the log. Its clock is ahead by so much.
    Lead {
        ahead_ms: u64,
    },
    /// The gateway asks what the log's time is, and has the answer after the round trip.
    Read {
        gateway: usize,
        trip_ms: u64,
    },
    /// The gateway's tail applies so many entries.
    Tail {
        gateway: usize,
        entries: usize,
    },
    Restart {
        gateway: usize,
    },
    /// A gateway's clock is set.
    Set {
        gateway: usize,
        skew_ms: i64,
    },
    Attempt {
        gateway: usize,
        user: u64,
        command: u64,
        append_ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let gateway = || 0..GATEWAYS;
    prop_oneof![
        3 => prop_oneof![0..2_000_u64, 2_000..30_000_u64, 100_000..130_000_u64].prop_map(|ms| Step::Pass { ms }),
        1 => (0..=CLOCK_ERROR_MS).prop_map(|ahead_ms| Step::Lead { ahead_ms }),
        4 => (gateway(), 0..2_000_u64).prop_map(|(gateway, trip_ms)| Step::Read { gateway, trip_ms }),
        4 => (gateway(), 0..9_usize).prop_map(|(gateway, entries)| Step::Tail { gateway, entries }),
        1 => gateway().prop_map(|gateway| Step::Restart { gateway }),
        1 => (gateway(), -200_000..200_000_i64).prop_map(|(gateway, skew_ms)| Step::Set { gateway, skew_ms }),
        6 => (gateway(), 0..USERS, 0..COMMANDS, 0..10_000_u64).prop_map(
            |(gateway, user, command, append_ms)| Step::Attempt { gateway, user, command, append_ms }
        ),
    ]
}

type Key = (u64, u64);

#[derive(Default)]
struct Gateway {
    clock: LogClock,
    ahead: Ahead,
    /// How many entries its tail has applied.
    applied: usize,
    skew_ms: i64,
}

struct World {
    now_ms: u64,
    leader_ahead_ms: u64,
    entries: Vec<(u64, Key)>,
    /// Appends under way.
    due: Vec<(u64, Key)>,
    gateways: [Gateway; GATEWAYS],
    made_ms: HashMap<Key, u64>,
    /// How many attempts were fresh.
    fresh: usize,
}

fn user(id: u64) -> UserId {
    UserId::new(id + 1).unwrap()
}

impl World {
    fn log_ms(&self) -> u64 {
        self.now_ms + self.leader_ahead_ms
    }

    fn uuid(&self, key: Key) -> Uuid {
        uuid::Builder::from_unix_timestamp_millis(self.made_ms[&key], &[key.1 as u8; 10]).into_uuid()
    }

    fn pass(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        self.due.sort_unstable();
        while self.due.first().is_some_and(|(at_ms, _)| *at_ms <= until_ms) {
            let (at_ms, key) = self.due.remove(0);
            self.now_ms = self.now_ms.max(at_ms);
            self.store(key);
        }
        self.now_ms = until_ms;
    }

    /// What the log does with an append.
    fn store(&mut self, key: Key) {
        let log_ms = self.log_ms();
        let remembers =
            |(ts_ms, stored): &(u64, Key)| *stored == key && log_ms.saturating_sub(*ts_ms) < WINDOW.ms;
        if !self.entries.iter().any(remembers) {
            self.entries.push((log_ms, key));
        }
    }

    fn is_stored(&self, key: Key) -> bool {
        self.entries.iter().any(|(_, stored)| *stored == key)
    }

    fn tail(&mut self, at: usize, entries: usize) {
        let upto = (self.gateways[at].applied + entries).min(self.entries.len());
        for index in self.gateways[at].applied..upto {
            let (ts_ms, key) = self.entries[index];
            let uuid = self.uuid(key);
            self.gateways[at].ahead.note(user(key.0), uuid, ts_ms);
        }
        self.gateways[at].applied = upto;
    }

    fn read(&mut self, at: usize, trip_ms: u64) {
        let (asked_ms, log_ms, last) = (self.now_ms, self.log_ms(), Seq(self.entries.len() as u64));
        self.pass(trip_ms);
        let reading = Reading { log_ms, last, asked_ms, answered_ms: self.now_ms };
        let position = Seq(self.gateways[at].applied as u64);
        self.gateways[at].clock.read(reading, position);
    }

    fn attempt(&mut self, at: usize, key: Key, append_ms: u64, marks_count: bool) {
        let (own_ms, mono_ms, made_ms) = (self.now_ms, self.now_ms, self.made_ms[&key]);
        let gateway = &mut self.gateways[at];
        let moment = Moment {
            log_ms: gateway.clock.now(Seq(gateway.applied as u64), mono_ms),
            own_ms: own_ms.saturating_add_signed(gateway.skew_ms),
            newest_ms: gateway.applied.checked_sub(1).map_or(0, |last| self.entries[last].0),
            is_proven: true,
            is_marked: Some(marks_count && gateway.ahead.covers(user(key.0), made_ms)),
            window: WINDOW,
        };
        let is_fresh = moment.judge(made_ms).is_ok();
        self.fresh += usize::from(is_fresh);
        if is_fresh || !self.is_stored(key) {
            self.due.push((self.now_ms + append_ms, key));
        }
    }
}

/// Runs the model. The most copies of a command, and how many attempts were fresh.
fn run(made: &[i64], steps: &[Step], marks_count: bool) -> (usize, usize) {
    let keys = (0..USERS).flat_map(|user| (0..COMMANDS).map(move |command| (user, command)));
    let made_ms = keys.zip(made).map(|(key, made)| (key, BEGIN_MS.saturating_add_signed(*made))).collect();
    let mut world = World {
        now_ms: BEGIN_MS,
        leader_ahead_ms: 0,
        entries: Vec::new(),
        due: Vec::new(),
        gateways: Default::default(),
        made_ms,
        fresh: 0,
    };
    for step in steps {
        match *step {
            Step::Pass { ms } => world.pass(ms),
            Step::Lead { ahead_ms } => world.leader_ahead_ms = ahead_ms,
            Step::Read { gateway, trip_ms } => world.read(gateway, trip_ms),
            Step::Tail { gateway, entries } => world.tail(gateway, entries),
            Step::Restart { gateway } => {
                let skew_ms = world.gateways[gateway].skew_ms;
                world.gateways[gateway] = Gateway { skew_ms, ..Gateway::default() };
                // The marks of all that is older are loaded from the projection.
                world.tail(gateway, usize::MAX >> 1);
            }
            Step::Set { gateway, skew_ms } => world.gateways[gateway].skew_ms = skew_ms,
            Step::Attempt { gateway, user, command, append_ms } => {
                world.attempt(gateway, (user, command), append_ms, marks_count);
            }
        }
    }
    world.pass(10_000);
    let copies = |key: &Key| world.entries.iter().filter(|(_, stored)| stored == key).count();
    (world.made_ms.keys().map(copies).max().unwrap_or(0), world.fresh)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    #[test]
    fn at_most_one_copy_is_stored(
        made in prop::collection::vec(-300_000..600_000_i64, (USERS * COMMANDS) as usize),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        prop_assert!(run(&made, &steps, true).0 <= 1);
    }
}

/// A uuid that is 150 s ahead, once when it is new and once when the window is over.
#[test]
fn the_model_finds_the_second_copy_of_a_uuid_that_was_ahead_when_marks_do_not_count() {
    let again = |append_ms| Step::Attempt { gateway: 0, user: 0, command: 0, append_ms };
    let steps = [
        again(0),
        Step::Pass { ms: 126_000 },
        Step::Tail { gateway: 0, entries: 1 },
        Step::Read { gateway: 0, trip_ms: 1 },
        again(0),
    ];
    assert_eq!(run(&[150_000; 6], &steps, false), (2, 1));
    assert_eq!(run(&[150_000; 6], &steps, true), (1, 0));
}

#[test]
fn a_command_of_now_is_fresh() {
    let steps = [
        Step::Read { gateway: 1, trip_ms: 1 },
        Step::Attempt { gateway: 1, user: 0, command: 0, append_ms: 0 },
    ];
    assert_eq!(run(&[0; 6], &steps, true), (1, 1));
}
