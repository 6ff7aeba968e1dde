//! A leader that is cut off from its followers and not from its clients: it goes on answering, and proves nothing.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use shared::{
    event::Event,
    id::{Position, Seq},
};
use streams::{Appender, Barrier, Nats, NatsSettings, Scan, Tail, TailItem, TailSettings};
use tokio::task::JoinSet;
use uuid::Uuid;
use xtask::servers;

use crate::{
    P, append_many, chat, cluster::leader, eventually, message, proxy::Proxy, server::Server, soon,
    tail::Ring, within,
};

/// How soon after the election of another leader everything works again.
const RECOVERY: Duration = Duration::from_secs(2);
const BETWEEN_APPENDS: Duration = Duration::from_millis(50);
const GLANCE: Duration = Duration::from_millis(100);

/// The connections between the servers of a cluster.
struct Routes {
    ways: Vec<Way>,
}

struct Way {
    from: usize,
    to: usize,
    proxy: Proxy,
}

impl Routes {
    /// Three servers that reach each other only through proxies.
    async fn between_proxies() -> (Vec<Server>, Self) {
        let ports: Vec<u16> = (0..3).map(|_| servers::port::choose(None).unwrap()).collect();
        let mut routes = Self { ways: Vec::new() };
        for from in 0..ports.len() {
            for (to, port) in ports.iter().enumerate().filter(|(to, _)| *to != from) {
                let proxy = Proxy::start(format!("127.0.0.1:{port}")).await;
                routes.ways.push(Way { from, to, proxy });
            }
        }
        let configs = ports.iter().enumerate().map(|(from, port)| {
            let ways = routes.ways.iter().filter(|way| way.from == from);
            let urls: Vec<String> = ways.map(|way| way.proxy.url()).collect();
            // What servers tell each other of their addresses would lead past the proxies.
            format!(
                "cluster {{ name: c, listen: \"127.0.0.1:{port}\", advertise: \"127.0.0.1:1\", routes: [{}] }}",
                urls.join(", ")
            )
        });
        let configs: Vec<String> = configs.collect();
        let launch = move || Server::launch_together(configs);
        (tokio::task::spawn_blocking(launch).await.unwrap(), routes)
    }

    /// Whether one server hears nothing of the others, nor they of it. Clients reach all of them.
    fn isolate(&self, server: usize, isolated: bool) {
        for way in self.ways.iter().filter(|way| way.from == server || way.to == server) {
            way.proxy.stall(isolated);
        }
    }
}

/// A client that begins at this server, and learns of the others there.
async fn client_of(server: &Server) -> Nats {
    let settings = NatsSettings { nats_url: server.url(), replicas: 3, ..NatsSettings::default() };
    let nats = Nats::connect(&settings, "test").await.unwrap();
    eventually("the connection", async || nats.is_connected()).await;
    nats
}

/// Events that were read or acked, and when.
type Stamped = Arc<Mutex<Vec<(Instant, Uuid)>>>;

