//! Appending events to the log: windowed, deduplicated, retried until a deadline.
//!
//! One task owns one connection. When the connection dies, the appends in flight fail at once and are tried again on
//! the next one with the same `Nats-Msg-Id`. Invariants: at most the window's number of appends await their
//! acknowledgement; an append is handed over only while the connection stands and the deadline lies ahead; an append
//! that was given up is not sent later.

mod connection;
mod draft;
mod error;
mod reply;
mod stats;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use shared::{
    event::{Event, Fact},
    id::{ChatId, Seq, UserId, message_id},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout_at},
};
use uuid::Uuid;

use crate::{
    connect::{Nats, Unavailable, backoff},
    subject::Partition,
    task::Task,
};
use connection::Publish;
use draft::{Draft, Headers};
pub use error::{AppendError, AttemptError};
pub use reply::Appended;
use reply::{Outcome, Refusal};
pub use stats::AppendStats;

/// The actor of appends that no user caused: no reader looks at it.
const NOBODY: UserId = match UserId::new(1) {
    Ok(user) => user,
    Err(_) => unreachable!(),
};

/// What is to be appended, with what an ordinary append does not need.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub chat: ChatId,
    pub event: &'a Event,
    /// The W3C trace context, only when it is sampled.
    pub traceparent: Option<&'a str>,
    /// Append only if the chat has no event yet.
    pub first: bool,
    /// The log holds the command in an event that counts for nothing, the last one here: it is to be stored again.
    pub anew_after: Option<Seq>,
}

/// Appends to all partitions over one connection. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub struct Appender {
    nats: Nats,
    /// The queue of the present connection, if there is one.
    queue: watch::Receiver<Option<mpsc::Sender<Publish>>>,
    stats: Arc<AppendStats>,
    _keeps_connected: Arc<Task>,
}

impl Appender {
    /// Starts the connection task. Needs a tokio runtime.
    pub fn start(nats: &Nats) -> Self {
        let stats = Arc::new(AppendStats::default());
        let (queue, task) = connection::start(nats, Arc::clone(&stats));
        Self { nats: nats.clone(), queue, stats, _keeps_connected: Arc::new(task) }
    }

    /// Whether an append would be handed over right now.
    pub fn is_connected(&self) -> bool {
        self.queue.borrow().is_some()
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
        self.send(Request { chat, event, traceparent: None, first: false, anew_after: None }, deadline).await
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
        self.send(Request { chat, event, traceparent: None, first: true, anew_after: None }, deadline).await
    }

    /// As [`Appender::append`] or [`Appender::append_first`], with a trace context.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn send(&self, request: Request<'_>, deadline: Instant) -> Result<Appended, AppendError> {
        let mut id = message_id(request.event.actor, request.chat, request.event.uuid);
        if let Some(seq) = request.anew_after {
            // Whoever appends anew after the same event has the same id, so the log stores it once.
            id.push_str(&format!("-{seq}"));
        }
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
        let event = Event {
            actor: NOBODY,
            device: String::new(),
            uuid: Uuid::now_v7(),
            fact: Fact::Noop,
            unique_as_of: None,
        };
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
                Ok(Outcome::Stored(appended)) => return Ok(self.stored(appended, &history)),
                Ok(Outcome::Refused(Refusal::NotFirst)) => match Box::pin(self.first_of(draft, id)).await {
                    Ok(verdict) => return verdict.map(|appended| self.stored(appended, &history)),
                    Err(error) => history.failed(error.into()),
                },
                Ok(Outcome::Refused(Refusal::TooLarge)) => return Err(AppendError::TooLarge),
                // Definite only while no earlier attempt may have been stored.
                Ok(Outcome::Refused(Refusal::Full)) if !history.maybe_stored => {
                    return Err(AppendError::Full);
                }
                Ok(Outcome::Refused(Refusal::Full)) => history.failed(AttemptError::Full),
                Ok(Outcome::Refused(Refusal::Temporary(error))) => history.failed(error),
                Ok(Outcome::NotSent) => history.failed(AttemptError::NotConnected),
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
        let connected = self.queue.borrow().clone();
        let sender = match connected {
            Some(sender) => sender,
            None => match self.queue.clone().wait_for(Option::is_some).await.map(|sender| sender.clone()) {
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

    fn stored(&self, appended: Appended, history: &History) -> Appended {
        self.stats.acked.fetch_add(1, Relaxed);
        self.stats.duplicates.fetch_add(appended.duplicate.into(), Relaxed);
        Appended { maybe_own: appended.duplicate && history.maybe_stored, ..appended }
    }

    /// After a refused first append: whether the chat's only subject holds this very event. Some servers answer a
    /// repeated first append with the conflict rather than as a duplicate.
    async fn first_of(&self, draft: &Draft, id: &str) -> Result<Result<Appended, AppendError>, Unavailable> {
        let subject = draft.subject();
        let (partition, _) =
            self.nats.layout.parse_chat(subject).ok_or_else(|| Unavailable::Because("no chat"))?;
        let read = async {
            let stream = self.nats.js.get_stream_no_info(self.nats.layout.chat_stream(partition)).await;
            let stream = stream.map_err(Unavailable::new)?;
            stream.get_first_raw_message_by_subject(subject, 1).await.map_err(Unavailable::new)
        };
        let first = self.nats.ask(read).await?;
        let have = first.headers.get(async_nats::header::NATS_MESSAGE_ID).map(|value| value.as_str());
        Ok(if have == Some(id) {
            Ok(Appended { seq: Seq(first.sequence), duplicate: true, maybe_own: false })
        } else {
            Err(AppendError::Exists)
        })
    }
}

/// The attempts so far.
#[derive(Default)]
struct History {
    /// The failure of the last attempt; none if it was never answered.
    last: Option<AttemptError>,
    /// An attempt is out that was not answered yet.
    handed_over: bool,
    /// An attempt was never answered: from now on no error is definite.
    maybe_stored: bool,
}

impl History {
    fn failed(&mut self, error: AttemptError) {
        self.handed_over = false;
        self.last = Some(error);
    }

    fn no_answer(&mut self) {
        self.handed_over = false;
        self.maybe_stored = true;
        self.last = None;
    }

    /// The pause before the next attempt. A lost connection and an overdue answer have taken their time already; a
    /// refusal comes at once.
    fn pause(&self, attempt: u32) -> Duration {
        if self.last.is_none() { Duration::ZERO } else { backoff(attempt) }
    }

    fn unavailable(self) -> AppendError {
        let source = self.last.unwrap_or(AttemptError::NoAnswer);
        AppendError::Unavailable { source, maybe_stored: self.maybe_stored || self.handed_over }
    }
}
