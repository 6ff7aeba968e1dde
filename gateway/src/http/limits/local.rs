//! The limits as one process counts them alone: those that are its own, and all others while Redis is away.
//!
//! Invariants: a count is the same here as in Redis, debts included, so that nobody is better off while Redis is away.
//! Memory is bounded. A count whose allowance is full again says nothing, and is dropped when there are many.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Limit, Mode, RetryAfter, Rule};

/// Above this many keys of a limit, those whose allowance is full again are dropped. At about 100 bytes each they take
/// 10 MB.
const MANY_KEYS: usize = 100_000;

pub(super) struct Local {
    limiters: [Option<Limiter>; Limit::ALL.len()],
}

impl Local {
    pub(super) fn new(rules: &[Option<Rule>; Limit::ALL.len()]) -> Self {
        Self { limiters: rules.map(|rule| rule.map(Limiter::new)) }
    }

    /// Counts requests.
    pub(super) fn ask(&self, limit: Limit, key: &str, mode: Mode, count: u32) -> Result<(), RetryAfter> {
        let Some(limiter) = &self.limiters[limit as usize] else { return Ok(()) };
        limiter.ask(key, mode, count, Instant::now())
    }
}

/// The counts of one limit, by the algorithm of `gcra.lua`.
struct Limiter {
    rule: Rule,
    arrivals: Mutex<Arrivals>,
}

struct Arrivals {
    /// By key, the theoretical arrival time of the next request. A time that is over is the same as none.
    by_key: HashMap<String, Instant>,
    /// With more keys than this, those that say nothing are dropped.
    tidy_above: usize,
}

impl Limiter {
    fn new(rule: Rule) -> Self {
        Self { rule, arrivals: Mutex::new(Arrivals { by_key: HashMap::new(), tidy_above: MANY_KEYS }) }
    }

    fn ask(&self, key: &str, mode: Mode, count: u32, now: Instant) -> Result<(), RetryAfter> {
        let Rule { interval, burst } = self.rule;
        let mut arrivals = self.arrivals.lock();
        let ahead =
            arrivals.by_key.get(key).map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
        let all = |count| interval.saturating_mul(count);
        let ahead = match mode {
            Mode::Take => {
                let wait = (ahead + interval).saturating_sub(all(burst));
                if !wait.is_zero() {
                    return Err(RetryAfter(wait));
                }
                ahead.saturating_add(all(count))
            }
            Mode::Owe => ahead.saturating_add(all(count)),
            Mode::Drain => {
                let left = all(burst).saturating_sub(ahead).as_nanos() / interval.as_nanos().max(1);
                ahead.saturating_add(all(count.min(u32::try_from(left).unwrap_or(u32::MAX))))
            }
            Mode::Give => ahead.saturating_sub(all(count)),
        };
        arrivals.set(key, ahead, now);
        Ok(())
    }
}

impl Arrivals {
    fn set(&mut self, key: &str, ahead: Duration, now: Instant) {
        let Some(next) = now.checked_add(ahead) else { return };
        if let Some(known) = self.by_key.get_mut(key) {
            *known = next;
            return;
        }
        self.by_key.insert(key.to_owned(), next);
        if self.by_key.len() > self.tidy_above {
            self.by_key.retain(|_, next| *next > now);
            // Twice what is left, so that a crowd of living keys is not searched at each request.
            self.tidy_above = MANY_KEYS.max(2 * self.by_key.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter() -> Limiter {
        Limiter::new(Rule { interval: SECOND, burst: 3 })
    }

    #[test]
    fn what_is_owed_is_paid_off_before_anything_is_allowed() {
        let (limiter, now) = (limiter(), Instant::now());
        limiter.ask("ada", Mode::Take, 1, now).unwrap();
        limiter.ask("ada", Mode::Owe, 60, now).unwrap();
        assert_eq!(limiter.ask("ada", Mode::Take, 1, now), Err(RetryAfter(59 * SECOND)));
        limiter.ask("bob", Mode::Take, 1, now).unwrap();
        limiter.ask("ada", Mode::Take, 1, now + 59 * SECOND).unwrap();
    }

    #[test]
    fn what_is_drained_leaves_no_debt() {
        let (limiter, now) = (limiter(), Instant::now());
        limiter.ask("home", Mode::Take, 1, now).unwrap();
        limiter.ask("home", Mode::Drain, 4_000, now).unwrap();
        assert_eq!(limiter.ask("home", Mode::Take, 1, now), Err(RetryAfter(SECOND)));
        limiter.ask("home", Mode::Drain, 1, now).unwrap();
        limiter.ask("home", Mode::Take, 1, now + SECOND).unwrap();
    }

    #[test]
    fn what_is_given_back_is_allowed_again() {
        let (limiter, now) = (limiter(), Instant::now());
        for _ in 0..10 {
            limiter.ask("ada", Mode::Take, 1, now).unwrap();
            limiter.ask("ada", Mode::Give, 1, now).unwrap();
        }
        for _ in 0..3 {
            limiter.ask("ada", Mode::Take, 1, now).unwrap();
        }
        assert!(limiter.ask("ada", Mode::Take, 1, now).is_err());
    }

    #[test]
    fn keys_whose_allowance_is_full_again_are_dropped_when_there_are_many() {
        let (limiter, now) = (limiter(), Instant::now());
        for n in 0..=MANY_KEYS {
            let at = if n == MANY_KEYS { now + 2 * SECOND } else { now };
            limiter.ask(&n.to_string(), Mode::Take, 1, at).unwrap();
        }
        assert_eq!(limiter.arrivals.lock().by_key.len(), 1);
    }
}
