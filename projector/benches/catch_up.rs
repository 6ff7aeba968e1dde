//! How fast a projector that was down catches up: `cargo bench -p projector`.
//!
//! Fills a log on private servers, then projects it from nothing. `MT_BENCH_EVENTS` and `MT_BENCH_CHATS` change the
//! size; every message goes to a random direct chat, which is the worst case: hardly two events of a batch share one.
//! Each user is in some twenty chats. Afterwards the reads of a gateway are timed on what was projected.

#![allow(clippy::disallowed_methods, reason = "a benchmark's tasks end with its runtime")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use projector::{config::ProjectorSettings, metrics::Metrics, partition::Projector};
use prometheus_client::registry::Registry;
use shared::{
    event::{ChatCreated, Event, Fact, History, MemberRole, MessageSent},
    id::{ChatId, Seq, UserId},
    permission::{ChatType, Role},
};
use sql::PageFrom;
use streams::{Appender, Nats, NatsSettings, Partition};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use xtask::testing::Isolated;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (events, chats) = (setting("MT_BENCH_EVENTS", 200_000), setting("MT_BENCH_CHATS", 5_000));
    let corner = Isolated::new("catch_up")?;
    let nats_settings = NatsSettings {
        nats_url: corner.nats_url().to_owned(),
        stream_prefix: corner.stream_prefix().to_owned(),
        ..NatsSettings::default()
    };
    let nats = Nats::connect(&nats_settings, "bench").await?;
    streams::stream::apply(&nats).await?;
    fill(&nats, events, chats).await?;

    let sql = sql::SqlSettings {
        postgres_url: corner.postgres_url(),
        postgres_pool: 4,
        postgres_timeout_ms: 10_000,
    };
    let db = sql::Db::new(&sql, "bench")?;
    let settings = Arc::new(ProjectorSettings {
        batch: setting("MT_PROJECTOR_BATCH", 2_000) as u32,
        interval_ms: 10,
        cache_members: 2_000_000,
    });
    let metrics = Metrics::new(&mut Registry::default());
    let projector = Projector {
        nats: nats.clone(),
        db: db.clone(),
        metrics: metrics.clone(),
        settings,
        rest: Arc::default(),
    };
    let stop = CancellationToken::new();
    let last = nats.bounds(Partition::FIRST).await?.last;
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let running = tokio::spawn(projector.run(Partition::FIRST, stop.clone()));
    let mut shown = Instant::now();
    while metrics.checkpoint_seq.get() < last.get() {
        tokio::time::sleep(Duration::from_millis(2)).await;
        if shown.elapsed() > Duration::from_secs(1) {
            shown = Instant::now();
            println!("  {} of {last}", metrics.checkpoint_seq.get());
        }
    }
    let (took, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let total = last.get() as f64;
    println!(
        "caught up {total} events over {chats} chats in {took:.2} s: {:.0} events/s, {:.0} events a batch, {:.1} µs of the projector's CPU an event",
        total / took,
        total / metrics.batches.get() as f64,
        cpu * 1e6 / total,
    );
    reads(&db, last, chats).await?;
    stop.cancel();
    running.await?;
    Ok(())
}

/// The members of a chat: two different of `chats / 10` users.
fn pair(chat: u64, chats: u64) -> [UserId; 2] {
    let users = (chats / 10).max(2);
    let one = chat % users;
    let other = (one + 1 + (chat / users * 7 + chat) % (users - 1)) % users;
    [user(one + 1), user(other + 1)]
}

async fn timed<T>(
    what: &str,
    rounds: u64,
    work: impl AsyncFn(u64) -> Result<T, sql::Error>,
) -> anyhow::Result<()> {
    work(0).await?;
    let began = Instant::now();
    for round in 1..=rounds {
        work(round).await?;
    }
    println!("{what}: {:.2} ms", began.elapsed().as_secs_f64() * 1e3 / rounds as f64);
    Ok(())
}

async fn reads(db: &sql::Db, last: Seq, chats: u64) -> anyhow::Result<()> {
    let users = (chats / 10).max(2);
    let who = |round: u64| user(round * 31 % users + 1);
    let recent = |back: u64| Seq(last.get().saturating_sub(back));
    timed("list of 50 chats", 200, async |round| db.chats(who(round), None, 50, 1 << 20).await).await?;
    timed("history, 50 messages", 200, async |round| {
        let chat = round * 17 % chats + 1;
        db.history(pair(chat, chats)[0], chat_id(chat), PageFrom::Before(Seq(u64::MAX)), 50, 1 << 20).await
    })
    .await?;
    timed("replay of the last 10,000 events", 200, async |round| {
        db.replay(who(round), recent(10_000), last, 500, 1 << 20).await
    })
    .await?;
    timed("memberships of 512 users", 20, async |round| {
        let ids: Vec<_> = (0..512).map(|user| who(round * 512 + user)).collect();
        db.memberships_of(&ids, recent(100_000), 0).await
    })
    .await?;
    timed("states of 512 chats", 20, async |round| {
        let ids: Vec<_> = (0..512).map(|chat| chat_id((round * 512 + chat) % chats + 1)).collect();
        db.chat_states(&ids, recent(100_000)).await
    })
    .await?;
    timed("identity of an event", 200, async |round| db.known_at_or_below(0, recent(round * 997)).await).await
}

fn chat_id(id: u64) -> ChatId {
    ChatId::new(id).expect("ids count from 1")
}

async fn fill(nats: &Nats, events: u64, chats: u64) -> anyhow::Result<()> {
    let appender = Appender::start(nats);
    let began = Instant::now();
    let created = (1..=chats).map(|chat| {
        let pair = pair(chat, chats);
        let members = pair.map(|user_id| MemberRole { user_id, role: Role::Member });
        let fact = ChatCreated {
            chat_type: ChatType::Direct,
            title: None,
            history: History::All,
            members: members.to_vec(),
        };
        (chat, pair[0], Fact::ChatCreated(fact))
    });
    let sent = (0..events).map(|_| {
        let chat = rand::random_range(1..=chats);
        let actor = pair(chat, chats)[rand::random_range(0..2)];
        let body = "a message of a usual length, about fifty bytes long".to_owned();
        (chat, actor, Fact::MessageSent(MessageSent { body, reply_to: None, mentions: Vec::new() }))
    });
    let facts: Vec<_> = created.chain(sent).collect();
    stream::iter(facts)
        .map(|(chat, actor, fact)| {
            let appender = appender.clone();
            async move {
                let chat = chat_id(chat);
                let event =
                    Event { actor, device: "web".to_owned(), uuid: Uuid::now_v7(), fact, unique_as_of: None };
                let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
                appender.append(chat, &event, deadline).await.map_err(anyhow::Error::from)
            }
        })
        // In order per lane: a chat's creation is far ahead of its messages.
        .buffer_unordered(256)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    println!("filled the log: {:.0} appends/s", (events + chats) as f64 / began.elapsed().as_secs_f64());
    Ok(())
}

fn user(id: u64) -> UserId {
    UserId::new(id).expect("ids count from 1")
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    // After the name and the state (which is no number): fields 14 and 15 of proc(5), in ticks of 10 ms.
    fields.get(10).zip(fields.get(11)).map_or(0.0, |(user, system)| (user + system) / 100.0)
}
