//! The same limits inside one process, for while Redis is away.

use std::num::NonZeroU32;

use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};

use super::{Limit, Mode, RetryAfter, Rule};

/// Keys above which those that are full again are dropped.
const MANY_KEYS: usize = 100_000;

pub(super) struct Local {
    limiters: [Option<DefaultKeyedRateLimiter<String>>; Limit::ALL.len()],
    clock: DefaultClock,
}

impl Local {
    pub(super) fn new(rules: &[Option<Rule>; Limit::ALL.len()]) -> Self {
        let limiters = rules.map(|rule| {
            let rule = rule?;
            let quota = Quota::with_period(rule.interval)?.allow_burst(NonZeroU32::new(rule.burst)?);
            Some(DefaultKeyedRateLimiter::keyed(quota))
        });
        Self { limiters, clock: DefaultClock::default() }
    }

    /// This limiter can neither look nor give back: looking is granted and the later check decides, and what
    /// would be given back stays used. That is stricter than Redis, for a while.
    pub(super) fn ask(&self, limit: Limit, key: &str, mode: Mode) -> Result<(), RetryAfter> {
        let Some(limiter) = &self.limiters[limit as usize] else { return Ok(()) };
        if !matches!(mode, Mode::Take) {
            return Ok(());
        }
        if limiter.len() > MANY_KEYS {
            limiter.retain_recent();
        }
        limiter
            .check_key(&key.to_owned())
            .map_err(|not_until| RetryAfter(not_until.wait_time_from(self.clock.now())))
    }
}
