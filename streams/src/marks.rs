//! Read and delivered marks on their way from the gateways to presence: the read stream.
//!
//! A mark is a maximum, so neither a duplicate nor a change of order does harm. Presence instances share one durable
//! consumer; a mark is delivered again until it is acknowledged.

use std::time::Duration;

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, pull},
};
use futures_util::{FutureExt, StreamExt};
use serde::{Deserialize, Serialize};
use shared::id::{ChatId, Seq, UserId};
use tokio::time::{Instant, sleep, timeout_at};

use crate::connect::{Nats, Unavailable, backoff};

/// The durable consumer that all presence instances share.
const CONSUMER: &str = "presence";

/// How long an instance may take to store a batch before its marks go to another one. The marks that a killed instance
/// had read are late by this.
const ACK_WAIT: Duration = Duration::from_secs(5);

/// Marks delivered and not acknowledged: a bound on what is delivered again after a crash.
const MAX_PENDING: i64 = 20_000;

/// How far a user has read, and got, a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub user: UserId,
    pub chat: ChatId,
    pub read: Option<Seq>,
    pub delivered: Option<Seq>,
}

/// A mark's bytes. The user is in the subject.
#[derive(Serialize, Deserialize)]
struct Payload {
    chat: ChatId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read: Option<Seq>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delivered: Option<Seq>,
}

impl Nats {
    /// Hands a mark to the read stream, if it can leave at once.
    ///
    /// # Errors
    /// [`Unavailable`] if it can't: keep it and try again later.
    pub fn publish_mark(&self, mark: &Mark) -> Result<(), Unavailable> {
        if !self.is_connected() {
            return Err(Unavailable::Because("not connected"));
        }
        let payload = Payload { chat: mark.chat, read: mark.read, delivered: mark.delivered };
        let payload = rmp_serde::to_vec_named(&payload).map_err(Unavailable::new)?;
        let publish = self.client.publish(self.layout.read_subject(mark.user), payload.into());
        match tokio::task::unconstrained(publish).now_or_never() {
            Some(sent) => sent.map_err(Unavailable::new),
            None => Err(Unavailable::Because("too many marks")),
        }
    }
}

/// Marks that were read together.
#[derive(Default)]
pub struct MarkBatch {
    pub marks: Vec<Mark>,
    /// Some of them were handed out before: an instance may have stored them without announcing them.
    pub redelivered: bool,
    messages: Vec<jetstream::Message>,
}

impl MarkBatch {
    /// To be called once the marks are stored. A mark whose acknowledgement fails is delivered again.
    pub async fn ack(self) {
        for message in self.messages {
            if let Err(error) = message.ack().await {
                tracing::debug!(%error, "mark not acknowledged");
                return;
            }
        }
    }
}

/// Presence's side of the read stream.
pub struct MarkReader {
    nats: Nats,
    /// What the present call of [`MarkReader::batch`] has read. A cancelled call leaves it here.
    batch: MarkBatch,
    messages: Option<pull::Stream>,
    attempts: u32,
}

impl MarkReader {
    /// Nothing happens before the first [`MarkReader::batch`].
    pub fn new(nats: &Nats) -> Self {
        Self { nats: nats.clone(), batch: MarkBatch::default(), messages: None, attempts: 0 }
    }

    /// Waits for a mark, then for the marks that follow within `window`, `max` at most. Never empty. The marks that a
    /// cancelled call had read are in the batch of the next call, or of [`MarkReader::rest`].
    pub async fn batch(&mut self, max: usize, window: Duration) -> MarkBatch {
        while self.batch.messages.is_empty() {
            let Some(messages) = &mut self.messages else {
                self.attach().await;
                continue;
            };
            let first = messages.next().await;
            self.take(first);
        }
        self.attempts = 0;
        let end = Instant::now() + window;
        while self.batch.messages.len() < max
            && let Some(messages) = &mut self.messages
            && let Ok(next) = timeout_at(end, messages.next()).await
        {
            self.take(next);
        }
        self.rest()
    }

    /// The marks that a cancelled call had read; may be empty.
    pub fn rest(&mut self) -> MarkBatch {
        std::mem::take(&mut self.batch)
    }

    fn take(&mut self, next: Option<Result<jetstream::Message, pull::MessagesError>>) {
        match next {
            Some(Ok(message)) => self.batch.add(&self.nats, message),
            other => {
                tracing::warn!(error = ?other.and_then(Result::err), "lost the consumer of marks");
                self.messages = None;
            }
        }
    }

    async fn attach(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
        sleep(backoff(self.attempts)).await;
        match self.messages().await {
            Ok(messages) => self.messages = Some(messages),
            Err(error) => tracing::warn!(%error, "can't read marks"),
        }
    }

    async fn messages(&self) -> Result<pull::Stream, Unavailable> {
        let config = pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: MAX_PENDING,
            ..pull::Config::default()
        };
        let stream = self.nats.layout.read_stream();
        let consumer: jetstream::consumer::Consumer<pull::Config> =
            self.nats.js.create_consumer_on_stream(config, stream).await.map_err(Unavailable::new)?;
        let messages = consumer.stream().heartbeat(Duration::from_secs(1)).expires(Duration::from_secs(10));
        messages.messages().await.map_err(Unavailable::new)
    }
}

impl MarkBatch {
    fn add(&mut self, nats: &Nats, message: jetstream::Message) {
        let user = nats.layout.parse_read(&message.subject);
        let payload = rmp_serde::from_slice::<Payload>(&message.payload);
        match (user, payload) {
            (Some(user), Ok(Payload { chat, read, delivered })) => {
                self.marks.push(Mark { user, chat, read, delivered });
            }
            // Acknowledged with the others, or it would be delivered for ever.
            _ => tracing::warn!("unreadable mark"),
        }
        self.redelivered |= message.info().is_ok_and(|info| info.delivered > 1);
        self.messages.push(message);
    }
}
