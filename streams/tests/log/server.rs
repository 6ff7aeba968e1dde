//! A nats-server of the test's own, that can be killed, stopped, restarted and put back in time.

// The benchmark uses a part of it.
#![allow(dead_code)]

use std::{
    fs, io,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use streams::{Nats, NatsSettings, stream};

pub(crate) struct Server {
    dir: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::launch(free_port(), "server_name: test\n")
    }

    /// Three servers that know each other, with a leader elected as soon as a stream can be made.
    pub(crate) fn cluster() -> Vec<Self> {
        let routes: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let urls: Vec<String> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let urls = urls.join(", ");
        let config = |(number, port): (usize, &u16)| {
            let cluster = format!("cluster {{ name: c, listen: \"127.0.0.1:{port}\", routes: [{urls}] }}\n");
            Self::launch(free_port(), &format!("server_name: s{number}\n{cluster}"))
        };
        routes.iter().enumerate().map(config).collect()
    }

    fn launch(port: u16, extra: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("mt-streams-{:016x}", rand::random::<u64>()));
        fs::create_dir_all(&dir).unwrap();
        let config = format!(
            "host: 127.0.0.1\nport: {port}\nping_interval: 5s\n\
             jetstream {{ store_dir: {:?}, sync_interval: 1s, limits {{ default_max_consumers: -1 }} }}\n{extra}",
            dir.join("store"),
        );
        fs::write(dir.join("nats.conf"), config).unwrap();
        let mut server = Self { dir, port, child: None };
        server.restart();
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "still running");
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let child = Command::new(binary())
            .arg("-c")
            .arg(self.dir.join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(self.address()).is_err() {
            assert!(Instant::now() < end, "nats-server does not start: {:?}", self.dir);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn kill9(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Returns when every thread has stopped.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
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

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// A copy of the store as it is now.
    pub(crate) fn copy_store(&self) -> PathBuf {
        let copy = self.dir.join(format!("copy-{:08x}", rand::random::<u32>()));
        copy_dir(&self.dir.join("store"), &copy).unwrap();
        copy
    }

    /// Only while the server is down.
    pub(crate) fn put_back(&self, copy: &Path) {
        assert!(self.child.is_none());
        fs::remove_dir_all(self.dir.join("store")).unwrap();
        copy_dir(copy, &self.dir.join("store")).unwrap();
    }

    pub(crate) fn settings(&self) -> NatsSettings {
        NatsSettings { nats_url: self.url(), ..NatsSettings::default() }
    }

    /// A connected handle, and the streams exist.
    pub(crate) async fn nats(&self) -> Nats {
        self.nats_with(self.settings()).await
    }

    pub(crate) async fn nats_with(&self, settings: NatsSettings) -> Nats {
        let nats = Nats::connect(&settings, "test").await.unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while let Err(error) = stream::apply(&nats).await {
            assert!(Instant::now() < end, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        nats
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if !std::thread::panicking() {
            drop(fs::remove_dir_all(&self.dir));
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
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

fn binary() -> PathBuf {
    std::env::var_os("MT_TEST_NATS_SERVER").map_or_else(|| "nats-server".into(), PathBuf::from)
}
