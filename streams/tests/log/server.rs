//! A nats-server of the test's own, that can be killed, stopped, restarted and put back in time.

// The benchmark uses a part of it.
#![allow(dead_code)]

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use streams::{Nats, NatsSettings, stream};
use tokio::time::Instant;
use xtask::{
    servers::{self, Options},
    testing::fresh_dir,
};

/// Where xtask's server keeps its store.
const STORE: &str = "jetstream";

pub(crate) struct Server {
    server: servers::Server,
    dir: PathBuf,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::launch(Vec::new())
    }

    /// With further lines in its configuration.
    pub(crate) fn with(extra: &str) -> Self {
        Self::launch(vec![extra.to_owned()])
    }

    /// Three servers that know each other.
    pub(crate) fn cluster() -> Vec<Self> {
        let routes: Vec<u16> = (0..3).map(|_| servers::port::choose(None).unwrap()).collect();
        let urls: Vec<String> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let urls = urls.join(", ");
        let config = |port| format!("cluster {{ name: c, listen: \"127.0.0.1:{port}\", routes: [{urls}] }}");
        Self::launch_together(routes.iter().map(config).collect())
    }

    /// Servers with these lines in their configurations. One of a cluster is healthy only with the others, so each is
    /// waited for beside them.
    pub(crate) fn launch_together(configs: Vec<String>) -> Vec<Self> {
        std::thread::scope(|scope| {
            let starting: Vec<_> =
                configs.into_iter().map(|config| scope.spawn(move || Self::launch(vec![config]))).collect();
            starting.into_iter().map(|started| started.join().unwrap()).collect()
        })
    }

    fn launch(extra: Vec<String>) -> Self {
        let dir = fresh_dir("streams").unwrap();
        let server = servers::Server::nats(&dir, &Options { extra, ..Options::throwaway() }).unwrap();
        Self { server, dir }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.server.port())
    }

    /// As its cluster calls it.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        name == format!("mini-telegram-{}", self.server.port())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.pid().unwrap()
    }

    pub(crate) fn restart(&mut self) {
        self.server.restart().unwrap();
    }

    pub(crate) fn kill9(&mut self) {
        self.server.kill9().unwrap();
    }

    /// Returns when every thread has stopped.
    pub(crate) fn stop(&mut self) {
        self.server.sigstop().unwrap();
        let stopped = |stat: String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
        let tasks = format!("/proc/{}/task", self.pid());
        let runs = || {
            let tasks = fs::read_dir(&tasks).unwrap().filter_map(Result::ok);
            tasks
                .filter_map(|task| fs::read_to_string(task.path().join("stat")).ok())
                .any(|stat| !stopped(stat))
        };
        while runs() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn resume(&mut self) {
        self.server.sigcont().unwrap();
    }

    /// A copy of the store as it is now.
    pub(crate) fn copy_store(&self) -> PathBuf {
        let copy = self.dir.join(format!("copy-{:08x}", rand::random::<u32>()));
        copy_dir(&self.server.dir().join(STORE), &copy).unwrap();
        copy
    }

    /// Only while the server is down.
    pub(crate) fn put_back(&self, copy: &Path) {
        assert_eq!(self.server.pid(), None);
        let store = self.server.dir().join(STORE);
        fs::remove_dir_all(&store).unwrap();
        copy_dir(copy, &store).unwrap();
    }

    pub(crate) fn settings(&self) -> NatsSettings {
        NatsSettings { nats_url: self.url(), ..NatsSettings::default() }
    }

    /// A connected handle, and the streams exist. A cluster may need several elections before it makes them.
    pub(crate) async fn nats(&self) -> Nats {
        self.nats_with(self.settings()).await
    }

    pub(crate) async fn nats_with(&self, settings: NatsSettings) -> Nats {
        let nats = Nats::connect(&settings, "test").await.unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while let Err(error) = stream::apply(&nats).await {
            assert!(Instant::now() < end, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        nats
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.server.kill9());
        if !std::thread::panicking() {
            drop(fs::remove_dir_all(&self.dir));
        }
    }
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
