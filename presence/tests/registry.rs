//! The registry against a real Redis: what gateways report, and what is announced of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use fred::{
    clients::Client,
    interfaces::{ClientLike, KeysInterface},
    prelude::{Builder, Config},
};
use presence::{
    redis::{Redis, RedisSettings},
    registry::{PartTaken, Registry, Reported},
};
use shared::id::UserId;
use streams::signal::{Connection, Connections, PresenceState, Snapshot};
use tokio::time::{Instant, sleep};
use uuid::Uuid;
use xtask::testing::Isolated;

const HYSTERESIS_MS: u64 = 400;
const SILENCE_MS: u64 = 600;
use PresenceState::{Away, Offline, Online};

/// A corner of Redis, and the clock of a test.
struct Corner {
    registry: Registry,
    client: Client,
    prefix: String,
    _isolated: Isolated,
}

impl Corner {
    async fn new(name: &str) -> Self {
        let isolated = Isolated::without_database(name).unwrap();
        let settings = RedisSettings {
            redis_url: isolated.redis_url().to_owned(),
            redis_prefix: isolated.redis_prefix(),
        };
        let registry = Registry::new(Redis::connect(&settings).unwrap(), HYSTERESIS_MS);
        let client = Builder::from_config(Config::from_url(isolated.redis_url()).unwrap()).build().unwrap();
        client.init().await.unwrap();
        let corner = Self { registry, client, prefix: isolated.redis_prefix(), _isolated: isolated };
        corner.steady().await;
        corner
    }

