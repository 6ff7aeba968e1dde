use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;
use shared::id::{EventId, Position, Seq};
use streams::{Appender, Entry, Known, Nats, NatsSettings, Tail, TailItem, TailSettings, tail::Recall};
use tokio::time::{Instant, sleep};

use crate::{P, append_many, chat, log, message, proxy::Proxy, server::Server, soon, within};

/// Remembers every event, as a ring does.
#[derive(Default)]
pub(crate) struct Ring(Mutex<BTreeMap<Seq, EventId>>);

impl Ring {
    pub(crate) fn keep(&self, entries: &[Entry]) {
        self.0.lock().extend(entries.iter().map(|entry| (entry.seq, entry.id)));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    fn cut_after(&self, seq: Seq) {
        self.0.lock().split_off(&seq.next());
    }
}

impl Known for Ring {
    fn at_or_below(&self, seq: Seq) -> Recall<'_> {
        let found = self.0.lock().range(..=seq).next_back().map(|(seq, id)| Position { seq: *seq, id: *id });
        Box::pin(async move { Ok(found) })
    }
}

fn quick() -> TailSettings {
    TailSettings {
        heartbeat: Duration::from_millis(200),
        check_interval: Duration::from_millis(200),
        behind: Duration::from_millis(300),
        ..TailSettings::default()
    }
}

fn open(nats: &Nats, ring: &Arc<Ring>, settings: TailSettings) -> Tail {
    let known: Arc<dyn Known> = ring.clone();
    Tail::open(nats, P, Position::default(), known, settings)
}

/// Reads until `count` events are in the ring, and checks that none is missing or double.
async fn read_until(tail: &mut Tail, ring: &Ring, count: usize) {
    within(30, "the tail", async {
        while ring.len() < count {
            read_one(tail, ring).await;
        }
    })
    .await;
}

async fn read_one(tail: &mut Tail, ring: &Ring) -> TailItem {
    let before = tail.position().seq;
    let item = tail.next().await;
    if let TailItem::Batch(entries) = &item {
        assert!(entries.len() <= 256 && !entries.is_empty());
        for (offset, entry) in (1..).zip(entries) {
            assert_eq!(entry.seq.get(), before.get() + offset, "dense");
        }
        ring.keep(entries);
    }
    item
}

