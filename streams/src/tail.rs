//! The tail: one loop that reads a partition of the log for ever, for gateways and the projector alike.
//!
//! Each tail owns one plain push consumer on a connection of its own, and its position. It delivers every event
//! once, in order, without a gap: whatever looks wrong (missed heartbeats, a gap, a lost connection or consumer, a
//! position that the log is known to have passed) ends the consumer, and a new one starts after the last event
//! that was handed out. It never ends and never panics; who wants to stop drops it.
//!
//! At every attach and every few seconds the event at the position is compared with the log's (a leader read): if
//! it differs, the log has lost its tail, and [`TailItem::LostTail`] says where the histories part.

mod consumer;
mod entry;
mod identity;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use shared::id::{Position, Seq};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    connect::{Nats, Unavailable, backoff},
    subject::Partition,
};
pub(crate) use consumer::{Broken, Consumer, Progress};
pub use entry::Entry;
use identity::Standing;
pub use identity::{Known, Recall};

/// How a tail reads.
#[derive(Debug, Clone)]
pub struct TailSettings {
    /// The most events of one batch.
    pub batch_max: usize,
    /// How often the server shows that an idle consumer lives; two missed ones end it.
    pub heartbeat: Duration,
    /// How often the identity of the position is compared with the log.
    pub identity_interval: Duration,
    /// How long the tail may stand still behind an [`Tail::expect`]ed sequence.
    pub behind: Duration,
}

impl Default for TailSettings {
    fn default() -> Self {
        Self {
            // A fan-out of 256 events takes a millisecond or two: short enough to share a core.
            batch_max: 256,
            heartbeat: Duration::from_secs(1),
            identity_interval: Duration::from_secs(5),
            behind: Duration::from_secs(2),
        }
    }
}

/// Counters since the start.
#[derive(Debug, Default)]
pub struct TailStats {
    /// Events handed out.
    pub events: AtomicU64,
    /// Consumers created. All but the first are recreations.
    pub attaches: AtomicU64,
    /// Times that the log was found to have lost its tail.
    pub lost_tails: AtomicU64,
    /// The sequence of the last event handed out.
    pub position: AtomicU64,
}

/// What a tail has to say.
#[derive(Debug)]
pub enum TailItem {
    /// The next events: ascending, dense, never empty.
    Batch(Vec<Entry>),
    /// Nothing new: the server has shown that the consumer lives.
    Quiet,
    /// A consumer was created; events after `from` follow.
    Attached { from: Seq },
    /// The log does not hold the event at the position: it lost its tail. `cut` is the last remembered event that
    /// it still holds, none if it holds none of them. The tail stands still until [`Tail::restart_from`].
    LostTail { cut: Option<Position> },
    /// Events after the position are no longer kept: the log starts at `first`. The tail stands still until
    /// [`Tail::restart_from`].
    Expired { first: Seq },
}

/// See the module.
pub struct Tail {
    nats: Nats,
    partition: Partition,
    settings: TailSettings,
    known: Arc<dyn Known>,
    stats: Arc<TailStats>,
    position: Position,
    consumer: Option<Consumer>,
    /// Consecutive attaches that brought nothing.
    attempts: u32,
    last_server: Option<String>,
    check: Option<BoxFuture<'static, Result<Standing, Unavailable>>>,
    next_check: Instant,
    expected: Option<(Seq, Instant)>,
}

impl Tail {
    /// Reads the events after `from`. Nothing happens before [`Tail::next`].
    pub fn open(
        nats: &Nats,
        partition: Partition,
        from: Position,
        known: Arc<dyn Known>,
        settings: TailSettings,
    ) -> Self {
        let stats = Arc::new(TailStats::default());
        stats.position.store(from.seq.get(), Relaxed);
        Self {
            nats: nats.clone(),
            partition,
            settings,
            known,
            stats,
            position: from,
            consumer: None,
            attempts: 0,
            last_server: None,
            check: None,
            next_check: Instant::now(),
            expected: None,
        }
    }

    pub fn stats(&self) -> Arc<TailStats> {
        Arc::clone(&self.stats)
    }

    /// The last event handed out.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Goes on after `position`, as after a lost tail.
    pub fn restart_from(&mut self, position: Position) {
        self.position = position;
        self.stats.position.store(position.seq.get(), Relaxed);
        self.detach();
        self.attempts = 0;
        self.expected = None;
    }

    /// Tells the tail that the log holds an event at `seq` (an acknowledgement or a barrier said so). If it has not
    /// passed it in time, the consumer is replaced, on another server if there is one: one on an isolated node
    /// shows heartbeats and delivers nothing.
    pub fn expect(&mut self, seq: Seq) {
        if seq > self.position.seq && self.expected.is_none_or(|(expected, _)| expected <= self.position.seq)
        {
            self.expected = Some((seq, Instant::now() + self.settings.behind));
        }
    }

