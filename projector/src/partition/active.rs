//! The active projector of a partition: gather, fold, commit, announce.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use shared::id::{ChatId, Position, Seq};
use sql::{Checkpoint, chats::MOST_AHEAD, projection::Writer};
use streams::{
    Entry, Partition, Tail, TailItem, TailSettings, TailStats,
    signal::{EpochChanged, Signal, SignalKind, Signals, Watermark},
};
use tokio::task::unconstrained;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout_at};
use tokio_util::sync::CancellationToken;

use super::projector::Projector;
use crate::{
    folder::{FoldError, Folded, Folder, now_ms},
    known::Projected,
    projection::{TooNew, slices},
};

/// How often the watermark is repeated: a signal may be lost.
const WATERMARK_INTERVAL: Duration = Duration::from_millis(250);
/// Every how many watermarks the database is asked. The question shows the database that this session lives (its lease
/// is 5 s), and the answer shows this session an epoch that another process declared.
const TICKS_PER_CHECK: u32 = 4;

/// How an active projector ends without a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The process stops.
    Stopped,
    /// The checkpoint in the database is not where this projector left it: start again from there.
    Restart,
}

/// What keeps the partition from going on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Sql(#[from] sql::Error),
    #[error(transparent)]
    Nats(#[from] streams::Unavailable),
    #[error(transparent)]
    Fold(#[from] FoldError),
    #[error(transparent)]
    TooNew(#[from] TooNew),
    #[error("the log starts at {first}, after the checkpoint {checkpoint}: events between them are gone")]
    Expired { first: Seq, checkpoint: Seq },
}

impl Failure {
    /// Whether trying again may succeed without help.
    pub(super) const fn is_temporary(&self) -> bool {
        match self {
            Self::Sql(error) | Self::Fold(FoldError::Sql(error)) => error.is_temporary(),
            Self::Nats(_) | Self::Fold(FoldError::Moved) => true,
            Self::TooNew(_) | Self::Expired { .. } => false,
        }
    }
}

pub(super) struct Active<'a> {
    projector: &'a Projector,
    partition: Partition,
    folder: Folder,
    tail: Tail,
    stats: Arc<TailStats>,
    /// Consumers of this tail that the metric has counted.
    attaches: u64,
    /// The highest id of a chat that the database is known to have given.
    last_chat: ChatId,
    /// Before this, entries are gathered and not written, unless a read waits for them.
    next_commit: Instant,
    signals: Signals,
    /// Reads wait for the projection up to here.
    wanted: Seq,
    ticks: u32,
}

impl<'a> Active<'a> {
    pub(super) async fn new(
        projector: &'a Projector,
        partition: Partition,
        writer: Writer,
    ) -> Result<Self, Failure> {
        let refolded = writer.refold_reactions().await?;
        if refolded > 0 {
            tracing::info!(%partition, refolded, "folded the reactions again, with canonical emoji");
        }
        let folder = Folder::new(writer, projector.settings.cache_members).await?;
        let last_chat = folder.writer().last_chat_id().await?;
        let checkpoint = folder.checkpoint();
        let known = Arc::new(Projected { db: projector.db.clone(), partition });
        let settings =
            TailSettings { batch_max: projector.settings.batch as usize, ..TailSettings::default() };
        let tail = Tail::open(&projector.nats, partition, checkpoint.position, known, settings);
        tracing::info!(%partition, seq = checkpoint.position.seq.get(), epoch = checkpoint.epoch, "active");
        projector.metrics.checkpoint_seq.set(checkpoint.position.seq.get());
        Ok(Self {
            projector,
            partition,
            folder,
            stats: tail.stats(),
            tail,
            attaches: 1,
            last_chat,
            next_commit: Instant::now(),
            signals: projector.nats.signals(&[SignalKind::ProjectionWanted]).await?,
            wanted: Seq::ZERO,
            ticks: 0,
        })
    }

    pub(super) async fn run(&mut self, stop: &CancellationToken) -> Result<End, Failure> {
        let mut ticks = interval(WATERMARK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match self.step(&mut ticks, stop).await {
                Ok(None) => {}
                Ok(Some(end)) => return Ok(end),
                Err(Failure::Fold(FoldError::Moved)) => {
                    tracing::warn!("somebody else moved the checkpoint");
                    return Ok(End::Restart);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Handles the next tick, signal or item of the tail. Returns an end if nothing may come after it.
    async fn step(&mut self, ticks: &mut Interval, stop: &CancellationToken) -> Result<Option<End>, Failure> {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Some(End::Stopped)),
            _ = ticks.tick() => self.tick().await?,
            signal = self.signals.next() => self.note(&signal),
            item = self.tail.next() => match item {
                TailItem::Batch(entries) => self.gather_and_commit(entries, stop).await?,
                TailItem::Quiet => {}
                TailItem::Attached { .. } => self.count_attaches(),
                TailItem::LostTail { cut } => {
                    self.declare(cut.unwrap_or_default()).await?;
                    return Ok(Some(End::Restart));
                }
                TailItem::Expired { first } => {
                    let checkpoint = self.folder.checkpoint().position.seq;
                    return Err(Failure::Expired { first, checkpoint });
                }
            },
        }
        Ok(None)
    }

    /// Gathers entries until it is time to write, and writes them. Between two looks this task rests; entries that come
    /// then wait in the socket and are read together.
    async fn gather_and_commit(
        &mut self,
        mut entries: Vec<Entry>,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        let most = self.projector.settings.batch as usize;
        let mut stuck = false;
        while entries.len() < most && !stuck {
            match timeout_at(began, self.tail.next()).await {
                Ok(TailItem::Batch(more)) => entries.extend(more),
                Ok(TailItem::Quiet) => {}
                Ok(TailItem::Attached { .. }) => self.count_attaches(),
                Ok(TailItem::LostTail { .. } | TailItem::Expired { .. }) => stuck = true,
                Err(_) if self.may_rest() => self.projector.rest.until(self.next_commit.into()).await,
                Err(_) => break,
            }
        }
        self.next_commit = Instant::now() + self.projector.settings.interval();
        self.commit(&entries, stop).await?;
        self.projector.metrics.batch_seconds.observe(began.elapsed().as_secs_f64());
        if stuck {
            // The tail's finding refers to the entries just committed. Restarted at the checkpoint, the tail reports it
            // again.
            self.tail.restart_from(self.folder.checkpoint().position);
        }
        Ok(())
    }

    /// Whether it is too early to write, and no read waits for the projection.
    fn may_rest(&mut self) -> bool {
        while let Some(signal) = unconstrained(self.signals.next()).now_or_never() {
            self.note(&signal);
        }
        self.wanted <= self.folder.checkpoint().position.seq && Instant::now() < self.next_commit
    }

    fn note(&mut self, signal: &Signal) {
        if let Signal::ProjectionWanted(wanted) = signal
            && wanted.partition == self.partition.get()
        {
            self.wanted = self.wanted.max(wanted.seq);
        }
    }

    /// Folds the entries slice by slice, and says after each how far it is: a read waits for its own slice alone. What
    /// is left when the process stops is folded after the next start.
    async fn commit(&mut self, entries: &[Entry], stop: &CancellationToken) -> Result<(), Failure> {
        for slice in slices(entries) {
            let spans = sampled(slice.entries);
            let folded = self.folder.apply(&slice).await?;
            drop(spans);
            self.announce();
            self.count(slice.entries, &folded);
            self.raise_ids(&folded).await?;
            if let Some(too_new) = slice.too_new {
                return Err(too_new.into());
            }
            if stop.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    fn count(&self, entries: &[Entry], folded: &Folded) {
        let metrics = &self.projector.metrics;
        metrics.events.inc_by(entries.len() as u64);
        metrics.batches.inc();
        metrics.refused.inc_by(folded.refused);
        metrics.duplicates.inc_by(folded.duplicates.into());
        metrics.dead_letters.inc_by(folded.dead_letters);
        metrics.checkpoint_seq.set(self.folder.checkpoint().position.seq.get());
        if let Some(last) = entries.last() {
            let age_ms = now_ms().saturating_sub(last.ts_ms);
            metrics.lag_seconds.set(age_ms as f64 / 1_000.0);
        }
    }

    /// Raises the sequence of chats' ids: after a restore of the database the log may hold ids that it has not given.
    async fn raise_ids(&mut self, folded: &Folded) -> Result<(), Failure> {
        if folded.chats.iter().all(|chat| *chat <= self.last_chat) {
            return Ok(());
        }
        self.last_chat = self.folder.writer().last_chat_id().await?;
        let ahead = |chat: &ChatId| chat.get().saturating_sub(self.last_chat.get());
        let unbelievable = folded.chats.iter().filter(|chat| ahead(chat) > MOST_AHEAD).count() as u64;
        if unbelievable > 0 {
            self.projector.metrics.unbelievable_ids.inc_by(unbelievable);
            tracing::error!(
                chats = unbelievable,
                "the log holds chats with ids that no gateway can have been given"
            );
        }
        let believable = folded.chats.iter().filter(|chat| (1..=MOST_AHEAD).contains(&ahead(chat))).max();
        if let Some(chat) = believable.copied() {
            tracing::warn!(%chat, "the log knows more ids than the database gave");
            self.projector.db.raise_chat_ids(chat).await?;
            self.last_chat = chat;
        }
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), Failure> {
        self.announce();
        self.ticks = self.ticks.wrapping_add(1);
        if !self.ticks.is_multiple_of(TICKS_PER_CHECK) {
            return Ok(());
        }
        if self.folder.writer().checkpoint().await? != self.folder.checkpoint() {
            return Err(FoldError::Moved.into());
        }
        self.measure_lag().await;
        Ok(())
    }

    /// Measures how far the log is ahead. The metrics stay as they are while NATS does not answer.
    async fn measure_lag(&mut self) {
        let Ok(bounds) = self.projector.nats.bounds(self.partition).await else { return };
        let lag = bounds.last.get().saturating_sub(self.folder.checkpoint().position.seq.get());
        self.projector.metrics.lag_events.set(lag);
        if lag == 0 {
            self.projector.metrics.lag_seconds.set(0.0);
        }
    }

    /// Tells the gateways how far the projection is. A signal may be lost; the next tick repeats it.
    fn announce(&self) {
        let Checkpoint { epoch, position } = self.folder.checkpoint();
        let watermark = Watermark { partition: self.partition.get(), epoch, position };
        if let Err(error) = self.projector.nats.signal(&Signal::Watermark(watermark)) {
            tracing::debug!(%error, "no watermark");
        }
    }

    /// The log lost its tail after `cut`: records that in the database, unless another process has, and tells the
    /// gateways. The signal leaves after the commit, so that a gateway which asks the database because of it finds the
    /// cut. It may be lost: gateways also ask from time to time.
    async fn declare(&mut self, cut: Position) -> Result<(), Failure> {
        let (db, partition) = (&self.projector.db, self.partition.as_i16());
        let declared = db.declare_cut(partition, self.folder.checkpoint().epoch, cut, now_ms()).await?;
        if let Some(epoch) = declared {
            tracing::error!(partition, epoch, cut = cut.seq.get(), "the log lost its tail");
            self.projector.metrics.epoch_bumps.inc();
            let changed = EpochChanged { partition: self.partition.get(), epoch, cut };
            if let Err(error) = self.projector.nats.signal(&Signal::EpochChanged(changed)) {
                tracing::debug!(%error, "the new epoch was not signalled");
            }
        }
        Ok(())
    }

    fn count_attaches(&mut self) {
        let attaches = self.stats.attaches.load(std::sync::atomic::Ordering::Relaxed);
        self.projector.metrics.tail_recreations.inc_by(attaches.saturating_sub(self.attaches));
        self.attaches = self.attaches.max(attaches);
    }
}

/// A span for each entry whose append was traced: from here to the commit of its rows.
fn sampled(entries: &[Entry]) -> Vec<tracing::Span> {
    let traced = entries.iter().filter_map(|entry| entry.traceparent.as_deref());
    let span = |parent: &str| {
        let span = tracing::info_span!("project chat", otel.kind = "consumer", messaging.system = "nats");
        otel::set_parent(&span, parent);
        span
    };
    traced.map(span).collect()
}