    /// Looks often enough that what is due is decided.
    async fn steady(&self) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(SILENCE_MS + 50) {
            assert_eq!(self.news().await, []);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What is announced now, ascending by user.
    async fn news(&self) -> Vec<(u64, PresenceState)> {
        self.registry.decide_due(SILENCE_MS).await.unwrap();
        let news = self.registry.claim().await.unwrap();
        self.registry.done(&news).await.unwrap();
        let mut news: Vec<_> = news.iter().map(|news| (news.user.get(), news.announced.state)).collect();
        news.sort_unstable_by_key(|(user, _)| *user);
        news
    }

    /// Waits for the next news and says how long it took.
    async fn next_news(&self) -> (Vec<(u64, PresenceState)>, Duration) {
        let start = Instant::now();
        loop {
            let news = self.news().await;
            if !news.is_empty() {
                return (news, start.elapsed());
            }
            assert!(start.elapsed() < Duration::from_secs(10), "no news");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Nothing is announced for longer than anything could be held back.
    async fn no_news(&self) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(2 * HYSTERESIS_MS) {
            assert_eq!(self.news().await, []);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Redis loses all that it holds for this test.
    async fn wipe(&self) {
        let keys: Vec<String> = {
            let reply: Vec<String> =
                self.client.custom(fred::cmd!("KEYS"), vec![format!("{}*", self.prefix)]).await.unwrap();
            reply
        };
        assert!(!keys.is_empty());
        let _deleted: u64 = self.client.del(keys).await.unwrap();
    }
}

/// A gateway as presence knows it.
struct Gateway {
    id: Uuid,
    next: u64,
}

impl Gateway {
    fn new() -> Self {
        Self { id: Uuid::new_v4(), next: 0 }
    }

    fn report(&mut self, came: &[&Connection], went: &[&Connection]) -> Connections {
        self.next += 1;
        let all = |connections: &[&Connection]| connections.iter().map(|it| (*it).clone()).collect();
        Connections { gateway: self.id, report: self.next - 1, came: all(came), went: all(went) }
    }

    fn snapshot(&self, part: u32, parts: u32, connections: &[&Connection]) -> Snapshot {
        let connections = connections.iter().map(|it| (*it).clone()).collect();
        Snapshot { gateway: self.id, report: self.next - 1, part, parts, connections }
    }
}

fn session(user: u64) -> Connection {
    let user = UserId::new(user).unwrap();
    Connection { user, session: Uuid::now_v7(), device: "web:1".into(), since_ms: 1, away: false }
}

fn away(connection: &Connection) -> Connection {
    Connection { away: true, ..connection.clone() }
}

/// A gateway whose first snapshot is taken, and its first report.
async fn settled(corner: &Corner) -> Gateway {
    let mut gateway = Gateway::new();
    let first = gateway.report(&[], &[]);
    assert_eq!(corner.registry.report(&first).await.unwrap(), Reported::Applied);
    let whole = corner.registry.snapshot(&gateway.snapshot(0, 1, &[])).await.unwrap();
    assert_eq!(whole, PartTaken::Whole);
    gateway
}

#[tokio::test]
async fn coming_is_news_at_once_and_leaving_after_the_hysteresis() {
    let corner = Corner::new("hysteresis").await;
    let mut gateway = settled(&corner).await;
    let phone = session(1);
    corner.registry.report(&gateway.report(&[&phone], &[])).await.unwrap();
    assert_eq!(corner.news().await, [(1, Online)]);
    corner.registry.report(&gateway.report(&[], &[&phone])).await.unwrap();
    let (news, after) = corner.next_news().await;
    assert_eq!(news, [(1, Offline)]);
    assert!(after >= Duration::from_millis(HYSTERESIS_MS - 50), "{after:?}");
    corner.no_news().await;
}

#[tokio::test]
async fn a_flap_is_no_news() {
    let corner = Corner::new("flap").await;
    let (mut here, mut there) = (settled(&corner).await, settled(&corner).await);
    let first = session(1);
    corner.registry.report(&here.report(&[&first], &[])).await.unwrap();
    assert_eq!(corner.news().await, [(1, Online)]);
    corner.registry.report(&here.report(&[], &[&first])).await.unwrap();
    sleep(Duration::from_millis(HYSTERESIS_MS / 3)).await;
    let second = session(1);
    corner.registry.report(&there.report(&[&second], &[])).await.unwrap();
    corner.no_news().await;
    // And in the other order: the new connection is reported before the end of the old one.
    let third = session(1);
    corner.registry.report(&here.report(&[&third], &[])).await.unwrap();
    corner.registry.report(&there.report(&[], &[&second])).await.unwrap();
    corner.no_news().await;
}

#[tokio::test]
async fn away_is_when_no_session_is_looking() {
    let corner = Corner::new("away").await;
    let mut gateway = settled(&corner).await;
    let (phone, laptop) = (session(1), session(1));
    corner.registry.report(&gateway.report(&[&phone, &laptop], &[])).await.unwrap();
    assert_eq!(corner.news().await, [(1, Online)]);
    corner.registry.report(&gateway.report(&[&away(&phone)], &[])).await.unwrap();
    assert_eq!(corner.news().await, [], "the laptop still is");
    corner.registry.report(&gateway.report(&[&away(&laptop)], &[])).await.unwrap();
    assert_eq!(corner.news().await, [(1, Away)], "said by the client, so it needs no hysteresis");
    corner.registry.report(&gateway.report(&[&phone], &[])).await.unwrap();
    assert_eq!(corner.news().await, [(1, Online)]);
    // The one that looks disconnects: held back, for it may come again.
    corner.registry.report(&gateway.report(&[], &[&phone])).await.unwrap();
    assert_eq!(corner.news().await, []);
    assert_eq!(corner.next_news().await.0, [(1, Away)]);
}

#[tokio::test]
async fn reports_take_effect_once_and_a_gap_is_noticed() {
    let corner = Corner::new("order").await;
    let mut gateway = settled(&corner).await;
    let phone = session(1);
    let came = gateway.report(&[&phone], &[]);
    let went = gateway.report(&[], &[&phone]);
    assert_eq!(corner.registry.report(&came).await.unwrap(), Reported::Applied);
    assert_eq!(corner.registry.report(&came).await.unwrap(), Reported::Known, "another instance brings it");
    assert_eq!(corner.registry.report(&went).await.unwrap(), Reported::Applied);
    assert_eq!(corner.registry.report(&came).await.unwrap(), Reported::Known, "late");
    assert_eq!(corner.news().await, [(1, Online)]);
    assert_eq!(corner.next_news().await.0, [(1, Offline)]);
    let _lost = gateway.report(&[&session(2)], &[]);
    assert_eq!(corner.registry.report(&gateway.report(&[], &[])).await.unwrap(), Reported::NeedsSnapshot);
}

#[tokio::test]
async fn a_snapshot_heals_whatever_was_missed() {
    let corner = Corner::new("snapshot").await;
    let mut gateway = settled(&corner).await;
    let (gone, stays, missed) = (session(1), session(2), session(3));
    corner.registry.report(&gateway.report(&[&gone, &stays], &[])).await.unwrap();
    assert_eq!(corner.news().await, [(1, Online), (2, Online)]);
    gateway.report(&[&missed], &[&gone]);
    let parts = [gateway.snapshot(0, 2, &[&stays]), gateway.snapshot(1, 2, &[&missed])];
    assert_eq!(corner.registry.snapshot(&parts[1]).await.unwrap(), PartTaken::Applied);
    assert_eq!(corner.registry.snapshot(&parts[1]).await.unwrap(), PartTaken::Known);
    assert_eq!(corner.news().await, [(3, Online)]);
    assert_eq!(corner.registry.snapshot(&parts[0]).await.unwrap(), PartTaken::Whole, "now it is whole");
    assert_eq!(corner.next_news().await.0, [(1, Offline)]);
    // A part that comes after the next report must not raise the dead.
    let late = gateway.snapshot(1, 3, &[&missed]);
    corner.registry.report(&gateway.report(&[], &[&missed])).await.unwrap();
    assert_eq!(corner.registry.snapshot(&late).await.unwrap(), PartTaken::Known);
    assert_eq!(corner.next_news().await.0, [(3, Offline)]);
}

#[tokio::test]
async fn the_users_of_a_silent_gateway_go_unless_they_are_elsewhere() {
    let corner = Corner::new("silent").await;
    let (mut dies, mut lives) = (settled(&corner).await, settled(&corner).await);
    let users: Vec<Connection> = (1..=500).map(session).collect();
    let elsewhere = session(7);
    corner.registry.report(&dies.report(&users.iter().collect::<Vec<_>>(), &[])).await.unwrap();
    corner.registry.report(&lives.report(&[&elsewhere], &[])).await.unwrap();
    while !corner.news().await.is_empty() {}
    let mut offline = Vec::new();
    let start = Instant::now();
    while offline.len() < 499 {
        corner.registry.report(&lives.report(&[], &[])).await.unwrap();
        corner.registry.sweep(SILENCE_MS).await.unwrap();
        let news = corner.news().await;
        assert!(news.iter().all(|(user, state)| *state == Offline && *user != 7), "{news:?}");
        assert!(news.is_empty() || start.elapsed() >= Duration::from_millis(SILENCE_MS), "too early");
        offline.extend(news);
        assert!(start.elapsed() < Duration::from_secs(10), "{} are offline", offline.len());
        sleep(Duration::from_millis(20)).await;
    }
    // It was only asleep: its next report is a gap, and its snapshot brings all back.
    assert_eq!(corner.registry.report(&dies.report(&[], &[])).await.unwrap(), Reported::NeedsSnapshot);
    corner.registry.snapshot(&dies.snapshot(0, 1, &[&users[0]])).await.unwrap();
    assert_eq!(corner.news().await, [(1, Online)]);
}

#[tokio::test]
async fn snapshots_rebuild_what_redis_lost() {
    let corner = Corner::new("wiped").await;
    let mut gateway = settled(&corner).await;
    let (stays, leaves) = (session(1), session(2));
    corner.registry.report(&gateway.report(&[&stays, &leaves], &[])).await.unwrap();
    assert_eq!(corner.news().await.len(), 2);
    corner.wipe().await;
    let report = gateway.report(&[], &[&leaves]);
    assert_eq!(
        corner.registry.report(&report).await.unwrap(),
        Reported::NeedsSnapshot,
        "a snapshot is needed"
    );
    corner.registry.snapshot(&gateway.snapshot(0, 1, &[&stays])).await.unwrap();
    assert_eq!(corner.news().await, [(1, Online)]);
    assert_eq!(corner.next_news().await.0, [(2, Offline)], "clients believed them to be online");
}

#[tokio::test]
async fn claimed_news_comes_back_until_it_is_done_and_newer_news_wins() {
    let corner = Corner::new("claims").await;
    let mut gateway = settled(&corner).await;
    let phone = session(1);
    corner.registry.report(&gateway.report(&[&phone], &[])).await.unwrap();
    let claimed = corner.registry.claim().await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(corner.registry.claim().await.unwrap(), [], "it is in somebody's hands");
    corner.registry.report(&gateway.report(&[&away(&phone)], &[])).await.unwrap();
    corner.registry.done(&claimed).await.unwrap();
    assert_eq!(corner.news().await, [(1, Away)], "the older announcement does not swallow the newer");

    corner.registry.report(&gateway.report(&[&phone], &[])).await.unwrap();
    let died_with_it = corner.registry.claim().await.unwrap();
    assert_eq!(died_with_it.len(), 1);
    let (news, after) = corner.next_news().await;
    assert_eq!(news, [(1, Online)]);
    assert!(after >= Duration::from_secs(1), "{after:?}");
}

#[tokio::test]
async fn after_a_break_nobody_is_declared_offline_for_the_silence_in_it() {
    let corner = Corner::new("break").await;
    let mut gateway = settled(&corner).await;
    let (phone, laptop) = (session(1), session(2));
    corner.registry.report(&gateway.report(&[&phone, &laptop], &[])).await.unwrap();
    assert_eq!(corner.news().await.len(), 2);
    corner.registry.report(&gateway.report(&[], &[&laptop])).await.unwrap();
    // Redis stands still, or every instance is dead: no report, no look.
    sleep(Duration::from_millis(2 * SILENCE_MS)).await;
    assert_eq!(corner.registry.sweep(SILENCE_MS).await.unwrap(), 0);
    assert_eq!(corner.news().await, []);
    let back = session(2);
    corner.registry.report(&gateway.report(&[&back], &[])).await.unwrap();
    for _ in 0..40 {
        corner.registry.report(&gateway.report(&[], &[])).await.unwrap();
        assert_eq!(corner.registry.sweep(SILENCE_MS).await.unwrap(), 0);
        assert_eq!(corner.news().await, []);
        sleep(Duration::from_millis(20)).await;
    }
}
