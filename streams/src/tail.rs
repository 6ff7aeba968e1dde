//! The tail: one loop that reads a partition of the log for ever, for gateways and the projector alike.
//!
//! Each tail owns its position and one plain push consumer on a connection of its own. It delivers every event once,
//! in order, without a gap. Any sign of trouble (missed heartbeats, a gap, a lost connection or consumer, no progress
//! although the log is known to hold more) ends the consumer, and a new one starts after the last event that was
//! handed out. A tail never ends; its owner drops it to stop it.
//!
//! At every attach and every few seconds the event at the position is compared with the log's (a leader read). If
//! they differ, the log has lost its tail, and [`TailItem::LostTail`] says where the two histories part.

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
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    connect::{Nats, Unavailable, backoff},
    consumer::{Broken, Consumer, Progress},
    entry::Entry,
    hedge::hedged,
    subject::Partition,
};
use identity::{Check, Standing};
pub use identity::{Known, Recall};

/// How a tail reads.
#[derive(Debug, Clone)]
pub struct TailSettings {
    /// The most events of one batch.
    pub batch_max: usize,
    /// How often the server sends a heartbeat to an idle consumer; two missed ones end it.
    pub heartbeat: Duration,
    /// How often the position is compared with the log: its identity, and whether the log is ahead.
    pub check_interval: Duration,
    /// How long the tail may stand still behind an [`Tail::expect`]ed sequence.
    pub behind: Duration,
}

