//! How often the hot paths allocate. Stable enough to be a test: a change that costs an allocation per event shows
//! here before it shows in a benchmark.

#![allow(clippy::unwrap_used)]

#[path = "log/server.rs"]
mod server;

use std::{alloc::System, sync::Arc, time::Duration};

use server::Server;
use shared::{
    event::{Event, Fact, MessageSent},
    id::{ChatId, Position, Seq, UserId},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use streams::{Appender, Known, Nats, Partition, Tail, TailItem, TailSettings, tail::Recall};
use tokio::time::Instant;
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const EVENTS: usize = 5_000;

/// The id, the subject, the encoded event, the draft and its shared owner, and the channel of the answer.
const PER_APPEND: f64 = 6.5;

/// A batch's vector as it grows, and a chunk for the payloads of hundreds of events.
const PER_TAIL_EVENT: f64 = 0.25;

struct Nothing;

impl Known for Nothing {
    fn at_or_below(&self, _: Seq) -> Recall<'_> {
        Box::pin(async { Ok(None) })
    }
}

#[tokio::test]
async fn appends_and_tail_allocate_no_more_than_they_must() {
    let server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    let event = || Event {
        actor: UserId::new(7).unwrap(),
        device: String::new(),
        uuid: Uuid::now_v7(),
        fact: Fact::MessageSent(MessageSent { body: String::new(), reply_to: None, mentions: Vec::new() }),
        unique_as_of: None,
    };
    append(&appender, 200, event).await;
    let region = Region::new(ALLOCATOR);
    append(&appender, EVENTS, event).await;
    check("append", region.change().allocations, EVENTS, PER_APPEND);

    read(&nats, 200).await;
    let region = Region::new(ALLOCATOR);
    read(&nats, EVENTS).await;
    check("tail", region.change().allocations, EVENTS, PER_TAIL_EVENT);
}

async fn append(appender: &Appender, count: usize, event: impl Fn() -> Event) {
    for _ in 0..count {
        let deadline = Instant::now() + Duration::from_secs(10);
        appender.append(ChatId::new(1).unwrap(), &event(), deadline).await.unwrap();
    }
}

async fn read(nats: &Nats, count: usize) {
    let mut tail =
        Tail::open(nats, Partition::FIRST, Position::default(), Arc::new(Nothing), TailSettings::default());
    while tail.position().seq < Seq(count as u64) {
        if let TailItem::Batch(entries) = tail.next().await {
            assert!(entries.iter().all(|entry| !entry.payload.is_empty()));
        }
    }
}

fn check(what: &str, allocations: usize, count: usize, most: f64) {
    let each = allocations as f64 / count as f64;
    println!("{what}: {each:.2} allocations per event");
    assert!(each <= most, "{what}: {each:.2} allocations per event, {most} expected");
}
