//! A request that is asked again while its answer is awaited.
//!
//! What is asked while nobody leads is lost without a word, and would be awaited for the whole of its time limit although
//! a leader is there by then.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{interval, timeout};

use crate::connect::{REQUEST_TIMEOUT, Unavailable};

/// Between two askings: much longer than an answer takes.
pub(crate) const AGAIN: Duration = Duration::from_millis(500);

/// The first answer to what is asked every [`AGAIN`], or the last failure.
pub(crate) async fn hedged<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Unavailable>
where
    F: Future<Output = Result<T, Unavailable>>,
{
    let asking = async {
        let (mut asked, mut again) = (FuturesUnordered::new(), interval(AGAIN));
        loop {
            tokio::select! {
                _ = again.tick() => asked.push(ask()),
                Some(answer) = asked.next() => if answer.is_ok() || asked.is_empty() {
                    return answer;
                },
            }
        }
    };
    timeout(REQUEST_TIMEOUT, asking).await.map_err(|_| Unavailable::Because("no answer"))?
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_lost_is_asked_again() {
        let asked = Cell::new(0);
        let answer = hedged(async || {
            asked.set(asked.get() + 1);
            match asked.get() {
                1 => pending().await,
                other => Ok(other),
            }
        });
        assert_eq!(answer.await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_at_once() {
        let begun = tokio::time::Instant::now();
        let answer: Result<(), _> = hedged(async || Err(Unavailable::Because("no"))).await;
        assert!(answer.is_err() && begun.elapsed() < AGAIN);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends() {
        let answer: Result<(), _> = hedged(pending).await;
        assert!(answer.is_err());
    }
}
