//! The servers below the services, with data that is kept.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use xtask::binaries::Program;
use xtask::progress::step;
use xtask::servers::{self, Options, Password, Server};
use xtask::testing::off_runtime;

use super::stop::Stop;

/// Of this run, and of the one before.
pub(crate) const LOGS: &str = "logs";
const OLD_LOGS: &str = "logs.old";
const DATABASE: &str = "minitelegram";
/// The file with the password of all servers.
pub(crate) const PASSWORD: &str = "password";
/// Root's Postgres runs as another user, who has to pass through the folder to its own. Nobody can list it.
const PASSABLE: u32 = 0o711;
/// How long a gateway spreads its closes over at Ctrl-C: the 20 s of production would test one's patience.
const DRAIN_MS: &str = "3000";

/// A full log refuses messages and still takes deletions; a full disk takes nothing. 8 GiB are 30 million messages.
const LOG_MAX_BYTES: u64 = 8 << 30;
/// The share of a smaller disk's free space that the log may take: the database grows with it.
const LOG_SHARE: u64 = 3;
/// NATS is started again after a failed write once its disk has this much room: a few blocks of the log.
const ROOM: u64 = 64 << 20;
/// How often NATS is asked whether a write of its has failed.
const ASK_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Backing {
    asked_at: Instant,
    /// A failed write was told of.
    told: bool,
    pub(crate) nats: Server,
    pub(crate) postgres: Server,
    pub(crate) redis: Server,
}

impl Backing {
    pub(crate) fn start(data: &Path, stop: &Stop) -> Result<Self> {
        let password = Password::kept_in(&data.join(PASSWORD))?;
        let start = |program: Program, port: u16| -> Result<Server> {
            if stop.is_set() {
                bail!("stopped");
            }
            let name = program.label();
            step(format!("starting {name}"));
            let log = data.join(LOGS).join(format!("{name}.log"));
            let password = Some(password.clone());
            let options = Options { port: Some(port), log: Some(log), password, ..Options::default() };
            let dir = data.join(name);
            let server = match program {
                Program::Nats => Server::nats(&dir, &options),
                Program::Postgres => Server::postgres(&dir, &options),
                Program::Redis => Server::redis(&dir, &options),
            }?;
            if let Some(taken) = server.moved_from() {
                step(format!("port {taken} is taken: {name} listens on {}", server.port()));
            }
            Ok(server)
        };
        let backing = Self {
            asked_at: Instant::now(),
            told: false,
            nats: start(Program::Nats, 4222)?,
            postgres: start(Program::Postgres, 5432)?,
            redis: start(Program::Redis, 6379)?,
        };
        backing.create_database()?;
        Ok(backing)
    }

    fn create_database(&self) -> Result<()> {
        off_runtime(|| {
            let mut client = postgres::Client::connect(&self.postgres.url(), postgres::NoTls)?;
            let there = client.query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&DATABASE])?;
            if there.is_none() {
                client
                    .batch_execute(&format!("CREATE DATABASE {DATABASE}"))
                    .context("creating the database")?;
            }
            Ok(())
        })
    }

    pub(crate) fn database_url(&self) -> String {
        self.postgres.database_url(DATABASE)
    }

    /// What every service is told.
    pub(crate) fn env(&self, data: &Path) -> Vec<(String, String)> {
        let keys = data.join("keys").to_string_lossy().into_owned();
        let mut env: Vec<_> = [
            ("MT_NATS_URL", self.nats.url()),
            ("MT_POSTGRES_URL", self.database_url()),
            ("MT_REDIS_URL", self.redis.url()),
            ("MT_KEYS_DIR", keys),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        let defaults = [
            ("MT_DRAIN_MS", DRAIN_MS.to_owned()),
            ("MT_LOG_MAX_BYTES", log_max_bytes(data).to_string()),
            ("TOKIO_WORKER_THREADS", servers::fair_threads().to_string()),
            // The services' allocator gives memory back at once, not when it next comes by.
            ("MIMALLOC_PURGE_DELAY", "0".to_owned()),
        ];
        env.extend(
            defaults
                .into_iter()
                .filter(|(name, _)| std::env::var_os(name).is_none())
                .map(|(name, value)| (name.to_owned(), value)),
        );
        env
    }

    /// An error if one of them has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        for server in [&mut self.nats, &mut self.postgres, &mut self.redis] {
            if !server.is_running()? {
                bail!("a server has ended; see {}", server.log_path().display());
            }
        }
        if self.asked_at.elapsed() < ASK_EVERY {
            return Ok(());
        }
        self.asked_at = Instant::now();
        self.mend_log()
    }

    /// Starts NATS again if a write of its has failed and there is room now: by itself it stores nothing any more.
    fn mend_log(&mut self) -> Result<()> {
        let Some(why) = self.nats.failed_write() else {
            self.told = false;
            return Ok(());
        };
        if self.nats.free_bytes()? >= ROOM {
            step("nats-server could not write and starts again: there is room now");
            return self.nats.restart();
        }
        if !std::mem::replace(&mut self.told, true) {
            step(format!("nats-server cannot write, so nobody can send; free some space: {}", why.trim()));
        }
        Ok(())
    }

    /// The log first: what it has not taken yet, nobody was told of.
    pub(crate) fn stop(mut self) -> Result<()> {
        for server in [&mut self.nats, &mut self.redis, &mut self.postgres] {
            server.stop()?;
        }
        Ok(())
    }
}

/// What earlier runs have logged, and a share of what the disk has left beside it.
fn log_max_bytes(data: &Path) -> u64 {
    let free = servers::free_bytes(data).unwrap_or(u64::MAX);
    let logged = size_of(&data.join(Program::Nats.label()));
    LOG_MAX_BYTES.min(logged + free / LOG_SHARE).max(ROOM)
}

/// The bytes of all files in a folder.
fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size_of(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// Closes the folder to other users, with what is in it.
pub(crate) fn close(data: &Path) -> Result<()> {
    servers::close_folder(data)?;
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(data, fs::Permissions::from_mode(PASSABLE))?;
    }
    Ok(())
}

/// Removes what earlier runs have left.
pub(crate) fn wipe(data: &Path) -> Result<()> {
    for program in Program::ALL {
        servers::wipe(&data.join(program.label()))?;
    }
    let password = data.join(PASSWORD);
    if password.exists() {
        fs::remove_file(&password).with_context(|| format!("removing {}", password.display()))?;
    }
    ["keys", LOGS, OLD_LOGS].iter().try_for_each(|folder| remove(&data.join(folder)))
}

/// Keeps the logs of the run before, and no others.
pub(crate) fn rotate_logs(data: &Path) -> Result<()> {
    let logs = data.join(LOGS);
    if logs.exists() {
        let old = data.join(OLD_LOGS);
        remove(&old)?;
        fs::rename(&logs, &old).with_context(|| format!("moving {} away", logs.display()))?;
        servers::close_folder(&old)?;
    }
    fs::create_dir(&logs).with_context(|| format!("creating {}", logs.display()))?;
    servers::close_folder(&logs)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}
