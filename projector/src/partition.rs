//! The life of one partition in this process: standby until the lock is free, then active until something breaks,
//! then again.
//!
//! Nothing is remembered across a break: an active projector starts from the checkpoint that it finds.

mod active;
mod projector;

use std::time::Duration;

use sql::projection::Writer;
use streams::Partition;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::active::{Active, End, Failure};
pub use self::projector::Projector;

/// How often a standby asks for the lock. A takeover may be late by this.
const STANDBY_INTERVAL: Duration = Duration::from_millis(500);
/// A database that is away is asked again after this, doubled up to the cap.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_CAP: Duration = Duration::from_secs(2);
/// A partition that stands still tries again after this: an operator may have helped, and the lock is free for a
/// newer build in the meantime.
const STOPPED_RETRY: Duration = Duration::from_secs(5);

impl Projector {
    /// Projects the partition until `stop`; then the batch under way is finished first.
    pub async fn run(self, partition: Partition, stop: CancellationToken) {
        let mut failures = 0;
        let mut stopped = false;
        while !stop.is_cancelled() {
            let end = tokio::select! {
                writer = self.acquire(partition) => match writer {
                    Ok(writer) => self.project(partition, writer, &stop).await,
                    Err(error) => Err(error.into()),
                },
                () = stop.cancelled() => break,
            };
            let stops = matches!(&end, Err(failure) if !failure.is_temporary());
            if stops != stopped {
                stopped = stops;
                self.metrics.stopped.inc_by(if stops { 1 } else { -1 });
            }
            let failure = match end {
                Ok(End::Stopped) => break,
                Ok(End::Restart) => {
                    failures = 0;
                    continue;
                }
                Err(failure) => failure,
            };
            failures += 1;
            let pause = if stops {
                tracing::error!(%partition, error = %chain(&failure), "the partition stands still");
                STOPPED_RETRY
            } else {
                tracing::warn!(%partition, error = %chain(&failure), "projecting again soon");
                pause(failures)
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => break,
            }
        }
    }

    /// Waits until this process is the one that projects the partition.
    async fn acquire(&self, partition: Partition) -> Result<Writer, sql::Error> {
        let writer = Writer::connect(&self.db, partition.as_i16()).await?;
        let mut waiting = false;
        while !writer.try_lock().await? {
            if !std::mem::replace(&mut waiting, true) {
                tracing::info!(%partition, "standby");
            }
            sleep(STANDBY_INTERVAL).await;
        }
        Ok(writer)
    }

    async fn project(
        &self,
        partition: Partition,
        writer: Writer,
        stop: &CancellationToken,
    ) -> Result<End, Failure> {
        self.metrics.active.inc();
        let end = match Active::new(self, partition, writer).await {
            Ok(mut active) => active.run(stop).await,
            Err(failure) => Err(failure),
        };
        self.metrics.active.dec();
        end
    }
}

/// Doubling, jittered, capped.
fn pause(failures: u32) -> Duration {
    let ceiling = RETRY.saturating_mul(1 << failures.min(10)).min(RETRY_CAP);
    ceiling.mul_f64(rand::random_range(0.5..=1.0))
}

/// The error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
