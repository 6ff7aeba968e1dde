//! Connect storms do not load Postgres. A gateway serves reconnects from its memory, and a gateway that has just
//! started loads the missing users in batches.

use std::time::{Duration, Instant};

use loadtest::{client::socket::Connect, provision::Account};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use crate::support::{
    cluster::{Build, Cluster, open_live},
    wait::secs,
};

const USERS: usize = 100;
/// Each user is in this many chats, and each chat has as many members.
const CHATS_PER_USER: usize = 20;
const RECONNECTS: usize = 1_000;
/// Reconnects for each transaction that they may cause.
const PER_TRANSACTION: f64 = 10.0;
/// Postgres's backends publish their counters when they have been idle for ten seconds.
const PUBLISHED: Duration = secs(11);

/// The transactions of one database, counted by Postgres, seen from another database.
struct Transactions {
    client: Client,
    database: String,
}

impl Transactions {
    async fn of(cluster: &Cluster) -> Self {
        let mut config: tokio_postgres::Config = cluster.env("MT_POSTGRES_URL").parse().unwrap();
        let database = config.get_dbname().unwrap().to_owned();
        let (client, connection) = config.dbname("postgres").connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        Self { client, database }
    }

    /// All so far. Takes as long as Postgres takes to know.
    async fn count(&self) -> (f64, Instant) {
        tokio::time::sleep(PUBLISHED).await;
        let count = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1";
        let row = self.client.query_one(count, &[&self.database]).await.unwrap();
        (row.get::<_, i64>(0) as f64, Instant::now())
    }
}

/// All at once reconnect, again and again, with the cursor of the time before.
async fn storm(cluster: &Cluster, accounts: &[Account], cursors: &mut [String]) {
    let mut devices = JoinSet::new();
    for (at, account) in accounts.iter().enumerate() {
        let (connect, mut cursor) = (cluster.connect(0, account), cursors[at].clone());
        devices.spawn(async move {
            for _ in 0..RECONNECTS / USERS {
                cursor = reconnect(&connect, &cursor).await;
            }
            (at, cursor)
        });
    }
    while let Some(done) = devices.join_next().await {
        let (at, cursor) = done.unwrap();
        cursors[at] = cursor;
    }
}

async fn reconnect(connect: &Connect, cursor: &str) -> String {
    let (socket, cursor) = open_live(&connect.clone().with("cursor", cursor)).await;
    socket.close().await;
    cursor
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reconnects_are_a_few_transactions() {
    let mut cluster = Build::new("storm").presence().start().await;
    let accounts = cluster.accounts(USERS).await;
    for first in 0..USERS {
        let members: Vec<&Account> =
            (0..CHATS_PER_USER).map(|nth| &accounts[(first + nth) % USERS]).collect();
        cluster.group(&members).await;
    }
    let mut cursors = Vec::new();
    for account in &accounts {
        let (socket, cursor) = cluster.live(0, account).await;
        socket.close().await;
        cursors.push(cursor);
    }

    let transactions = Transactions::of(&cluster).await;
    let (before, since) = transactions.count().await;
    let (idle, until) = transactions.count().await;
    // What the services do by themselves; the bound below leaves room for its swing.
    let per_s = (idle - before) / (until - since).as_secs_f64();

    storm(&cluster, &accounts, &mut cursors).await;
    let (warm, warm_at) = transactions.count().await;
    cluster.restart_gateway(0).await;
    storm(&cluster, &accounts, &mut cursors).await;
    let (cold, cold_at) = transactions.count().await;

    for (kind, spent, took) in
        [("warm", warm - idle, warm_at - until), ("cold", cold - warm, cold_at - warm_at)]
    {
        let caused = spent - per_s * took.as_secs_f64();
        println!(
            "{kind}: {spent} transactions in {took:?}, idle {per_s:.2}/s, caused by reconnects: {caused:.0}"
        );
        assert!(
            caused <= RECONNECTS as f64 / PER_TRANSACTION,
            "{kind}: {caused} transactions, idle {per_s}/s"
        );
    }
}
