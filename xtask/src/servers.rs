//! Private NATS, Postgres and Redis servers: started on 127.0.0.1 from a folder, hurt by tests, stopped with their
//! owner.
//!
//! A server keeps its port and its data over [`Server::restart`]. Ports lie below the kernel's ephemeral range, so
//! that no client's outgoing connection can sit on a server's port while the server is down.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::binaries::{self, Binary, Program};
use crate::process::{Child, Launch, POLL, Signal};

mod nats;
mod options;
mod owner;
mod password;
pub mod port;
mod postgres;
mod probe;
mod redis;

pub use options::{Options, fair_threads};
pub use password::{Password, close_folder, write_private};
pub use probe::http_get;

/// A server is ready within a second; a loaded two-core machine that runs initdb elsewhere takes longer.
const READY: Duration = Duration::from_secs(30);
/// NATS and Redis end in milliseconds, Postgres after its checkpoint.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Somebody may take a free port between our look and the server's bind.
const START_ATTEMPTS: u32 = 4;

/// A running server, or one that a test has stopped. Dropped, it is ended at once.
#[derive(Debug)]
pub struct Server {
    program: Program,
    binary: Binary,
    dir: PathBuf,
    port: u16,
    moved_from: Option<u16>,
    options: Options,
    log: PathBuf,
    child: Option<Child>,
}

/// The bytes that are free on the disk of a folder.
pub fn free_bytes(folder: &Path) -> Result<u64> {
    let disk = rustix::fs::statvfs(folder)
        .with_context(|| format!("looking at the disk of {}", folder.display()))?;
    Ok(disk.f_bavail * disk.f_frsize)
}

impl Server {
    /// NATS with JetStream in `dir`.
    pub fn nats(dir: &Path, options: &Options) -> Result<Self> {
        Self::start(Program::Nats, dir, options)
    }

    /// Postgres in `dir`, with the superuser `postgres` and no password.
    pub fn postgres(dir: &Path, options: &Options) -> Result<Self> {
        Self::start(Program::Postgres, dir, options)
    }

    /// Redis or Valkey in `dir`.
    pub fn redis(dir: &Path, options: &Options) -> Result<Self> {
        Self::start(Program::Redis, dir, options)
    }

