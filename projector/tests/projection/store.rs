//! A database and the projector's way of filling it.

use projector::{folder::Folder, projection::slices};
use shared::id::{Position, Seq};
use sql::{Checkpoint, Db, SqlSettings, projection::Writer};
use streams::Entry;
use xtask::testing::Isolated;

pub(crate) struct Store {
    pub(crate) db: Db,
    pub(crate) raw: tokio_postgres::Client,
    pub(crate) folder: Folder,
    corner: Isolated,
}

const TABLES: [&str; 10] = [
    "events",
    "revisions",
    "reactions",
    "refused",
    "dead_letters",
    "ahead",
    "chats",
    "memberships",
    "epochs",
    "read_marks",
];

impl Store {
    pub(crate) async fn open(name: &str) -> Self {
        let corner = Isolated::new(name).expect("a corner");
        let settings = SqlSettings {
            postgres_url: corner.postgres_url(),
            postgres_pool: 4,
            postgres_timeout_ms: 10_000,
        };
        let db = Db::new(&settings, "tests").expect("a pool");
        let raw = connect(&corner.postgres_url()).await;
        let folder = start(&db).await;
        Self { db, raw, folder, corner }
    }

    /// Everything as in the beginning.
    pub(crate) async fn reset(&mut self) {
        let truncate =
            format!("TRUNCATE {}; UPDATE checkpoints SET epoch = 0, seq = 0, id = 0", TABLES.join(", "));
        self.raw.batch_execute(&truncate).await.expect("truncated");
        self.restart().await;
    }

    /// Forgets what is in memory, as a projector that starts.
    pub(crate) async fn restart(&mut self) {
        self.folder = start(&self.db).await;
    }

    /// Folds a batch that follows the checkpoint.
    pub(crate) async fn apply(&mut self, entries: &[Entry]) {
        for slice in slices(entries) {
            self.folder.apply(&slice).await.expect("folded");
            assert!(slice.too_new.is_none());
        }
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        self.folder.checkpoint()
    }

    pub(crate) fn url(&self) -> String {
        self.corner.postgres_url()
    }

    pub(crate) async fn dump(&self) -> Vec<String> {
        dump(&self.raw).await
    }
}

async fn start(db: &Db) -> Folder {
    let writer = Writer::connect(db, 0).await.expect("a writer");
    Folder::new(writer, 100_000).await.expect("a checkpoint")
}

pub(crate) async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// All rows that the projection made, as text. What a closed interval says of the sender's own mark is left out: it
/// is never read, and it depends on where batches end.
pub(crate) async fn dump(client: &tokio_postgres::Client) -> Vec<String> {
    let mut rows = Vec::new();
    for table in TABLES.iter().filter(|table| !["epochs", "read_marks"].contains(table)) {
        let statement = match *table {
            "memberships" => "SELECT (to_jsonb(t) || jsonb_build_object('own_seq',
                    CASE WHEN to_seq IS NULL THEN own_seq END))::text FROM memberships t ORDER BY 1"
                .to_owned(),
            table => format!("SELECT to_jsonb(t)::text FROM {table} t ORDER BY 1"),
        };
        for row in client.query(&statement, &[]).await.expect("rows") {
            rows.push(format!("{table} {}", row.get::<_, String>(0)));
        }
    }
    rows
}

/// The position of the last entry at or below `seq`.
pub(crate) fn position(entries: &[Entry], seq: Seq) -> Position {
    entries.iter().rev().find(|entry| entry.seq <= seq).map(Entry::position).unwrap_or_default()
}
