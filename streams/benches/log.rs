//! Appends per second and tail events per second against a private nats-server on this machine.
//!
//! `cargo bench -p streams`. CPU is this process's own, from `/proc`; the server's is beside it.

#![allow(clippy::unwrap_used)]

#[path = "../tests/log/server.rs"]
mod server;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use server::Server;
use shared::{
    event::{Event, Fact, MessageSent},
    id::{ChatId, Position, Seq, UserId},
};
use streams::{Appender, Known, Nats, Partition, Tail, TailItem, TailSettings, tail::Recall};
use uuid::Uuid;

const TAIL_EVENTS: u64 = 300_000;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    println!("append        rate/s   p50 µs   p99 µs   CPU µs each: ours, server's");
    for (in_flight, count) in [(1, 20_000), (16, 60_000), (64, 100_000), (256, 150_000)] {
        append(&server, &appender, in_flight, count).await;
    }
    let last = nats.bounds(Partition::FIRST).await.unwrap().last.get();
    if last < TAIL_EVENTS {
        append(&server, &appender, 256, (TAIL_EVENTS - last) as usize + 256).await;
    }
    println!("tail          rate/s                     CPU µs each: ours, server's");
    for _ in 0..3 {
        tail(&server, &nats).await;
    }
}

async fn append(server: &Server, appender: &Appender, in_flight: usize, count: usize) {
    let (begin, cpu, server_cpu) = (Instant::now(), cpu(std::process::id()), cpu(server.pid()));
    // Each on a worker, as in the services.
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..in_flight {
        senders.spawn(send(appender.clone(), sender, count / in_flight));
    }
    let mut latencies = senders.join_all().await.concat();
    let count = latencies.len();
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    latencies.sort_unstable();
    println!(
        "{in_flight:>6} {rate:>13.0} {:>8} {:>8}   {:.1}, {:.1}",
        latencies[count / 2].as_micros(),
        latencies[count * 99 / 100].as_micros(),
        each(cpu, std::process::id(), count),
        each(server_cpu, server.pid(), count),
    );
}

async fn send(appender: Appender, sender: usize, count: usize) -> Vec<Duration> {
    let mut latencies = Vec::with_capacity(count);
    for number in 0..count {
        let chat = ChatId::new(1 + (sender * 7 + number) as u64 % 1_000).unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let begin = Instant::now();
        appender.append(chat, &message(), deadline).await.unwrap();
        latencies.push(begin.elapsed());
    }
    latencies
}

async fn tail(server: &Server, nats: &Nats) {
    let (begin, cpu, server_cpu) = (Instant::now(), cpu(std::process::id()), cpu(server.pid()));
    let mut tail =
        Tail::open(nats, Partition::FIRST, Position::default(), Arc::new(Nothing), TailSettings::default());
    let (mut count, mut batches) = (0, 0);
    while count < TAIL_EVENTS {
        if let TailItem::Batch(entries) = tail.next().await {
            count += entries.len() as u64;
            batches += 1;
        }
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    println!(
        "{:>6} {rate:>13.0}                     {:.2}, {:.2}   (batches of {})",
        "",
        each(cpu, std::process::id(), count as usize),
        each(server_cpu, server.pid(), count as usize),
        count / batches,
    );
}

fn message() -> Event {
    Event {
        actor: UserId::new(7).unwrap(),
        device: "web:3f2a".to_owned(),
        uuid: Uuid::now_v7(),
        fact: Fact::MessageSent(MessageSent { body: "x".repeat(100), reply_to: None, mentions: Vec::new() }),
        unique_as_of: None,
    }
}

struct Nothing;

impl Known for Nothing {
    fn at_or_below(&self, _: Seq) -> Recall<'_> {
        Box::pin(async { Ok(None) })
    }
}

/// User and system time of a process so far.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn each(before: Duration, pid: u32, count: usize) -> f64 {
    (cpu(pid) - before).as_secs_f64() * 1e6 / count as f64
}
