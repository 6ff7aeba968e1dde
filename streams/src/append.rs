//! Appending events to the log: windowed, deduplicated, retried until a deadline.
//!
//! One task owns one connection (a lane); what is in flight when it dies fails at once and is tried again on
//! the next one with the same `Nats-Msg-Id`. Invariants: at most the window's number of appends await their
//! acknowledgement; nothing is handed over unless the lane is connected and the deadline lies ahead; nothing that
//! was given up is sent later.

mod draft;
mod lane;
mod reply;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use shared::{
    event::{Event, Fact},
    id::{ChatId, InvalidId, Seq, UserId, message_id},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout_at},
};
use uuid::Uuid;

use crate::{
    connect::{Nats, Unavailable, backoff},
    subject::Partition,
};
use draft::{Draft, Headers};
use lane::Publish;
use reply::{Outcome, Refusal};

/// The actor of appends that no user caused: no reader looks at it.
const NOBODY: Result<UserId, InvalidId> = UserId::new(1);

/// The verdict of the log about one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub seq: Seq,
    /// The log has it from an earlier attempt. That says that an event with this key is at `seq`, not that it
    /// holds this command.
    pub duplicate: bool,
}

/// Why an event was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The outcome is unknown if `maybe_stored`, else nothing was stored. Temporary: to try the same event again is
    /// safe.
    #[error("the log did not acknowledge in time: {why}")]
    Unavailable { why: String, maybe_stored: bool },
    /// The log has reached its size limit. Nothing was stored.
    #[error("the log is full")]
    Full,
    /// The chat of a first event has an event already, and it is not this one. Nothing was stored.
    #[error("the chat exists in the log already")]
    Exists,
    /// Larger than the server takes. Nothing was stored.
    #[error("the event is larger than the log takes")]
    TooLarge,
}

impl From<AppendError> for Unavailable {
    fn from(error: AppendError) -> Self {
        Self::new(error)
    }
}

/// Counters since the start, and a gauge.
#[derive(Debug, Default)]
pub struct AppendStats {
    /// Events sent whose acknowledgement has not come.
    pub in_flight: AtomicUsize,
    /// Events acknowledged, duplicates included.
    pub acked: AtomicU64,
    /// Of these, those the log had already.
    pub duplicates: AtomicU64,
    /// Attempts after the first.
    pub retries: AtomicU64,
    /// Connections made.
    pub connects: AtomicU64,
}

/// What is to be appended, with what an ordinary append does not need.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub chat: ChatId,
    pub event: &'a Event,
    /// The W3C trace context, only when it is sampled.
    pub traceparent: Option<&'a str>,
    /// Append only if the chat has no event yet.
    pub first: bool,
}

/// Appends to all partitions over one connection. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub struct Appender {
    nats: Nats,
    lane: watch::Receiver<Option<mpsc::Sender<Publish>>>,
    stats: Arc<AppendStats>,
}

impl Appender {
    /// Starts the connection task. Needs a tokio runtime.
    pub fn start(nats: &Nats) -> Self {
        let stats = Arc::new(AppendStats::default());
        let lane = lane::start(nats, Arc::clone(&stats));
        Self { nats: nats.clone(), lane, stats }
    }

    /// Whether an append would be handed over right now.
    pub fn is_connected(&self) -> bool {
        self.lane.borrow().is_some()
    }

    pub fn stats(&self) -> &AppendStats {
        &self.stats
    }

