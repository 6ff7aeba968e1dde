//! Reads of the log beside the tail: one event, its bounds, and a bounded scan.
//!
//! A read that something is decided on (identities, verdicts) asks the leader. A direct get may be answered by a lagging
//! replica.

use std::time::Duration;

use async_nats::{
    datetime::parse_rfc3339,
    jetstream::{self, response::Response, stream::RawMessageErrorKind},
};
use bytes::Bytes;
use serde::Deserialize;
use shared::id::{EventId, Seq};
use tokio::time::timeout;

use crate::{
    connect::{Nats, Unavailable, backoff},
    consumer::{Broken, Consumer, Progress},
    entry::Entry,
    subject::Partition,
};

/// A follower that was silent for longer is not counted as in touch: a leader without a quorum may have been deposed.
const FOLLOWER_SILENCE: Duration = Duration::from_secs(3);

/// The ends of a partition's log, and how full it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The first event that is kept; `last + 1` if there is none.
    pub first: Seq,
    pub last: Seq,
    pub bytes: u64,
    /// The size at which writes are refused; 0: no limit.
    pub max_bytes: u64,
    /// For how long the log recognises an event that is appended again.
    pub window_ms: u64,
    /// The leader's clock at the answer, in Unix milliseconds. Servers before 2.10 don't tell.
    pub now_ms: Option<u64>,
}

impl Bounds {
    /// How much of the log's bound is taken; none if it has no bound.
    pub fn fill(&self) -> Option<f64> {
        (self.max_bytes > 0).then(|| self.bytes as f64 / self.max_bytes as f64)
    }

    /// Whether the log is so full that only events which make room, or must not fail, should be appended.
    pub fn is_nearly_full(&self) -> bool {
        self.max_bytes > 0 && u128::from(self.bytes) * 100 >= u128::from(self.max_bytes) * 95
    }
}

impl Nats {
    /// One event by a leader read; none if there is no such event.
    ///
    /// # Errors
    /// [`Unavailable`] if the log can't be asked.
    pub async fn read_one(&self, partition: Partition, seq: Seq) -> Result<Option<Entry>, Unavailable> {
        if seq == Seq::ZERO {
            return Ok(None);
        }
        let read = async {
            let stream = self.js.get_stream_no_info(self.layout.chat_stream(partition)).await;
            let stream = stream.map_err(Unavailable::new)?;
            match stream.get_raw_message(seq.get()).await {
                Ok(message) => Ok(Some(self.entry(message))),
                Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
                Err(error) => Err(Unavailable::new(error)),
            }
        };
        self.ask(read).await
    }

    /// The ends of the log as its leader knows them.
    ///
    /// # Errors
    /// [`Unavailable`] if the log can't be asked.
    pub async fn bounds(&self, partition: Partition) -> Result<Bounds, Unavailable> {
        self.stream_info(partition).await.map(|info| bounds(&info))
    }

    /// The name of the server that leads the log; none while there is none, or without a cluster.
    ///
    /// # Errors
    /// [`Unavailable`] if the log can't be asked.
    pub async fn leader(&self, partition: Partition) -> Result<Option<String>, Unavailable> {
        Ok(self.stream_info(partition).await?.info.cluster.and_then(|cluster| cluster.leader))
    }

    /// The ends of the log, from a leader that still has its quorum.
    pub(crate) async fn proven_bounds(&self, partition: Partition) -> Result<Bounds, Unavailable> {
        let info = self.stream_info(partition).await?;
        if has_quorum(&info.info) {
            Ok(bounds(&info))
        } else {
            Err(Unavailable::Because("the leader of the log is out of touch with its followers"))
        }
    }

    pub(crate) async fn stream_info(&self, partition: Partition) -> Result<Described, Unavailable> {
        let read = async {
            let subject = format!("STREAM.INFO.{}", self.layout.chat_stream(partition));
            // The client's own type leaves out the server's time.
            match self.js.request(subject, &()).await.map_err(Unavailable::new)? {
                Response::Ok(described) => Ok(described),
                Response::Err { error } => Err(Unavailable::new(error)),
            }
        };
        self.ask(read).await
    }

