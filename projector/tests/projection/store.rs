//! A database and the projector's way of filling it.

use projector::{
    cache::Cache,
    projection::{Keys, decode, project},
};
use shared::id::{Position, Seq};
use sql::{
    Checkpoint, Db, SqlSettings,
    projection::{Key, Writer, Written},
};
use streams::Entry;
use xtask::testing::Isolated;

pub(crate) struct Store {
    pub(crate) db: Db,
    pub(crate) raw: tokio_postgres::Client,
    pub(crate) writer: Writer,
    pub(crate) checkpoint: Checkpoint,
    cache: Cache,
    _corner: Isolated,
}

const TABLES: [&str; 9] = [
    "events",
    "revisions",
    "reactions",
    "refused",
    "dead_letters",
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
        let (raw, connection) = tokio_postgres::connect(&corner.postgres_url(), tokio_postgres::NoTls)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        let writer = Writer::connect(&db, 0).await.expect("a writer");
        Self {
            db,
            raw,
            writer,
            checkpoint: Checkpoint::default(),
            cache: Cache::new(100_000),
            _corner: corner,
        }
    }

    /// Everything as in the beginning.
    pub(crate) async fn reset(&mut self) {
        let truncate =
            format!("TRUNCATE {}; UPDATE checkpoints SET epoch = 0, seq = 0, id = 0", TABLES.join(", "));
        self.raw.batch_execute(&truncate).await.expect("truncated");
        self.checkpoint = Checkpoint::default();
        self.cache.clear();
    }

    /// Forgets what is in memory, as a projector that starts.
    pub(crate) async fn restart(&mut self) {
        self.cache.clear();
        self.checkpoint = self.writer.checkpoint().await.expect("a checkpoint");
    }

    /// Folds and writes a batch that follows the checkpoint.
    pub(crate) async fn apply(&mut self, entries: &[Entry]) {
        let last = entries.last().map(Entry::position).expect("a batch");
        let (decoded, too_new) = decode(entries);
        assert!(too_new.is_none());
        let mut stored = Keys::default();
        // The projector asks for keys only where it must; here all are asked for when a write says so.
        for attempt in 0..2 {
            self.load(entries).await;
            let keys: Vec<Key> = decoded
                .iter()
                .filter_map(|decoded| {
                    let event = decoded.event.as_ref().ok()?;
                    Some((decoded.chat, event.actor, event.uuid))
                })
                .collect();
            let has_refused =
                decoded.iter().any(|decoded| self.cache.get_mut(decoded.chat).unwrap().has_refused);
            if has_refused || attempt > 0 {
                stored = self.writer.stored_keys(&keys).await.expect("keys").into_iter().collect();
            }
            let rows = project(&mut self.cache, &decoded, &stored);
            match self.writer.write(self.checkpoint, last, &rows, 5).await.expect("written") {
                Written::Yes => {
                    self.checkpoint.position = last;
                    self.cache.trim();
                    return;
                }
                Written::DuplicateKey => self.cache.clear(),
                Written::Moved => panic!("nobody else writes"),
            }
        }
        panic!("a duplicate key that is not stored");
    }

    async fn load(&mut self, entries: &[Entry]) {
        let chats: std::collections::BTreeSet<_> = entries.iter().filter_map(|entry| entry.chat).collect();
        let unknown: Vec<_> = chats.into_iter().filter(|chat| !self.cache.contains(*chat)).collect();
        for stored in self.writer.load(&unknown).await.expect("loaded") {
            self.cache.insert(stored.chat, stored.into());
        }
    }

    pub(crate) async fn dump(&self) -> Vec<String> {
        dump(&self.raw).await
    }
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
