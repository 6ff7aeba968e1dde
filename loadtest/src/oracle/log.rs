//! The CHAT stream as NATS holds it, read without the services' code. Only the outer MessagePack array of an event is
//! decoded; the sequences are compared with those of the acks and deliveries.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream::{self, consumer::DeliverPolicy, consumer::pull::OrderedConfig};
use futures_util::StreamExt;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    book::{Answer, Book, Key},
    breach::{Breach, Violation},
    device_log::DeviceLog,
};
use crate::frame::Kind;

/// One event in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub seq: u64,
    /// 0 for the partition's own no-ops.
    pub chat: u64,
    pub kind: u64,
    pub actor: u64,
    pub uuid: Uuid,
}

/// The number of a sent message in an event's `kind` field.
const MESSAGE_SENT: u64 = 2;
/// The longest pause between two messages of a healthy server.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads partition 0's stream from its start.
///
/// # Errors
/// When NATS does not answer or an entry is no event.
pub async fn read(nats_url: &str, prefix: &str) -> Result<Vec<Entry>> {
    let client = crate::target::nats(nats_url).await?;
    let context = jetstream::new(client);
    let name = format!("{}CHAT_0", prefix.to_uppercase());
    let mut stream = context.get_stream(&name).await.with_context(|| format!("stream {name}"))?;
    let last = stream.info().await?.state.last_sequence;
    let config = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    let mut entries = Vec::new();
    while entries.last().map_or(0, |entry: &Entry| entry.seq) < last {
        let next = timeout(READ_TIMEOUT, messages.next()).await.context("the log is silent")?;
        let message = next.context("the log ended")?.map_err(|error| anyhow::anyhow!("{error}"))?;
        let seq = message.info().map_err(|error| anyhow::anyhow!("{error}"))?.stream_sequence;
        let chat = message.subject.rsplit('.').next().and_then(|token| token.parse().ok());
        let chat = chat.with_context(|| format!("subject {}", message.subject))?;
        entries.push(decode(seq, chat, &message.payload).with_context(|| format!("entry {seq}"))?);
    }
    Ok(entries)
}

/// `[version, kind, actor, device, uuid, data, …]`
fn decode(seq: u64, chat: u64, mut payload: &[u8]) -> Result<Entry> {
    let rest = &mut payload;
    let fields = rmp::decode::read_array_len(rest).map_err(|_| anyhow::anyhow!("no array"))?;
    ensure!(fields >= 6, "{fields} fields");
    let mut number =
        |name: &str| -> Result<u64> { rmp::decode::read_int(rest).map_err(|_| anyhow::anyhow!("no {name}")) };
    ensure!((1..=2).contains(&number("version")?), "unknown version");
    let (kind, actor) = (number("kind")?, number("actor")?);
    let device = rmp::decode::read_str_len(rest).map_err(|_| anyhow::anyhow!("no device"))?;
    skip(rest, device as usize)?;
    ensure!(rmp::decode::read_bin_len(rest).ok() == Some(16), "no uuid");
    let uuid = Uuid::from_slice(skip(rest, 16)?)?;
    Ok(Entry { seq, chat, kind, actor, uuid })
}

fn skip<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let Some((taken, left)) = rest.split_at_checked(length) else { bail!("cut short") };
    *rest = left;
    Ok(taken)
}

/// Compares the log with the acks and deliveries. The log may hold more: retries outside the dedupe window and commands
/// that the order refused are void, and void events are delivered to nobody.
pub(super) fn compare(entries: &[Entry], devices: &[Arc<DeviceLog>], book: &Book) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut found = |breach, text: String| violations.push(Violation::new(breach, format!("log: {text}")));
    let by_seq: HashMap<u64, &Entry> = entries.iter().map(|entry| (entry.seq, entry)).collect();
    for pair in entries.windows(2) {
        if pair[1].seq != pair[0].seq + 1 {
            found(Breach::Gap, format!("{} follows {}", pair[1].seq, pair[0].seq));
        }
    }
    for (key, sent) in &book.sends {
        let Answer::Acked(seq) = sent.answer else { continue };
        let Key { user, chat, uuid } = key;
        match by_seq.get(&seq) {
            None => found(Breach::Lost, format!("u{user} chat {chat} {uuid} was acked as {seq}")),
            Some(entry)
                if (entry.chat, entry.actor, entry.uuid, entry.kind)
                    != (*chat, *user, *uuid, MESSAGE_SENT) =>
            {
                found(Breach::Disagreement, format!("u{user} chat {chat} {uuid} was acked as {entry:?}"));
            }
            Some(_) => {}
        }
    }
    for log in devices {
        log.each(|chat, event| match by_seq.get(&event.seq) {
            None => found(Breach::Phantom, format!("{}: chat {chat}: {event:?}", log.label)),
            Some(entry) => {
                let message = event.kind == Kind::Message;
                let same = entry.chat == chat
                    && entry.actor == event.from
                    && message == (entry.kind == MESSAGE_SENT)
                    && (!message || entry.uuid == event.uuid);
                if !same {
                    found(Breach::Disagreement, format!("{}: chat {chat}: {event:?}, {entry:?}", log.label));
                }
            }
        });
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_array_is_decoded() {
        let uuid = Uuid::now_v7();
        let mut bytes = vec![0x96, 1, 2, 7, 0xa3];
        bytes.extend(b"web");
        bytes.extend([0xc4, 16]);
        bytes.extend(uuid.as_bytes());
        bytes.extend([0x93, 0xa2, b'h', b'i', 0xc0, 0x90]);
        let entry = decode(9, 4, &bytes).unwrap();
        assert_eq!(entry, Entry { seq: 9, chat: 4, kind: 2, actor: 7, uuid });
        for length in 0..26 {
            assert!(decode(9, 4, &bytes[..length]).is_err(), "{length}");
        }
    }
}
