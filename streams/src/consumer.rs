//! One push consumer on one connection, from its creation to the first sign of trouble.
//!
//! Invariant: the entries that it hands out are dense from `from + 1`.

use std::{collections::VecDeque, io, time::Duration};

use serde::Deserialize;
use shared::id::Seq;
use tokio::time::{interval, timeout};

use crate::{
    connect::{Nats, REQUEST_TIMEOUT, Unavailable},
    entry::{Entry, Reader, place},
    hedge::AGAIN,
    line::{self, Line, Message},
    subject::{Layout, Partition, decimal},
};

/// The subscriptions of the connection.
const DELIVERIES: u8 = 1;
const REPLIES: u8 = 2;

/// How long the server keeps a consumer whose connection is gone.
const INACTIVE: Duration = Duration::from_secs(30);

/// The inline status of flow control and heartbeats.
const CONTROL: u16 = 100;

/// Why a consumer has to be replaced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("lost the connection: {0}")]
    Line(#[from] io::Error),
    #[error("missed heartbeats")]
    Silent,
    #[error("a gap: expected {expected}, got {got}")]
    Gap { expected: u64, got: u64 },
    #[error("the server ended the consumer with status {0}")]
    Ended(u16),
    #[error("an event that the log holds did not come")]
    Behind,
    #[error("its server proves nothing")]
    Left,
    #[error("a delivery that can't be read")]
    Unreadable,
}

/// What [`Consumer::next`] returns.
pub(crate) enum Progress {
    /// Never empty.
    Entries(Vec<Entry>),
    Heartbeat,
}

pub(crate) struct Consumer {
    line: Line,
    reader: Reader,
    /// The address of the server that it lives on.
    pub(crate) server: String,
    /// The log's sequence of the last delivery.
    last: u64,
    /// The consumer's own count of deliveries.
    consumer_seq: u64,
    /// The answer to a flow control request. It is sent when the reader comes back for more.
    owed: Option<String>,
    /// Deliveries that overtook the answer to the creation.
    early: VecDeque<Entry>,
}

/// What one pass over the line's buffer found.
#[derive(Default)]
struct Parsed {
    entries: Vec<Entry>,
    /// A heartbeat: the consumer lives and has delivered everything.
    heartbeat: bool,
    /// The answer to the creation.
    created: Option<io::Result<()>>,
}

#[derive(Deserialize)]
struct Created {
    #[serde(default)]
    error: Option<CreateError>,
}

#[derive(Deserialize)]
struct CreateError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Consumer {
    /// A consumer of the whole partition that starts after `from`, on another server than `avoid` if possible.
    pub(crate) async fn create(
        nats: &Nats,
        partition: Partition,
        from: Seq,
        heartbeat: Duration,
        avoid: Option<&str>,
    ) -> Result<Self, Unavailable> {
        let (line, server) = nats.target.dial(avoid).await.map_err(Unavailable::new)?;
        let mut consumer = Self::new(line, server, nats.layout.clone(), from);
        let stream = nats.layout.chat_stream(partition);
        match timeout(REQUEST_TIMEOUT, consumer.request_creation(&stream, heartbeat)).await {
            Ok(Ok(())) => Ok(consumer),
            Ok(Err(broken)) => Err(Unavailable::new(broken)),
            Err(_) => Err(Unavailable::Because("no answer to the creation of a consumer")),
        }
    }

    fn new(line: Line, server: String, layout: Layout, from: Seq) -> Self {
        let reader = Reader::new(layout);
        Self { line, reader, server, last: from.get(), consumer_seq: 0, owed: None, early: VecDeque::new() }
    }

