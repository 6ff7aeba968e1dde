//! Since when this instance has received every report without a break.
//!
//! Silence proves that a gateway is dead only if its reports would have reached us and Redis. So nobody is declared
//! offline until the instance has listened long enough without a break.

use std::time::Duration;

use parking_lot::Mutex;
use streams::Nats;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::redis::Redis;

/// How often NATS and Redis are asked for an answer. Two failures in a row are noticed well within the silence of a dead gateway.
const PROBE: Duration = Duration::from_secs(1);

/// The beginning of the present spell without a break, if there is one.
#[derive(Debug, Default)]
pub struct Listening(Mutex<Option<Instant>>);

impl Listening {
    /// Whether the present spell has lasted this long.
    pub fn for_at_least(&self, time: Duration) -> bool {
        self.0.lock().is_some_and(|since| since.elapsed() >= time)
    }

    /// Ends the spell: a report may have been missed.
    pub fn interrupted(&self) {
        *self.0.lock() = None;
    }

    fn begin(&self, at: Instant) {
        self.0.lock().get_or_insert(at);
    }
}

/// Asks NATS and Redis for an answer again and again, for ever.
pub async fn probe(listening: &Listening, nats: &Nats, redis: &Redis) {
    let mut ticks = interval(PROBE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = ticks.tick().await;
        let (nats, redis) = tokio::join!(nats.ping(), redis.ping());
        if nats.is_ok() && redis.is_ok() {
            listening.begin(asked);
        } else {
            listening.interrupted();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_interruption_starts_over() {
        let listening = Listening::default();
        let second = Duration::from_secs(1);
        assert!(!listening.for_at_least(Duration::ZERO));
        listening.begin(Instant::now());
        tokio::time::advance(second).await;
        listening.begin(Instant::now());
        assert!(listening.for_at_least(second), "a later proof does not shorten it");
        listening.interrupted();
        listening.begin(Instant::now());
        assert!(!listening.for_at_least(second));
    }
}