    /// Appends, trying again until the deadline.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append(
        &self,
        chat: ChatId,
        event: &Event,
        deadline: Instant,
    ) -> Result<Appended, AppendError> {
        self.send(Request { chat, event, traceparent: None, first: false }, deadline).await
    }

    /// Appends the first event of a chat, or finds that it is there already.
    ///
    /// # Errors
    /// [`AppendError::Exists`] if another event is the chat's first; see there for the others.
    pub async fn append_first(
        &self,
        chat: ChatId,
        event: &Event,
        deadline: Instant,
    ) -> Result<Appended, AppendError> {
        self.send(Request { chat, event, traceparent: None, first: true }, deadline).await
    }

    /// As [`Appender::append`] or [`Appender::append_first`], with a trace context.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn send(&self, request: Request<'_>, deadline: Instant) -> Result<Appended, AppendError> {
        let id = message_id(request.event.actor, request.chat, request.event.uuid);
        let subject = self.nats.layout.chat_subject(Partition::of(request.chat), request.chat);
        let headers = Headers { id: &id, traceparent: request.traceparent, first: request.first };
        let draft = Draft::new(&subject, headers, &request.event.encode());
        self.deliver(&draft, &id, deadline).await
    }

    /// Appends an event of no chat: its acknowledgement proves that the partition's log takes writes, and where
    /// it ends.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append_noop(&self, partition: Partition, deadline: Instant) -> Result<Seq, AppendError> {
        let actor = NOBODY
            .map_err(|error| AppendError::Unavailable { why: error.to_string(), maybe_stored: false })?;
        let event = Event { actor, device: String::new(), uuid: Uuid::now_v7(), fact: Fact::Noop };
        let id = format!("noop-{}", event.uuid.simple());
        let headers = Headers { id: &id, traceparent: None, first: false };
        let draft = Draft::new(&self.nats.layout.noop_subject(partition), headers, &event.encode());
        self.deliver(&draft, &id, deadline).await.map(|appended| appended.seq)
    }

    async fn deliver(&self, draft: &Draft, id: &str, deadline: Instant) -> Result<Appended, AppendError> {
        let mut history = History::default();
        for attempt in 1u32.. {
            if attempt > 1 {
                self.stats.retries.fetch_add(1, Relaxed);
                // Never past the deadline, so that the caller learns of it in time.
                sleep_until((Instant::now() + history.pause(attempt)).min(deadline)).await;
            }
            match timeout_at(deadline, self.attempt(draft, deadline, &mut history)).await {
                Ok(Outcome::Stored(appended)) => return Ok(self.stored(appended)),
                Ok(Outcome::Refused(Refusal::NotFirst)) => match Box::pin(self.first_of(draft, id)).await {
                    Ok(verdict) => return verdict.map(|appended| self.stored(appended)),
                    Err(error) => history.refused(error.why),
                },
                Ok(Outcome::Refused(Refusal::TooLarge)) => return Err(AppendError::TooLarge),
                // Definite only while no earlier attempt may have been stored.
                Ok(Outcome::Refused(Refusal::Full)) if !history.maybe_stored => {
                    return Err(AppendError::Full);
                }
                Ok(Outcome::Refused(Refusal::Full)) => history.refused("the log is full".to_owned()),
                Ok(Outcome::Refused(Refusal::Temporary(why))) => history.refused(why),
                Ok(Outcome::NotSent) => history.refused("not connected".to_owned()),
                Ok(Outcome::Unknown) => history.no_answer(),
                Err(_) => break,
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(history.unavailable())
    }

    /// One hand-over.
    async fn attempt(&self, draft: &Draft, deadline: Instant, history: &mut History) -> Outcome {
        let connected = self.lane.borrow().clone();
        let sender = match connected {
            Some(sender) => sender,
            None => match self.lane.clone().wait_for(Option::is_some).await.map(|sender| sender.clone()) {
                Ok(Some(sender)) => sender,
                _ => return Outcome::NotSent,
            },
        };
        let (answer, answered) = oneshot::channel();
        if sender.send(Publish { draft: draft.clone(), deadline, answer }).await.is_err() {
            return Outcome::NotSent;
        }
        history.handed_over = true;
        answered.await.unwrap_or(Outcome::Unknown)
    }

    fn stored(&self, appended: Appended) -> Appended {
        self.stats.acked.fetch_add(1, Relaxed);
        self.stats.duplicates.fetch_add(appended.duplicate.into(), Relaxed);
        appended
    }

    /// After a refused first append: whether the chat's only subject holds this very event. Some servers answer a
    /// repeated first append with the conflict rather than as a duplicate.
    async fn first_of(&self, draft: &Draft, id: &str) -> Result<Result<Appended, AppendError>, Unavailable> {
        let subject = draft.subject();
        let (partition, _) =
            self.nats.layout.parse_chat(subject).ok_or_else(|| Unavailable::new("no chat"))?;
        let read = async {
            let stream = self.nats.js.get_stream_no_info(self.nats.layout.chat_stream(partition)).await;
            let stream = stream.map_err(Unavailable::new)?;
            stream.get_first_raw_message_by_subject(subject, 1).await.map_err(Unavailable::new)
        };
        let first = self.nats.ask(read).await?;
        let have = first.headers.get(async_nats::header::NATS_MESSAGE_ID).map(|value| value.as_str());
        Ok(if have == Some(id) {
            Ok(Appended { seq: Seq(first.sequence), duplicate: true })
        } else {
            Err(AppendError::Exists)
        })
    }
}

/// What became of the attempts so far.
#[derive(Default)]
struct History {
    why: String,
    /// An attempt is out that nobody has answered.
    handed_over: bool,
    /// An attempt was never answered: from now on no error is definite.
    maybe_stored: bool,
}

impl History {
    fn refused(&mut self, why: String) {
        self.handed_over = false;
        self.why = why;
    }

    fn no_answer(&mut self) {
        self.handed_over = false;
        self.maybe_stored = true;
        self.why.clear();
    }

    /// A lost lane and an overdue answer have taken their time already; a refusal comes at once.
    fn pause(&self, attempt: u32) -> Duration {
        if self.why.is_empty() { Duration::ZERO } else { backoff(attempt) }
    }

    fn unavailable(self) -> AppendError {
        let why = if self.why.is_empty() { "no acknowledgement".to_owned() } else { self.why };
        AppendError::Unavailable { why, maybe_stored: self.maybe_stored || self.handed_over }
    }
}