fn read(nats: &Nats) -> (Stamped, tokio::task::JoinHandle<()>) {
    let (seen, known) = (Stamped::default(), Arc::new(Ring::default()));
    let mut tail = Tail::open(nats, P, Position::default(), known.clone(), TailSettings::default());
    let sees = Arc::clone(&seen);
    let reading = tokio::spawn(async move {
        loop {
            match tail.next().await {
                TailItem::Batch(entries) => {
                    known.keep(&entries);
                    let uuids = entries.iter().map(|entry| Event::decode(&entry.payload).unwrap().uuid);
                    sees.lock().extend(uuids.map(|uuid| (Instant::now(), uuid)));
                }
                TailItem::LostTail { cut } => panic!("no event was lost: {cut:?}"),
                _ => {}
            }
        }
    });
    (seen, reading)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_go_on_when_a_leader_is_cut_off_from_its_followers_alone() {
    let (cluster, routes) = Routes::between_proxies().await;
    let settings = NatsSettings { replicas: 3, ..cluster[0].settings() };
    let nats = cluster[0].nats_with(settings).await;
    append_many(&Appender::start(&nats), 10).await;
    let apart = leader(&nats, &cluster).await;
    let witness = client_of(&cluster[(apart + 1) % 3]).await;

    let nats = client_of(&cluster[apart]).await;
    let appender = Appender::start(&nats);
    let barrier = Barrier::start(&nats, &appender, P);
    append_many(&appender, 10).await;
    let (seen, reading) = read(&nats);
    eventually("the tail to have all", async || seen.lock().len() == 20).await;

    let cut_at = Instant::now();
    routes.isolate(apart, true);
    let (mut appends, acked) = (JoinSet::new(), Stamped::default());
    let talk = async {
        let mut beat = tokio::time::interval(BETWEEN_APPENDS);
        loop {
            beat.tick().await;
            let (appender, acked) = (appender.clone(), Arc::clone(&acked));
            appends.spawn(async move {
                let event = message("beside the cut");
                if appender.append(chat(1), &event, soon()).await.is_ok() {
                    acked.lock().push((Instant::now(), event.uuid));
                }
            });
        }
    };
    let elected = async {
        // A question that is lost while nobody leads is not waited for.
        let other = async || {
            let asked = tokio::time::timeout(GLANCE, witness.leader(P)).await;
            matches!(asked, Ok(Ok(Some(name))) if !cluster[apart].is_called(&name))
        };
        eventually("another leader", other).await;
        let elected_at = Instant::now();
        let proven = async {
            while barrier.last_seq().await.is_err() {}
            Instant::now()
        };
        // A consumer needs the leader of the servers, too, which is elected by itself.
        let governed = async {
            while !matches!(tokio::time::timeout(GLANCE, witness.ping()).await, Ok(Ok(()))) {}
            Instant::now()
        };
        let (proven_at, governed_at, ..) = tokio::join!(
            within(20, "a barrier", proven),
            within(20, "a leader of the servers", governed),
            eventually("an ack", async || !acked.lock().is_empty()),
            eventually("a new event", async || seen.lock().len() > 20),
        );
        (elected_at, proven_at, governed_at)
    };
    let (elected_at, proven_at, governed_at) = tokio::select! {
        never = talk => never,
        elected = elected => elected,
    };
    appends.join_all().await;
    let acked = acked.lock().clone();
    let acked_at = acked.iter().map(|(at, _)| *at).min().expect("an acked append");
    let first_new = seen.lock()[20..].iter().map(|(at, _)| *at).min().expect("an event");
    for (what, at, possible_at) in
        [("acked", acked_at, elected_at), ("proven", proven_at, elected_at), ("seen", first_new, governed_at)]
    {
        let late = at.saturating_duration_since(possible_at);
        println!("{what} {late:?} after the election, which took {:?}", possible_at - cut_at);
        assert!(late <= RECOVERY, "{what} {late:?} after the election");
    }

    // The deposed leader comes back, and every acked event is there, once.
    routes.isolate(apart, false);
    within(30, "an append", appender.append(chat(1), &message("after"), soon())).await.unwrap();
    // The servers elect once more, and until then the deposed one may be the one that answers.
    eventually("every acked event in the log, and read by the tail", async || {
        let Some(all) = uuids(&witness).await else { return false };
        let once: HashSet<Uuid> = all.iter().copied().collect();
        assert_eq!(once.len(), all.len(), "an event is in the log twice");
        let read: Vec<Uuid> = seen.lock().iter().map(|(_, uuid)| *uuid).collect();
        acked.iter().all(|(_, uuid)| once.contains(uuid)) && read == all
    })
    .await;
    reading.abort();
}

/// Everything in the log, as far as it can be read now.
async fn uuids(nats: &Nats) -> Option<Vec<Uuid>> {
    let last = nats.bounds(P).await.ok()?.last;
    let mut scan = Scan::new(nats, P, Seq::ZERO, last);
    let mut uuids = Vec::new();
    while let Some(batch) = scan.next().await.ok()? {
        uuids.extend(batch.iter().map(|entry| Event::decode(&entry.payload).unwrap().uuid));
    }
    Some(uuids)
}
