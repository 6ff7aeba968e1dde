//! Takes the reports and snapshots of gateways, in order, into the registry.

use std::time::Duration;

use streams::{
    Nats,
    signal::{Signal, SignalKind, SnapshotWanted},
};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    listening::Listening,
    metrics::Metrics,
    registry::{Registry, Reported},
};

/// Before a report that Redis did not take is tried again, or a subscription that failed.
const RETRY: Duration = Duration::from_millis(200);

/// The task that takes reports.
pub struct Connections {
    pub nats: Nats,
    pub registry: Registry,
    pub metrics: Metrics,
}

impl Connections {
    /// Takes reports for ever. While Redis is away they wait, up to the bound of the subscription; a snapshot makes up
    /// for those above it.
    pub async fn run(&self, listening: &Listening) {
        let mut signals = loop {
            match self.nats.signals(&[SignalKind::Connections]).await {
                Ok(signals) => break signals,
                Err(error) => {
                    tracing::warn!(%error, "can't subscribe to reports");
                    sleep(RETRY).await;
                }
            }
        };
        // For what happened before this instance listened.
        self.want_snapshot(None);
        loop {
            let signal = signals.next().await;
            while let Err(error) = self.apply(&signal).await {
                listening.interrupted();
                tracing::warn!(%error, "redis did not take a report");
                sleep(RETRY).await;
            }
        }
    }

    async fn apply(&self, signal: &Signal) -> fred::prelude::FredResult<()> {
        match signal {
            Signal::Connections(report) => {
                self.metrics.reports_total.inc();
                if self.registry.report(report).await? == Reported::NeedsSnapshot {
                    self.metrics.gaps_total.inc();
                    self.want_snapshot(Some(report.gateway));
                }
            }
            Signal::Snapshot(snapshot) => {
                self.registry.snapshot(snapshot).await?;
            }
            // Not subscribed to.
            Signal::Watermark(_)
            | Signal::ProjectionWanted(_)
            | Signal::EpochChanged(_)
            | Signal::SnapshotWanted(_)
            | Signal::Presence(_)
            | Signal::Typing(_)
            | Signal::Receipts(_)
            | Signal::Revoked(_) => {}
        }
        Ok(())
    }

    fn want_snapshot(&self, gateway: Option<Uuid>) {
        if let Err(error) = self.nats.signal(&Signal::SnapshotWanted(SnapshotWanted { gateway })) {
            tracing::debug!(%error, "a snapshot could not be asked for; the regular one will do");
        }
    }
}
