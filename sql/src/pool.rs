//! The pool of connections, and the bounded ways to run a statement.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, QueueMode, RecyclingMethod, Runtime};
use tokio::time::timeout;
use tokio_postgres::{Config, NoTls, Row, types::ToSql};

use crate::{
    error::{Cause, Error},
    settings::SqlSettings,
};

/// A parameter of a statement.
pub type Param<'a> = &'a (dyn ToSql + Sync);

/// How long a connection may take to be made: a healthy server takes milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a dead peer may go unnoticed while we wait for it.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that was idle for this long is closed: it costs 60 KB here and megabytes at the server.
const IDLE: Duration = Duration::from_secs(60);
/// The server cancels a statement at its own limit. This is how much longer we wait for it to say so, before we give up
/// the connection.
const GRACE: Duration = Duration::from_millis(500);

/// Every statement of this program finds its rows by an index and joins by nested loops over a few of them. A
/// connection keeps its plans, and one made while the tables were still empty would scan or hash them whole for ever
/// after: such plans are ruled out. Compiling a plan (jit) costs more than running any of ours.
const PLANNER: &str =
    "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c random_page_cost=1.1 -c jit=off";

/// The handle to the database. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pool: Pool,
    limits: Arc<Limits>,
}

struct Limits {
    config: Config,
    statement: Duration,
}

/// The URL does not name a database.
#[derive(Debug, thiserror::Error)]
#[error("MT_POSTGRES_URL is no database URL: {0}")]
pub struct InvalidUrl(#[source] pub tokio_postgres::Error);

impl Db {
    /// A pool that connects when it is first asked.
    ///
    /// # Errors
    /// [`InvalidUrl`].
    pub fn new(settings: &SqlSettings, application: &str) -> Result<Self, InvalidUrl> {
        let config = connection_config(settings, application)?;
        let manager = Manager::from_config(
            config.clone(),
            NoTls,
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager)
            .max_size(settings.postgres_pool.max(1))
            // The connection used last is used first, so that the extra ones of a burst become idle.
            .queue_mode(QueueMode::Lifo)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(settings.statement_timeout()))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .build();
        // The builder fails only for timeouts without a runtime.
        let Ok(pool) = pool else { unreachable!("a runtime is set") };
        Ok(Self { pool, limits: Arc::new(Limits { config, statement: settings.statement_timeout() }) })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.query("SELECT 1", &[]).await.map(drop)
    }

    /// Closes the connections that a burst has left idle. To be called from time to time.
    pub fn close_idle(&self) {
        self.close_unused_for(IDLE);
    }

    fn close_unused_for(&self, span: Duration) {
        // The pool returns how many it closed, which no metric shows.
        drop(self.pool.retain(|_, metrics| metrics.last_used() < span));
    }

    /// The parameters of connections, for callers that need a connection outside the pool.
    pub(crate) fn config(&self) -> &Config {
        &self.limits.config
    }

    pub(crate) fn statement_timeout(&self) -> Duration {
        self.limits.statement
    }

    /// A connection for work that sets its own time limit.
    pub(crate) async fn client(&self) -> Result<Object, Error> {
        Ok(self.pool.get().await?)
    }

    pub(crate) async fn query(
        &self,
        statement: &'static str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, Error> {
        self.run(async |client| {
            let statement = client.prepare_cached(statement).await?;
            Ok(client.query(&statement, params).await?)
        })
        .await
    }

    /// The first row, if there is one.
    pub(crate) async fn query_opt(
        &self,
        statement: &'static str,
        params: &[Param<'_>],
    ) -> Result<Option<Row>, Error> {
        Ok(self.query(statement, params).await?.into_iter().next())
    }

    /// The first row of a statement that always has one.
    pub(crate) async fn query_one(
        &self,
        statement: &'static str,
        params: &[Param<'_>],
    ) -> Result<Row, Error> {
        self.query_opt(statement, params).await?.ok_or(Error::Corrupt("a row is missing"))
    }

    /// How many rows the statement changed.
    pub(crate) async fn execute(&self, statement: &'static str, params: &[Param<'_>]) -> Result<u64, Error> {
        self.run(async |client| {
            let statement = client.prepare_cached(statement).await?;
            Ok(client.execute(&statement, params).await?)
        })
        .await
    }

    /// Runs `work` on a connection, within the time limit. A connection that did not answer in time is closed and
    /// not given to the next caller.
    pub(crate) async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut Object) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.run_within(self.limits.statement + GRACE, work).await
    }

    pub(crate) async fn run_within<T>(
        &self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut Object) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut client = self.pool.get().await?;
        match timeout(limit, work(&mut client)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                drop(Object::take(client));
                Err(Error::Unavailable(Cause::Timeout))
            }
        }
    }
}

/// A connection's parameters from the settings.
fn connection_config(settings: &SqlSettings, application: &str) -> Result<Config, InvalidUrl> {
    let mut config: Config = settings.postgres_url.parse().map_err(InvalidUrl)?;
    let timeout_ms = settings.postgres_timeout_ms;
    let own = config.get_options().unwrap_or_default();
    let options = format!("{PLANNER} -c statement_timeout={timeout_ms} -c lock_timeout={timeout_ms} {own}");
    config
        .application_name(application)
        .options(options.trim_end())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_user_timeout(TCP_USER_TIMEOUT);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use xtask::testing::Isolated;

    use super::*;

    const BURST: usize = 5;

    fn open(name: &str) -> (Isolated, Db) {
        let corner = Isolated::new(name).expect("a corner");
        let postgres_url = corner.postgres_url();
        let settings = SqlSettings { postgres_url, postgres_pool: BURST, postgres_timeout_ms: 5_000 };
        let db = Db::new(&settings, "tests").expect("a pool");
        (corner, db)
    }

    async fn burst(db: &Db) -> Vec<Object> {
        let mut clients = Vec::new();
        for _ in 0..BURST {
            clients.push(db.client().await.expect("a connection"));
        }
        clients
    }

    #[tokio::test]
    async fn connections_that_a_burst_left_idle_are_closed_and_the_used_one_is_kept() {
        let (_corner, db) = open("idle");
        drop(burst(&db).await);
        assert_eq!(db.pool.status().size, BURST);
        let ended = Instant::now();
        // One caller at a time needs one connection: always the same, or none would ever become idle.
        for _ in 0..100 {
            db.ping().await.unwrap();
        }
        db.close_unused_for(ended.elapsed() / 2);
        assert_eq!(db.pool.status().size, 1);
        db.ping().await.unwrap();
        assert_eq!(db.pool.status().size, 1);
    }

    #[tokio::test]
    async fn a_connection_in_use_is_not_closed() {
        let (_corner, db) = open("inuse");
        let mut clients = burst(&db).await;
        let used = clients.pop().expect("one of them");
        drop(clients);
        db.close_unused_for(Duration::ZERO);
        assert_eq!(db.pool.status().size, 1);
        used.query_one("SELECT 1", &[]).await.unwrap();
    }

    #[tokio::test]
    async fn connections_that_were_used_lately_are_kept() {
        let (_corner, db) = open("lately");
        drop(burst(&db).await);
        db.close_idle();
        assert_eq!(db.pool.status().size, BURST);
    }
}
