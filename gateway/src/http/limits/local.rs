//! The limits as one process counts them alone: those that are its own, and all others while Redis is away.
//!
//! Invariant: memory is bounded. A count whose allowance is full again says nothing, and is dropped when there are
//! many.

use std::num::NonZeroU32;

use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};

use super::{Limit, Mode, RetryAfter, Rule};

/// Above this many keys, those whose allowance is full again are dropped. At about 100 bytes each they take 10 MB.
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

    /// Counts requests. The library cannot give back, so a request that Redis would give back stays counted here: for a
    /// while this is stricter than Redis. It cannot take more than the burst either, so this forgets what is on top.
    pub(super) fn ask(&self, limit: Limit, key: &str, mode: Mode, count: u32) -> Result<(), RetryAfter> {
        let Some(limiter) = &self.limiters[limit as usize] else { return Ok(()) };
        match mode {
            Mode::Take => {}
            Mode::Give => return Ok(()),
        }
        if limiter.len() > MANY_KEYS {
            limiter.retain_recent();
        }
        let key = key.to_owned();
        limiter
            .check_key(&key)
            .map_err(|not_until| RetryAfter(not_until.wait_time_from(self.clock.now())))?;
        for _ in 1..count {
            if limiter.check_key(&key).is_err() {
                break;
            }
        }
        Ok(())
    }
}