    fn start(program: Program, dir: &Path, options: &Options) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        // Only Postgres runs as somebody else.
        let dir = if program == Program::Postgres { owner::reachable(dir)? } else { dir.canonicalize()? };
        if options.password.is_some() {
            close_folder(&dir)?;
        }
        let log = options.log.clone().unwrap_or_else(|| dir.join(format!("{}.log", program.label())));
        let binary = binaries::resolve(program)?;
        let mut server = Self {
            program,
            binary,
            dir,
            port: 0,
            moved_from: None,
            options: options.clone(),
            log,
            child: None,
        };
        server.prepare()?;
        server.start_on_a_free_port()?;
        Ok(server)
    }

    fn start_on_a_free_port(&mut self) -> Result<()> {
        let mut wish = self.options.port;
        for attempt in 1.. {
            self.port = port::choose(wish)?;
            match self.launch() {
                Ok(()) => break,
                Err(error) if attempt == START_ATTEMPTS => return Err(error),
                // Perhaps the port was taken since we looked. The wish has had its chance.
                Err(_) => wish = None,
            }
        }
        self.moved_from = self.options.port.filter(|wished| *wished != self.port);
        Ok(())
    }

    /// The address, as the services take it, with the password if there is one. Postgres: of the maintenance database.
    pub fn url(&self) -> String {
        let password = self.options.password.as_ref();
        match self.program {
            Program::Nats => format!("nats://{}127.0.0.1:{}", credentials(nats::USER, password), self.port),
            Program::Postgres => postgres::url(self.port, "postgres", password),
            Program::Redis => format!("redis://{}127.0.0.1:{}", credentials("", password), self.port),
        }
    }

    /// Postgres: the address of a database.
    pub fn database_url(&self, database: &str) -> String {
        postgres::url(self.port, database, self.options.password.as_ref())
    }

    /// The address for people: without the password.
    pub fn shown(&self) -> String {
        format!("{}://127.0.0.1:{}", self.program.label(), self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port that was wished for and taken.
    pub fn moved_from(&self) -> Option<u16> {
        self.moved_from
    }

    pub fn binary(&self) -> &Binary {
        &self.binary
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The folder of its data, for a test that swaps it for an older copy while the server is down.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// None while it is down.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// Whether the process is there; a stopped one (SIGSTOP) is.
    pub fn is_running(&mut self) -> Result<bool> {
        match &mut self.child {
            Some(child) => Ok(child.exited()?.is_none()),
            None => Ok(false),
        }
    }

    /// NATS: what a write of its failed with. Until it is restarted, it stores nothing.
    pub fn failed_write(&self) -> Option<String> {
        (self.program == Program::Nats).then(|| nats::failed_write(&self.dir)).flatten()
    }

    /// The bytes that are free where its data is.
    pub fn free_bytes(&self) -> Result<u64> {
        free_bytes(&self.dir)
    }

    /// Crashes it: Postgres with its backends, which would keep the next postmaster out while they end.
    pub fn kill9(&mut self) -> Result<()> {
        match self.child.take() {
            Some(mut child) => child.kill9_family(),
            None => Ok(()),
        }
    }

    /// Freezes it. Of Postgres, only the postmaster: connections that exist go on.
    pub fn sigstop(&mut self) -> Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    pub fn sigcont(&mut self) -> Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    /// Ends it in order.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // Postgres: fast shutdown; its TERM waits for the last client.
        let signal = if self.program == Program::Postgres { Signal::INT } else { Signal::TERM };
        if !child.stop(signal, STOP_GRACE)? {
            crate::progress::step(format!("{} did not end and was killed", self.program.label()));
        }
        Ok(())
    }

    /// Starts it again, on the same port and data, ending what still runs.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.launch()
    }

    fn running(&mut self) -> Result<&mut Child> {
        self.child.as_mut().with_context(|| format!("{} is down", self.program.label()))
    }

    fn prepare(&self) -> Result<()> {
        match self.program {
            Program::Nats | Program::Redis => Ok(()),
            Program::Postgres => {
                postgres::prepare(&self.binary, &self.dir, &self.log, self.options.password.as_ref())
            }
        }
    }

    fn launch(&mut self) -> Result<()> {
        let launch = match self.program {
            Program::Nats => nats::launch(&self.binary, &self.dir, self.port, &self.options, &self.log)?,
            Program::Postgres => {
                postgres::launch(&self.binary, &self.dir, self.port, &self.options, &self.log)?
            }
            Program::Redis => redis::launch(&self.binary, &self.dir, self.port, &self.options, &self.log)?,
        };
        let child = self.wait_ready(&launch)?;
        self.child = Some(child);
        Ok(())
    }

    fn wait_ready(&self, launch: &Launch) -> Result<Child> {
        let mut child = Child::spawn(launch)?;
        let deadline = Instant::now() + READY;
        loop {
            if let Some(status) = child.exited()? {
                bail!(
                    "{} ended at its start with {status}; see {}",
                    self.program.label(),
                    self.log.display()
                );
            }
            let ready = match self.program {
                Program::Nats => nats::ready(&self.dir),
                Program::Postgres => postgres::ready(&self.url()),
                Program::Redis => redis::ready(self.port),
            };
            if ready {
                return Ok(child);
            }
            if Instant::now() >= deadline {
                bail!("{} is not ready after {READY:?}; see {}", self.program.label(), self.log.display());
            }
            thread::sleep(POLL);
        }
    }
}

/// The part of a URL before the host.
fn credentials(user: &str, password: Option<&Password>) -> String {
    password.map_or_else(String::new, |password| format!("{user}:{}@", password.reveal()))
}

/// Removes a server's folder with its data.
pub fn wipe(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let data = owner::reachable(dir)?;
    fs::remove_dir_all(&data).with_context(|| format!("removing {}", data.display()))?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