    fn entry(&self, message: jetstream::message::StreamMessage) -> Entry {
        let header = |name: &str| message.headers.get(name).map(|value| value.as_str());
        let stored_ns = u64::try_from(message.time.unix_timestamp_nanos()).unwrap_or(0);
        Entry {
            seq: Seq(message.sequence),
            id: EventId::of(header("Nats-Msg-Id").unwrap_or_default(), stored_ns),
            ts_ms: stored_ns / 1_000_000,
            appended_ns: stored_ns,
            chat: self.layout.parse_chat(&message.subject).and_then(|(_, chat)| chat),
            traceparent: header("traceparent").map(Into::into),
            payload: Bytes::clone(&message.payload),
        }
    }
}

/// A stream as its leader describes it.
#[derive(Debug, Deserialize)]
pub(crate) struct Described {
    #[serde(flatten)]
    pub(crate) info: jetstream::stream::Info,
    /// The leader's clock.
    ts: Option<String>,
}

fn bounds(described: &Described) -> Bounds {
    let Described { info, ts } = described;
    let ts = ts.as_deref().and_then(|ts| parse_rfc3339(ts).ok());
    Bounds {
        window_ms: info.config.duplicate_window.as_millis() as u64,
        now_ms: ts.and_then(|ts| u64::try_from(ts.unix_timestamp_nanos() / 1_000_000).ok()),
        first: Seq(info.state.first_sequence),
        last: Seq(info.state.last_sequence),
        bytes: info.state.bytes,
        max_bytes: u64::try_from(info.config.max_bytes).unwrap_or(0),
    }
}

/// Whether the leader that answered is in touch with a majority. A deposed leader goes on answering for up to 40 s. For a
/// follower that it has never heard from, a leader reports a silence of zero.
pub(crate) fn has_quorum(info: &jetstream::stream::Info) -> bool {
    let Some(cluster) = &info.cluster else { return true };
    let alive = |peer: &&jetstream::stream::PeerInfo| {
        !peer.offline && !peer.active.is_zero() && peer.active < FOLLOWER_SILENCE
    };
    let in_touch = 1 + cluster.replicas.iter().filter(alive).count();
    in_touch * 2 > info.config.num_replicas.max(cluster.replicas.len() + 1)
}

/// How often a scan that lost its connection goes on before it gives up.
const SCAN_ATTEMPTS: u32 = 4;

/// The heartbeat of a scan's consumer, which is idle only when the log has no more to deliver.
const SCAN_HEARTBEAT: Duration = Duration::from_secs(1);

/// The most entries that a scan hands out at once.
const SCAN_BATCH: usize = 256;

/// Reads the events of `(from, to]` of all chats in order, at the pace of the reader: one scan serves several readers of
/// parts of it. While [`Scan::next`] is not called, the server waits.
pub struct Scan {
    nats: Nats,
    partition: Partition,
    position: Seq,
    to: Seq,
    consumer: Option<Consumer>,
}

impl Scan {
    pub fn new(nats: &Nats, partition: Partition, from: Seq, to: Seq) -> Self {
        Self { nats: nats.clone(), partition, position: from, to, consumer: None }
    }

    /// The next entries; none at the end.
    ///
    /// # Errors
    /// [`Unavailable`] if the log can't be read, also when it does not hold the range. The scan may be tried again.
    pub async fn next(&mut self) -> Result<Option<Vec<Entry>>, Unavailable> {
        let mut why = Unavailable::Because("not tried");
        for attempt in 1..=SCAN_ATTEMPTS {
            if self.position >= self.to {
                self.consumer = None;
                return Ok(None);
            }
            tokio::time::sleep(backoff(attempt)).await;
            match self.read().await {
                Ok(entries) => return Ok(Some(entries)),
                Err(error) => why = error,
            }
            self.consumer = None;
        }
        Err(why)
    }

