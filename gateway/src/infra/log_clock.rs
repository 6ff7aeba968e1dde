//! The log's time, as far as this gateway knows it.
//!
//! It is read off the clock of the log's leader, every few seconds, and moved on by the gateway's monotonic clock. A
//! gateway's wall clock has no part in it. Invariants:
//! - a reading counts only once this gateway's tail has passed the end that the log had at the reading: whoever has an
//!   estimate has seen every entry that is older than `READING_LIFE_MS`;
//! - an estimate is wrong by `CLOCK_ERROR_MS` at most, if the leader's clock has not been set since. Two readings that
//!   disagree are both given up.

use shared::{id::Seq, window::CLOCK_ERROR_MS};

/// A reading that took longer is not used: its error is half of that.
const ROUND_TRIP_MS: u64 = 2_000;

/// A reading is used for so long. It is far below the dedupe window, and far above the time between two readings, so
/// that a few may fail.
const READING_LIFE_MS: u64 = 20_000;

/// What the log's leader said. `asked_ms` and `answered_ms` are of the gateway's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The leader's clock, Unix ms.
    pub log_ms: u64,
    /// The end of the log at that time.
    pub last: Seq,
    pub asked_ms: u64,
    pub answered_ms: u64,
}

impl Reading {
    /// What the leader's clock shows when the gateway's shows `mono_ms`.
    const fn at(&self, mono_ms: u64) -> u64 {
        let read_ms = self.asked_ms + (self.answered_ms - self.asked_ms) / 2;
        self.log_ms.saturating_add(mono_ms.saturating_sub(read_ms))
    }

    const fn is_over(&self, mono_ms: u64) -> bool {
        mono_ms.saturating_sub(self.asked_ms) > READING_LIFE_MS
    }
}

/// The readings of one gateway.
#[derive(Debug, Default)]
pub struct LogClock {
    /// The newest one whose end the tail has passed.
    proven: Option<Reading>,
    /// One whose end the tail has not passed. A newer one takes its place only when it is over, so that a tail that is
    /// always a little behind proves one now and then.
    pending: Option<Reading>,
}

impl LogClock {
    /// Takes in a reading. The tail is at `position`.
    pub fn read(&mut self, new: Reading, position: Seq) {
        let now_ms = new.answered_ms;
        if now_ms.saturating_sub(new.asked_ms) > ROUND_TRIP_MS {
            return;
        }
        let disagrees = |known: &Reading| known.at(now_ms).abs_diff(new.at(now_ms)) > CLOCK_ERROR_MS;
        if [self.proven, self.pending].iter().flatten().any(disagrees) {
            *self = Self::default();
        }
        self.prove(position);
        if self.pending.is_none_or(|pending| pending.is_over(now_ms)) {
            self.pending = Some(new);
        }
        self.prove(position);
    }

    /// The log's time, when the tail is at `position`. `None`: it is not known.
    pub fn now(&mut self, position: Seq, mono_ms: u64) -> Option<u64> {
        self.prove(position);
        self.proven.filter(|proven| !proven.is_over(mono_ms)).map(|proven| proven.at(mono_ms))
    }

    fn prove(&mut self, position: Seq) {
        if self.pending.is_some_and(|pending| pending.last <= position) {
            self.proven = self.pending.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading(log_ms: u64, last: u64, mono_ms: u64) -> Reading {
        Reading { log_ms, last: Seq(last), asked_ms: mono_ms, answered_ms: mono_ms }
    }

    #[test]
    fn a_reading_counts_once_the_tail_has_passed_the_end_that_it_names() {
        let mut clock = LogClock::default();
        assert_eq!(clock.now(Seq(9), 0), None, "there was none");
        clock.read(reading(1_000_000, 10, 0), Seq(9));
        assert_eq!(clock.now(Seq(9), 5), None);
        assert_eq!(clock.now(Seq(10), 7), Some(1_000_007));
        assert_eq!(clock.now(Seq(10), READING_LIFE_MS), Some(1_000_000 + READING_LIFE_MS));
        assert_eq!(clock.now(Seq(10), READING_LIFE_MS + 1), None, "it is over");
    }

    #[test]
    fn a_tail_that_is_always_behind_proves_a_reading_that_it_has_passed() {
        let mut clock = LogClock::default();
        for second in 0..60_u64 {
            let mono_ms = second * 1_000;
            // Five seconds behind the end.
            let position = Seq((second * 10).saturating_sub(50));
            clock.read(reading(5_000_000 + mono_ms, second * 10, mono_ms), position);
            let now = clock.now(position, mono_ms);
            assert!(second < 5 || now == Some(5_000_000 + mono_ms), "{second}: {now:?}");
        }
    }

    #[test]
    fn a_slow_answer_is_not_used_and_a_quick_one_is_of_its_middle() {
        let mut clock = LogClock::default();
        let slow = Reading { log_ms: 1, last: Seq(0), asked_ms: 0, answered_ms: ROUND_TRIP_MS + 1 };
        clock.read(slow, Seq(0));
        assert_eq!(clock.now(Seq(0), ROUND_TRIP_MS + 1), None);
        clock.read(Reading { log_ms: 1_000, last: Seq(0), asked_ms: 3_000, answered_ms: 3_500 }, Seq(0));
        assert_eq!(clock.now(Seq(0), 3_500), Some(1_250));
    }

    #[test]
    fn readings_that_disagree_are_given_up_and_the_newest_is_believed() {
        for step in [-3_600_000_i64, 3_600_000] {
            let mut clock = LogClock::default();
            clock.read(reading(10_000_000, 0, 0), Seq(0));
            let set = 10_000_000_u64.saturating_add_signed(step);
            clock.read(reading(set, 5, 2_000), Seq(4));
            assert_eq!(clock.now(Seq(4), 2_000), None, "the tail is not there yet");
            assert_eq!(clock.now(Seq(5), 3_000), Some(set + 1_000));
        }
    }

    proptest! {
        /// Whatever is read, and however far the tail is: an estimate is right for a leader whose clock was not set since
        /// the last reading, and the tail has passed what was the end of the log a reading's life ago.
        #[test]
        fn an_estimate_is_right_and_the_tail_has_seen_the_rest(
            steps in prop::collection::vec((1..9_000_u64, 0..2_500_u64, 0..20_u64, 0..25_u64, any::<bool>()), 1..40)
        ) {
            let (mut clock, mut mono_ms, mut end, mut position) = (LogClock::default(), 0, 0, 0);
            let offset_ms = 7_000_000;
            let mut ends = vec![(0, 0)];
            for (pause, trip, appended, passed, reads) in steps {
                mono_ms += pause;
                end += appended;
                position = (position + passed).min(end);
                ends.push((mono_ms, end));
                if reads {
                    let asked_ms = mono_ms;
                    mono_ms += trip;
                    // The leader's clock is read at any time of the trip: here at its beginning.
                    let log_ms = asked_ms + offset_ms;
                    clock.read(Reading { log_ms, last: Seq(end), asked_ms, answered_ms: mono_ms }, Seq(position));
                }
                if let Some(now_ms) = clock.now(Seq(position), mono_ms) {
                    prop_assert!(now_ms.abs_diff(mono_ms + offset_ms) <= ROUND_TRIP_MS / 2);
                    let seen = ends.iter().rfind(|(at_ms, _)| at_ms + READING_LIFE_MS < mono_ms);
                    prop_assert!(seen.is_none_or(|(_, end)| position >= *end));
                }
            }
        }
    }
}