    /// The next item. Cancel-safe: no event is lost if the future is dropped. The server's flow control is
    /// answered here, so that who is slow to come back slows the server.
    pub async fn next(&mut self) -> TailItem {
        loop {
            let Some(consumer) = self.consumer.as_mut() else {
                match self.attach().await {
                    Some(item) => return item,
                    None => continue,
                }
            };
            // Not as a branch below: a busy consumer would starve it.
            if self.check.is_none() && Instant::now() >= self.next_check {
                self.check = Some(identity::standing(&self.nats, self.partition, self.position));
            }
            let behind = self.expected.map(|(_, until)| until);
            tokio::select! {
                biased;
                checked = pending_check(&mut self.check) => {
                    self.check = None;
                    self.next_check = Instant::now() + self.settings.identity_interval;
                    // Only an attach reports what is wrong: by then the position stands still.
                    if let Ok(Standing::Lost | Standing::Expired { .. }) = checked {
                        self.detach();
                    }
                }
                progress = timeout(self.settings.heartbeat * 2, consumer.next(self.settings.batch_max)) => {
                    match progress {
                        Ok(Ok(Progress::Entries(entries))) => return self.hand_out(entries),
                        Ok(Ok(Progress::Heartbeat)) => return TailItem::Quiet,
                        Ok(Err(broken)) => self.end(&broken),
                        Err(_) => self.end(&Broken::Silent),
                    }
                }
                () = sleep_until(self.next_check), if self.check.is_none() => {}
                () = sleep_until(behind.unwrap_or_else(Instant::now)), if behind.is_some() => self.overdue(),
            }
        }
    }

    fn hand_out(&mut self, entries: Vec<Entry>) -> TailItem {
        if let Some(last) = entries.last() {
            self.position = last.position();
            self.stats.position.store(last.seq.get(), Relaxed);
        }
        self.stats.events.fetch_add(entries.len() as u64, Relaxed);
        self.attempts = 0;
        // A tail that moves is not stuck, however far behind it is.
        let until = Instant::now() + self.settings.behind;
        self.expected =
            self.expected.filter(|(seq, _)| *seq > self.position.seq).map(|(seq, _)| (seq, until));
        TailItem::Batch(entries)
    }

    /// What was expected has not come.
    fn overdue(&mut self) {
        self.expected = None;
        self.end(&Broken::Behind);
    }

    fn end(&mut self, why: &Broken) {
        tracing::warn!(partition = self.partition.get(), position = self.position.seq.get(), %why, "tail broken");
        self.detach();
    }

    fn detach(&mut self) {
        self.last_server = self.consumer.take().map(|consumer| consumer.server).or(self.last_server.take());
        self.check = None;
        self.next_check = Instant::now() + self.settings.identity_interval;
    }

    /// One attempt to get a consumer; nothing to report if it fails.
    async fn attach(&mut self) -> Option<TailItem> {
        self.attempts = self.attempts.saturating_add(1);
        sleep(backoff(self.attempts)).await;
        match self.try_attach().await {
            Ok(item) => Some(item),
            Err(error) => {
                tracing::warn!(partition = self.partition.get(), %error, "tail can't attach");
                None
            }
        }
    }

    async fn try_attach(&mut self) -> Result<TailItem, Unavailable> {
        match identity::standing(&self.nats, self.partition, self.position).await? {
            Standing::Same => {}
            Standing::Expired { first } => return Ok(TailItem::Expired { first }),
            Standing::Lost => {
                let cut = identity::find_cut(&self.nats, self.partition, self.position, &*self.known).await?;
                self.stats.lost_tails.fetch_add(1, Relaxed);
                tracing::error!(position = self.position.seq.get(), ?cut, "the log has lost its tail");
                return Ok(TailItem::LostTail { cut });
            }
        }
        let from = self.position.seq;
        let avoid = self.last_server.as_deref();
        let consumer =
            Consumer::create(&self.nats, self.partition, from, self.settings.heartbeat, avoid).await?;
        self.consumer = Some(consumer);
        self.stats.attaches.fetch_add(1, Relaxed);
        self.next_check = Instant::now() + self.settings.identity_interval;
        Ok(TailItem::Attached { from })
    }
}

/// Waits for the check under way; for ever if there is none.
async fn pending_check(
    check: &mut Option<BoxFuture<'static, Result<Standing, Unavailable>>>,
) -> Result<Standing, Unavailable> {
    match check {
        Some(check) => check.await,
        None => std::future::pending().await,
    }
}