    async fn request_creation(&mut self, stream: &str, heartbeat: Duration) -> Result<(), Broken> {
        let (deliveries, replies) = (line::inbox(), line::inbox());
        // Named, so that to ask for it again makes no second one.
        let name = format!("{:016x}", rand::random::<u64>());
        let request = serde_json::json!({
            "stream_name": stream,
            "config": {
                "name": name,
                "deliver_subject": deliveries,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": self.last + 1,
                "ack_policy": "none",
                "max_deliver": 1,
                "replay_policy": "instant",
                "flow_control": true,
                "idle_heartbeat": nanoseconds(heartbeat),
                "inactive_threshold": nanoseconds(INACTIVE),
                "num_replicas": 1,
                "mem_storage": true,
            },
        });
        // Subscribed before the consumer exists, so that none of its deliveries is missed.
        self.line.subscribe(&deliveries, DELIVERIES);
        self.line.subscribe(&replies, REPLIES);
        let subject = format!("$JS.API.CONSUMER.CREATE.{stream}.{name}");
        let request = request.to_string();
        let mut again = interval(AGAIN);
        loop {
            tokio::select! {
                _ = again.tick() => {
                    self.line.publish(&subject, Some(&replies), request.as_bytes());
                    self.line.flush().await?;
                }
                filled = self.line.fill() => filled?,
            }
            let parsed = self.parse(usize::MAX)?;
            self.early.extend(parsed.entries);
            if let Some(created) = parsed.created {
                return Ok(created?);
            }
        }
    }

    /// Waits for the next events, `max` at most. Cancel-safe.
    pub(crate) async fn next(&mut self, max: usize) -> Result<Progress, Broken> {
        if !self.early.is_empty() {
            let count = max.min(self.early.len());
            return Ok(Progress::Entries(self.early.drain(..count).collect()));
        }
        loop {
            if let Some(subject) = self.owed.take() {
                self.line.publish(&subject, None, b"");
            }
            if self.line.is_dirty() {
                self.line.flush().await?;
            }
            // Nothing is awaited between here and the return of what was parsed.
            let parsed = self.parse(max)?;
            if !parsed.entries.is_empty() {
                return Ok(Progress::Entries(parsed.entries));
            }
            if parsed.heartbeat {
                return Ok(Progress::Heartbeat);
            }
            if self.owed.is_none() {
                self.line.fill().await?;
            }
        }
    }

    /// Takes messages out of the buffer up to `max` entries or a flow control request.
    fn parse(&mut self, max: usize) -> Result<Parsed, Broken> {
        let mut parsed = Parsed::default();
        while parsed.entries.len() < max && self.owed.is_none() {
            let Some(message) = self.line.message()? else { break };
            if message.sid == REPLIES {
                parsed.created = Some(creation(message.payload));
            } else if let Some(status) = message.headers.status() {
                self.owed = control(message, status, self.consumer_seq)?;
                // A flow control request means that more will come, so it is no heartbeat.
                parsed.heartbeat = self.owed.is_none();
            } else {
                let place = place(message.reply).ok_or(Broken::Unreadable)?;
                expect(self.consumer_seq + 1, place.consumer_seq)?;
                expect(self.last + 1, place.stream_seq)?;
                (self.consumer_seq, self.last) = (place.consumer_seq, place.stream_seq);
                parsed.entries.push(self.reader.entry(message, &place));
            }
        }
        Ok(parsed)
    }
}

/// Reads flow control or a heartbeat. Returns the subject of the answer that the server wants, if it wants one.
fn control(message: Message<'_>, status: u16, consumer_seq: u64) -> Result<Option<String>, Broken> {
    if status != CONTROL {
        return Err(Broken::Ended(status));
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !message.reply.is_empty() {
        return Ok(Some(text(message.reply)));
    }
    if let Some(last) = message.headers.get("Nats-Last-Consumer").and_then(decimal) {
        expect(consumer_seq, last)?;
    }
    Ok(message.headers.get("Nats-Consumer-Stalled").map(text))
}

fn expect(expected: u64, got: u64) -> Result<(), Broken> {
    if expected == got { Ok(()) } else { Err(Broken::Gap { expected, got }) }
}

fn creation(answer: &[u8]) -> io::Result<()> {
    let created: Created = serde_json::from_slice(answer)?;
    match created.error {
        None => Ok(()),
        Some(error) => Err(io::Error::other(format!("{} ({})", error.description, error.err_code))),
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
