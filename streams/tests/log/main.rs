//! The crate against a real nats-server: each test has a server of its own.

// clippy knows tests, but not their helpers.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

mod append;
mod barrier;
mod cluster;
mod command;
mod isolated;
mod proxy;
mod server;
mod signal;
mod tail;

use std::{future::Future, time::Duration};

use shared::{
    event::{Event, Fact, MessageSent},
    id::{ChatId, Seq, UserId},
};
use streams::{Appender, Entry, Nats, Partition, Scan};
use tokio::time::Instant;
use uuid::Uuid;

const P: Partition = Partition::FIRST;

fn chat(id: u64) -> ChatId {
    ChatId::new(id).unwrap()
}

fn message(body: impl Into<String>) -> Event {
    Event {
        actor: UserId::new(7).unwrap(),
        device: "test".to_owned(),
        uuid: Uuid::now_v7(),
        fact: Fact::MessageSent(MessageSent { body: body.into(), reply_to: None, mentions: Vec::new() }),
        unique_as_of: None,
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// Appends `count` messages, many at once.
async fn append_many(appender: &Appender, count: usize) {
    use futures_util::{TryStreamExt, stream};
    stream::iter((0..count).map(Ok))
        .try_for_each_concurrent(256, async |number| {
            appender
                .append(chat(1 + number as u64 % 20), &message(format!("{number}")), soon())
                .await
                .map(drop)
        })
        .await
        .unwrap();
}

/// The whole log.
async fn log(nats: &Nats) -> Vec<Entry> {
    let last = nats.bounds(P).await.unwrap().last;
    let mut scan = Scan::new(nats, P, Seq::ZERO, last);
    let mut entries = Vec::new();
    while let Some(batch) = scan.next().await.unwrap() {
        entries.extend(batch);
    }
    entries
}

async fn within<T>(seconds: u64, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(seconds), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {seconds} s"),
    }
}

async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    within(20, what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
