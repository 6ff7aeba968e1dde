//! The servers that a suite shares, and stacks for those tests that break them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use crate::servers::{Options, Server};

/// How long the folder of a test that failed is kept.
const KEPT: Duration = Duration::from_secs(3600);

/// Addresses of the suite's servers, as `cargo xtask test` passes them.
pub const NATS_URL: &str = "MT_TEST_NATS_URL";
/// Postgres: the maintenance database, as superuser.
pub const POSTGRES_URL: &str = "MT_TEST_POSTGRES_URL";
pub const REDIS_URL: &str = "MT_TEST_REDIS_URL";

/// Where one set of servers listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub nats_url: String,
    /// The maintenance database, as superuser.
    pub postgres_url: String,
    pub redis_url: String,
}

/// The servers that all tests share.
#[derive(Debug)]
pub struct Servers {
    pub addresses: Addresses,
    /// Kept for the life of the process, if it started them; the kernel ends them with it.
    _own: Option<Stack>,
}

impl Servers {
    /// The suite's servers; started now if nobody has.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Servers, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Self::find().map_err(|error| format!("{error:#}")));
        shared.as_ref().map_err(|error| anyhow!("the shared servers: {error}"))
    }

    fn find() -> Result<Self> {
        if let Some(addresses) = passed() {
            return Ok(Self { addresses, _own: None });
        }
        let own = Stack::start(&fresh_dir("shared")?)?;
        Ok(Self { addresses: own.addresses(), _own: Some(own) })
    }
}

fn passed() -> Option<Addresses> {
    Some(Addresses {
        nats_url: std::env::var(NATS_URL).ok()?,
        postgres_url: std::env::var(POSTGRES_URL).ok()?,
        redis_url: std::env::var(REDIS_URL).ok()?,
    })
}

/// A set of servers with throw-away data.
#[derive(Debug)]
pub struct Stack {
    pub nats: Server,
    pub postgres: Server,
    pub redis: Server,
}

impl Stack {
    /// All three at once, in folders of `dir`.
    pub fn start(dir: &Path) -> Result<Self> {
        let options = Options::throwaway();
        thread::scope(|scope| {
            let nats = scope.spawn(|| Server::nats(&dir.join("nats"), &options));
            let postgres = scope.spawn(|| Server::postgres(&dir.join("postgres"), &options));
            let redis = Server::redis(&dir.join("redis"), &options);
            let gone = |_| anyhow!("a starting thread panicked");
            Ok(Self {
                nats: nats.join().map_err(gone)??,
                postgres: postgres.join().map_err(gone)??,
                redis: redis?,
            })
        })
    }

    /// A stack for one test that breaks it.
    pub fn private(name: &str) -> Result<Self> {
        Self::start(&fresh_dir(name)?)
    }

    pub fn addresses(&self) -> Addresses {
        Addresses {
            nats_url: self.nats.url(),
            postgres_url: self.postgres.url(),
            redis_url: self.redis.url(),
        }
    }
}

/// `target/tests`, below which each process has a folder.
fn root() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from).join("tests")
}

/// An empty folder of this process. Old folders of processes that are gone are removed: nobody else can.
pub fn fresh_dir(name: &str) -> Result<PathBuf> {
    let root = root();
    fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
    sweep(&root);
    let id: u32 = rand::random();
    let dir = root.join(std::process::id().to_string()).join(format!("{name}-{id:08x}"));
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    Ok(dir.canonicalize()?)
}

/// The logs of a test that failed just now are still wanted.
fn is_old(dir: &Path) -> bool {
    let modified = fs::metadata(dir).and_then(|dir| dir.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > KEPT))
}

fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for dir in entries.flatten() {
        let pid: Option<u32> = dir.file_name().to_str().and_then(|name| name.parse().ok());
        let gone = pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists());
        if gone && is_old(&dir.path()) {
            // Another process may sweep the same folder.
            fs::remove_dir_all(dir.path()).ok();
        }
    }
}