impl Default for TailSettings {
    fn default() -> Self {
        Self {
            // A reader handles a batch without a pause: 256 events take so little time that others can share the core.
            batch_max: 256,
            heartbeat: Duration::from_secs(1),
            check_interval: Duration::from_secs(2),
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

/// What [`Tail::next`] returns.
#[derive(Debug)]
pub enum TailItem {
    /// The next events: ascending, dense, never empty.
    Batch(Vec<Entry>),
    /// No events: a heartbeat has come.
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

/// Why a tail can't read on from its position.
#[derive(Debug, Clone, Copy)]
enum Stuck {
    LostTail { cut: Option<Position> },
    Expired { first: Seq },
}

/// An attempt to create a consumer.
type Attaching = BoxFuture<'static, Result<Result<Consumer, Stuck>, Unavailable>>;

/// A reader of one partition; see the head of this file.
pub struct Tail {
    nats: Nats,
    partition: Partition,
    settings: TailSettings,
    known: Arc<dyn Known>,
    stats: Arc<TailStats>,
    position: Position,
    consumer: Option<Consumer>,
    /// The attempt under way. It outlives a cancelled [`Tail::next`], so that a caller that drops the future in a
    /// `select!` does not start it anew.
    attaching: Option<Attaching>,
    /// The comparison with the log under way; it outlives a cancelled call as well.
    checking: Option<BoxFuture<'static, Result<Check, Unavailable>>>,
    /// Since when [`Tail::next`] has waited without anything from the consumer.
    listening_since: Option<Instant>,
    next_check: Instant,
    /// A sequence that the log is known to hold, and until when the tail may stand still below it.
    expected: Option<(Seq, Instant)>,
    /// Consecutive attaches without an event or a heartbeat.
    attempts: u32,
    last_server: Option<String>,
    /// Changes when a server is found to prove nothing.
    leaves: watch::Receiver<u64>,
    /// Changes when the log's verdicts come again.
    returns: watch::Receiver<u64>,
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
            attaching: None,
            checking: None,
            listening_since: None,
            next_check: Instant::now(),
            expected: None,
            attempts: 0,
            last_server: None,
            leaves: nats.target.leaves(),
            returns: nats.target.returns(),
        }
    }

    pub fn stats(&self) -> Arc<TailStats> {
        Arc::clone(&self.stats)
    }

    /// The last event handed out.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Goes on after `position`. A caller does this after [`TailItem::LostTail`] or [`TailItem::Expired`].
    pub fn restart_from(&mut self, position: Position) {
        self.position = position;
        self.stats.position.store(position.seq.get(), Relaxed);
        self.detach();
        self.attempts = 0;
        self.expected = None;
    }

    /// Tells the tail that the log holds an event at `seq`, as an acknowledgement or a barrier proves. If the tail has
    /// not passed it in time, its consumer is replaced, on another server if there is one: a consumer on an isolated
    /// node sends heartbeats and delivers nothing.
    pub fn expect(&mut self, seq: Seq) {
        if seq > self.position.seq && self.expected.is_none_or(|(expected, _)| expected <= self.position.seq)
        {
            self.expected = Some((seq, Instant::now() + self.settings.behind));
        }
    }

    /// The next item. Cancel-safe: neither events nor progress are lost if the future is dropped. The server's flow
    /// control is answered here, so that a slow caller slows the server.
    pub async fn next(&mut self) -> TailItem {
        loop {
            let item = if self.consumer.is_some() { self.listen().await } else { self.attach().await };
            if let Some(item) = item {
                self.listening_since = None;
                return item;
            }
        }
    }

    /// Waits for the consumer, for the comparison of the position with the log, and for the time limits of both.
    async fn listen(&mut self) -> Option<TailItem> {
        let consumer = self.consumer.as_mut()?;
        let now = Instant::now();
        let silent = *self.listening_since.get_or_insert(now) + self.settings.heartbeat * 2;
        // Started here and not in a branch below, which a busy consumer would starve.
        if self.checking.is_none() && now >= self.next_check {
            self.checking = Some(identity::check(&self.nats, self.partition, self.position));
        }
        let overdue = self.expected.map(|(_, until)| until);
        tokio::select! {
            biased;
            checked = if_some(&mut self.checking) => {
                self.checked(checked);
                None
            }
            progress = consumer.next(self.settings.batch_max) => self.progress(progress),
            Ok(()) = self.leaves.changed() => {
                let left = self.nats.target.is_left(&consumer.server);
                if left { self.end(&Broken::Left) } else { None }
            }
            () = sleep_until(silent) => self.end(&Broken::Silent),
            () = sleep_until(self.next_check), if self.checking.is_none() => None,
            () = sleep_until(overdue.unwrap_or(now)), if overdue.is_some() => {
                let server = consumer.server.clone();
                self.nats.leave(&server).await;
                self.end(&Broken::Behind)
            }
        }
    }

    fn progress(&mut self, progress: Result<Progress, Broken>) -> Option<TailItem> {
        match progress {
            Ok(Progress::Entries(entries)) => Some(self.hand_out(entries)),
            Ok(Progress::Heartbeat) => {
                self.attempts = 0;
                Some(TailItem::Quiet)
            }
            Err(broken) => self.end(&broken),
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

    fn checked(&mut self, checked: Result<Check, Unavailable>) {
        self.checking = None;
        self.next_check = Instant::now() + self.settings.check_interval;
        match checked {
            // Only an attach reports what is wrong, because then the position stands still.
            Ok(Check { standing: Standing::Lost | Standing::Expired { .. }, .. }) => self.detach(),
            Ok(Check { standing: Standing::Same, last }) => self.expect(last),
            // If NATS is away, missed heartbeats end the consumer.
            Err(_) => {}
        }
    }

    /// Gives the consumer up.
    fn end(&mut self, why: &Broken) -> Option<TailItem> {
        tracing::warn!(partition = self.partition.get(), position = self.position.seq.get(), %why, "tail broken");
        self.detach();
        None
    }

    fn detach(&mut self) {
        self.last_server = self.consumer.take().map(|consumer| consumer.server).or(self.last_server.take());
        self.attaching = None;
        self.checking = None;
        self.expected = None;
        self.listening_since = None;
    }

    /// Goes on with the attempt to create a consumer. No item if it fails.
    async fn attach(&mut self) -> Option<TailItem> {
        if self.attaching.is_none() {
            self.returns.mark_unchanged();
            self.attempts = self.attempts.saturating_add(1);
            self.attaching = Some(self.new_attachment());
        }
        let attached = tokio::select! {
            attached = if_some(&mut self.attaching) => attached,
            // What it asked of a server that does not know has no answer, and another one has.
            Ok(()) = self.returns.changed() => {
                (self.attaching, self.attempts) = (None, 0);
                return None;
            }
        };
        self.attaching = None;
        match attached {
            Ok(Ok(consumer)) => {
                self.consumer = Some(consumer);
                self.stats.attaches.fetch_add(1, Relaxed);
                self.next_check = Instant::now() + self.settings.check_interval;
                Some(TailItem::Attached { from: self.position.seq })
            }
            Ok(Err(Stuck::Expired { first })) => Some(TailItem::Expired { first }),
            Ok(Err(Stuck::LostTail { cut })) => {
                self.stats.lost_tails.fetch_add(1, Relaxed);
                Some(TailItem::LostTail { cut })
            }
            Err(error) => {
                tracing::warn!(partition = self.partition.get(), %error, "tail can't attach");
                None
            }
        }
    }

    fn new_attachment(&self) -> Attaching {
        let (nats, partition, position) = (self.nats.clone(), self.partition, self.position);
        let (known, heartbeat) = (Arc::clone(&self.known), self.settings.heartbeat);
        let (avoid, pause) = (self.last_server.clone(), backoff(self.attempts));
        Box::pin(async move {
            sleep(pause).await;
            match hedged(|| identity::check(&nats, partition, position)).await?.standing {
                Standing::Same => {}
                Standing::Expired { first } => return Ok(Err(Stuck::Expired { first })),
                Standing::Lost => {
                    let cut = identity::find_cut(&nats, partition, position, &*known).await?;
                    tracing::error!(position = position.seq.get(), ?cut, "the log has lost its tail");
                    return Ok(Err(Stuck::LostTail { cut }));
                }
            }
            let consumer = Consumer::create(&nats, partition, position.seq, heartbeat, avoid.as_deref());
            consumer.await.map(Ok)
        })
    }
}

/// Waits for the future, if there is one; for ever if there is none.
async fn if_some<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