    async fn read(&mut self) -> Result<Vec<Entry>, Unavailable> {
        let consumer = match &mut self.consumer {
            Some(consumer) => consumer,
            None => {
                let new = Consumer::create(&self.nats, self.partition, self.position, SCAN_HEARTBEAT, None);
                self.consumer.insert(new.await?)
            }
        };
        let left = usize::try_from(self.to.get() - self.position.get()).unwrap_or(usize::MAX);
        let progress = timeout(SCAN_HEARTBEAT * 2, consumer.next(SCAN_BATCH.min(left))).await;
        match progress.unwrap_or(Err(Broken::Silent)) {
            Ok(Progress::Entries(entries)) => {
                self.position = entries.last().map_or(self.position, |entry| entry.seq);
                Ok(entries)
            }
            // A heartbeat means that the log has nothing more, and yet the range is not complete.
            Ok(Progress::Heartbeat) => Err(Unavailable::Because("the log ends before the scanned range")),
            Err(broken) => Err(Unavailable::new(broken)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn info(replicas: &Value) -> jetstream::stream::Info {
        let config = json!({ "name": "CHAT", "retention": "limits", "num_replicas": 3, "storage": "file",
            "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "discard": "new", "max_age": 0 });
        let state = json!({ "messages": 0, "bytes": 0, "first_seq": 0, "last_seq": 0, "consumer_count": 0,
            "first_ts": "0001-01-01T00:00:00Z", "last_ts": "0001-01-01T00:00:00Z" });
        let cluster = json!({ "name": "c", "leader": "a", "replicas": replicas });
        let created = "2026-01-01T00:00:00Z";
        let info = json!({ "config": config, "created": created, "state": state, "cluster": cluster });
        serde_json::from_value(info).unwrap()
    }

    /// The leader's view of a follower; silences in milliseconds, as a server reports them in nanoseconds.
    fn follower(name: &str, active_ms: u64, offline: bool) -> Value {
        json!({ "name": name, "current": true, "active": active_ms * 1_000_000, "offline": offline })
    }

    #[test]
    fn a_description_holds_the_leaders_time_and_the_window() {
        let mut described = json!({ "ts": "2026-03-04T05:06:07.891234567Z", "created": "2026-01-01T00:00:00Z",
            "type": "io.nats.jetstream.api.v1.stream_info_response", "total": 0, "offset": 0, "limit": 0,
            "config": { "name": "CHAT", "retention": "limits", "num_replicas": 1, "storage": "file",
                "max_consumers": -1, "max_msgs": -1, "max_bytes": 5, "discard": "new", "max_age": 0,
                "duplicate_window": 120_000_000_000_u64 },
            "state": { "messages": 4, "bytes": 9, "first_seq": 3, "last_seq": 6, "consumer_count": 0,
                "first_ts": "0001-01-01T00:00:00Z", "last_ts": "0001-01-01T00:00:00Z" } });
        let expected = Bounds {
            first: Seq(3),
            last: Seq(6),
            bytes: 9,
            max_bytes: 5,
            window_ms: 120_000,
            now_ms: Some(1_772_600_767_891),
        };
        let told = |json: &Value| bounds(&serde_json::from_value(json.clone()).unwrap());
        assert_eq!(told(&described), expected);
        described["ts"].take();
        assert_eq!(told(&described), Bounds { now_ms: None, ..expected });
    }

    #[test]
    fn a_majority_is_the_leader_and_whom_it_heard_of_late() {
        let in_touch = |followers: &[Value]| has_quorum(&info(&Value::from(followers)));
        let silent = follower("b", 3_000, false);
        assert!(in_touch(&[follower("b", 1, false), follower("c", 2_999, false)]));
        assert!(in_touch(&[silent.clone(), follower("c", 2_999, false)]));
        assert!(!in_touch(&[silent.clone(), follower("c", 3_000, false)]));
        assert!(!in_touch(&[silent.clone(), follower("c", 1, true)]), "who is offline was heard of before");
        assert!(!in_touch(&[silent.clone(), follower("c", 0, false)]), "zero: never heard of");
        assert!(!in_touch(&[silent]), "the third of three copies is not even listed");
        assert!(!in_touch(&[]));
    }
}