#[tokio::test]
async fn reads_what_was_and_what_comes() {
    let server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    append_many(&appender, 1_000).await;
    let ring = Arc::new(Ring::default());
    let mut tail = open(&nats, &ring, quick());
    read_until(&mut tail, &ring, 1_000).await;
    let (_, ()) = tokio::join!(append_many(&appender, 500), read_until(&mut tail, &ring, 1_500));
    appender.append_noop(P, soon()).await.unwrap();
    loop {
        if let TailItem::Batch(entries) = read_one(&mut tail, &ring).await {
            assert_eq!(entries[0].chat, None, "the no-op is of no chat");
            break;
        }
    }
    assert!(matches!(within(2, "a heartbeat", tail.next()).await, TailItem::Quiet));
    assert_eq!(tail.stats().attaches.load(Relaxed), 1);
    assert_eq!(tail.stats().position.load(Relaxed), 1_501);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_killed_servers_without_gap_or_double() {
    let mut server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    let load = tokio::spawn({
        let appender = appender.clone();
        async move { append_many(&appender, 6_000).await }
    });
    let ring = Arc::new(Ring::default());
    let mut tail = open(&nats, &ring, quick());
    for round in 1..=3 {
        read_until(&mut tail, &ring, round * 1_000).await;
        server.kill9();
        server.restart();
    }
    read_until(&mut tail, &ring, 6_000).await;
    load.await.unwrap();
    assert!(tail.stats().attaches.load(Relaxed) >= 4);
    assert_eq!(tail.stats().lost_tails.load(Relaxed), 0);
    let ids: BTreeMap<_, _> = log(&nats).await.iter().map(|entry| (entry.seq, entry.id)).collect();
    assert_eq!(ids, *ring.0.lock());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_tail_is_found_with_the_right_cut() {
    let mut server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    append_many(&appender, 700).await;
    server.kill9();
    let old = server.copy_store();
    server.restart();
    append_many(&appender, 600).await;
    let ring = Arc::new(Ring::default());
    let mut tail = open(&nats, &ring, quick());
    read_until(&mut tail, &ring, 1_300).await;

    server.kill9();
    server.put_back(&old);
    server.restart();
    // Others write before the loss is noticed: at the position stands another event.
    append_many(&appender, 800).await;
    let cut = within(10, "the discovery", async {
        loop {
            if let TailItem::LostTail { cut } = tail.next().await {
                break cut;
            }
        }
    })
    .await;
    let cut = cut.unwrap();
    assert_eq!(cut.seq, Seq(700));
    // Until the reader has decided, the tail stands still and says so again.
    assert!(matches!(within(5, "the answer", tail.next()).await, TailItem::LostTail { .. }));
    ring.cut_after(cut.seq);
    tail.restart_from(cut);
    read_until(&mut tail, &ring, 1_500).await;
    let ids: BTreeMap<_, _> = log(&nats).await.iter().map(|entry| (entry.seq, entry.id)).collect();
    assert_eq!(ids, *ring.0.lock());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_ends_before_the_position_has_lost_its_tail() {
    let mut server = Server::start();
    let nats = server.nats().await;
    server.kill9();
    let empty = server.copy_store();
    server.restart();
    let appender = Appender::start(&nats);
    append_many(&appender, 50).await;
    let ring = Arc::new(Ring::default());
    let mut tail = open(&nats, &ring, quick());
    read_until(&mut tail, &ring, 50).await;
    server.kill9();
    server.put_back(&empty);
    server.restart();
    within(10, "the discovery", async {
        loop {
            if let TailItem::LostTail { cut } = tail.next().await {
                break assert_eq!(cut, None);
            }
        }
    })
    .await;
    ring.cut_after(Seq::ZERO);
    tail.restart_from(Position::default());
    append_many(&appender, 10).await;
    read_until(&mut tail, &ring, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_noticed_while_attached() {
    let mut server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    append_many(&appender, 20).await;
    let ring = Arc::new(Ring::default());
    // As if the reader remembered another history of the same length.
    let mut tail = open(&nats, &ring, quick());
    read_until(&mut tail, &ring, 20).await;
    tail.restart_from(Position { seq: Seq(20), id: EventId(1) });
    ring.0.lock().insert(Seq(20), EventId(1));
    let item = within(5, "the discovery", tail.next()).await;
    assert!(matches!(item, TailItem::LostTail { cut: Some(Position { seq: Seq(19), .. }) }), "{item:?}");
    server.kill9();
}

#[tokio::test]
async fn a_slow_reader_loses_nothing_and_slows_the_server() {
    let server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    let ring = Arc::new(Ring::default());
    let mut tail = open(&nats, &ring, quick());
    read_one(&mut tail, &ring).await;
    // 60 MB: more than the window of flow control, far more than the buffers of two sockets.
    let body = "x".repeat(10_000);
    let load = async {
        use futures_util::{StreamExt, stream};
        stream::iter(0..6_000)
            .for_each_concurrent(64, async |number| {
                appender.append(chat(1 + number % 9), &message(body.clone()), soon()).await.unwrap();
            })
            .await;
    };
    within(60, "the load", load).await;
    sleep(Duration::from_secs(1)).await;
    read_until(&mut tail, &ring, 6_000).await;
    let attaches = tail.stats().attaches.load(Relaxed);
    assert!(attaches <= 3, "{attaches}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_is_noticed_and_read_on() {
    let mut server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    append_many(&appender, 10).await;
    let ring = Arc::new(Ring::default());
    let mut tail = open(&nats, &ring, quick());
    read_until(&mut tail, &ring, 10).await;
    server.stop();
    let wait = tokio::time::timeout(Duration::from_secs(1), async {
        loop {
            assert!(!matches!(tail.next().await, TailItem::LostTail { .. } | TailItem::Batch(_)));
        }
    });
    assert!(wait.await.is_err());
    server.resume();
    append_many(&appender, 10).await;
    read_until(&mut tail, &ring, 20).await;
    assert!(tail.stats().attaches.load(Relaxed) >= 2);
}

#[tokio::test]
async fn a_cut_connection_is_noticed_and_read_on() {
    let server = Server::start();
    let proxy = Proxy::start(server.address()).await;
    let direct = server.nats().await;
    let appender = Appender::start(&direct);
    let nats = server.nats_with(NatsSettings { nats_url: proxy.url(), ..server.settings() }).await;
    let ring = Arc::new(Ring::default());
    let mut tail = open(&nats, &ring, quick());
    append_many(&appender, 100).await;
    read_until(&mut tail, &ring, 100).await;
    proxy.stall(true);
    append_many(&appender, 100).await;
    let stalled = tokio::time::timeout(Duration::from_secs(1), async {
        while ring.len() < 200 {
            read_one(&mut tail, &ring).await;
        }
    });
    assert!(stalled.await.is_err());
    proxy.stall(false);
    read_until(&mut tail, &ring, 200).await;
}

#[tokio::test]
async fn a_tail_behind_what_is_known_to_be_stored_is_replaced() {
    let server = Server::start();
    let nats = server.nats().await;
    let ring = Arc::new(Ring::default());
    let mut tail = open(&nats, &ring, quick());
    assert!(matches!(tail.next().await, TailItem::Attached { from: Seq(0) }));
    // Nothing is there, so nothing can come: the tail only believes that it is behind.
    tail.expect(Seq(1));
    let replaced = Instant::now() + Duration::from_millis(300);
    within(5, "a new consumer", async { while !matches!(tail.next().await, TailItem::Attached { .. }) {} })
        .await;
    assert!(Instant::now() >= replaced);
    Appender::start(&nats).append(chat(1), &message("x"), soon()).await.unwrap();
    read_until(&mut tail, &ring, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_impatient_caller_does_not_set_the_tail_back() {
    let mut server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    let ring = Arc::new(Ring::default());
    let mut tail = open(&nats, &ring, quick());
    let read_impatiently = async |tail: &mut Tail, count| {
        within(20, "the tail", async {
            while ring.len() < count {
                drop(tokio::time::timeout(Duration::from_millis(3), read_one(tail, &ring)).await);
            }
        })
        .await;
    };
    append_many(&appender, 100).await;
    read_impatiently(&mut tail, 100).await;
    server.kill9();
    server.restart();
    append_many(&appender, 100).await;
    read_impatiently(&mut tail, 200).await;
    // Silence is noticed, too.
    server.stop();
    let attaches = tail.stats().attaches.load(Relaxed);
    let end = Instant::now() + Duration::from_millis(600);
    while Instant::now() < end {
        drop(tokio::time::timeout(Duration::from_millis(3), read_one(&mut tail, &ring)).await);
    }
    server.resume();
    append_many(&appender, 100).await;
    read_impatiently(&mut tail, 300).await;
    assert!(tail.stats().attaches.load(Relaxed) > attaches);
}

#[tokio::test]
async fn what_is_no_longer_kept_is_reported() {
    let server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    append_many(&appender, 10).await;
    // Retention by age is the only way in which a log forgets; a limit on messages does the same at once.
    forget_all_but(&server, 4).await;
    let ring = Arc::new(Ring::default());
    let mut tail = open(&nats, &ring, quick());
    let item = within(5, "the report", tail.next()).await;
    assert!(matches!(item, TailItem::Expired { first: Seq(7) }), "{item:?}");
    tail.restart_from(Position { seq: Seq(6), id: EventId(0) });
    within(5, "the rest", async {
        while tail.position().seq < Seq(10) {
            tail.next().await;
        }
    })
    .await;
}

async fn forget_all_but(server: &Server, count: i64) {
    let js = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let mut config = js.get_stream("CHAT_0").await.unwrap().cached_info().config.clone();
    config.discard = async_nats::jetstream::stream::DiscardPolicy::Old;
    config.max_messages = count;
    js.update_stream(config).await.unwrap();
}
