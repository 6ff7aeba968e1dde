//! One test's corner of the servers: a database, a stream prefix, a Redis prefix, a folder, and the services in it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Addresses, Servers, binary, nats_api, shared, template};
use crate::progress::step;
use crate::service::Service;

/// Dev builds on a loaded machine, with a ring to fill.
const LISTENING: Duration = Duration::from_secs(30);
/// Postgres cuts longer names off.
const NAME_MAX: usize = 24;

/// What belongs to one test. Dropped, it is removed, as far as its servers still answer.
#[derive(Debug)]
pub struct Isolated {
    addresses: Addresses,
    /// `<name>_<random>_`: unique, in the alphabet of prefixes and database names.
    prefix: String,
    database: String,
    dir: PathBuf,
}

impl Isolated {
    /// A corner of the suite's servers, with the migrations applied.
    pub fn new(name: &str) -> Result<Self> {
        Self::on(name, &Servers::shared()?.addresses)
    }

    /// A corner of these servers, with the migrations applied.
    pub fn on(name: &str, addresses: &Addresses) -> Result<Self> {
        let isolated = Self::without_schema_on(name, addresses)?;
        template::create(&addresses.postgres_url, &isolated.database)?;
        Ok(isolated)
    }

    /// A corner whose database is empty: for tests of the migrations themselves.
    pub fn with_empty_database(name: &str) -> Result<Self> {
        let addresses = &Servers::shared()?.addresses;
        let isolated = Self::without_schema_on(name, addresses)?;
        template::create_empty(&addresses.postgres_url, &isolated.database)?;
        Ok(isolated)
    }

    /// A corner without a database, for tests of the log alone.
    pub fn without_database(name: &str) -> Result<Self> {
        Self::without_schema_on(name, &Servers::shared()?.addresses)
    }

    fn without_schema_on(name: &str, addresses: &Addresses) -> Result<Self> {
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
            .take(NAME_MAX)
            .collect();
        let id: u32 = rand::random();
        Ok(Self {
            addresses: addresses.clone(),
            prefix: format!("{name}_{id:08x}_"),
            database: format!("mt_{name}_{id:08x}"),
            dir: shared::fresh_dir(&name)?,
        })
    }

    pub fn nats_url(&self) -> &str {
        &self.addresses.nats_url
    }

    /// The address of this test's database.
    pub fn postgres_url(&self) -> String {
        template::url_of(&self.addresses.postgres_url, &self.database)
    }

    pub fn redis_url(&self) -> &str {
        &self.addresses.redis_url
    }

    /// As MT_STREAM_PREFIX.
    pub fn stream_prefix(&self) -> &str {
        &self.prefix
    }

    /// As MT_REDIS_PREFIX.
    pub fn redis_prefix(&self) -> String {
        format!("{}:", self.prefix.trim_end_matches('_'))
    }

    /// A folder of this test alone.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// As MT_KEYS_DIR. `run("gateway", &["keys"])` fills it.
    pub fn keys_dir(&self) -> PathBuf {
        self.dir.join("keys")
    }

    /// The settings that make a service part of this test. Every service listens on a port of its own choice.
    pub fn env(&self) -> Vec<(String, String)> {
        let keys_dir = self.keys_dir().to_string_lossy().into_owned();
        [
            ("MT_NATS_URL", self.nats_url()),
            ("MT_POSTGRES_URL", &self.postgres_url()),
            ("MT_REDIS_URL", self.redis_url()),
            ("MT_STREAM_PREFIX", self.stream_prefix()),
            ("MT_REDIS_PREFIX", &self.redis_prefix()),
            ("MT_KEYS_DIR", &keys_dir),
            ("MT_HTTP_ADDR", "127.0.0.1:0"),
            ("MT_PROJECTOR_ADDR", "127.0.0.1:0"),
            ("MT_PRESENCE_ADDR", "127.0.0.1:0"),
            ("MT_LOG", "info"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Runs a binary of the workspace to its end with these settings. It must succeed.
    pub fn run(&self, name: &str, args: &[&str]) -> Result<Output> {
        let output = self.output(name, args)?;
        ensure!(
            output.status.success(),
            "`{name} {}` ended with {}:\n{}{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output)
    }

    /// Runs a binary of the workspace to its end with these settings, however it ends.
    pub fn output(&self, name: &str, args: &[&str]) -> Result<Output> {
        crate::process::command(binary(name)?)
            .args(args)
            .envs(self.env())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {name}"))
    }

    /// The streams, and the keys of the gateway: what services need besides the database.
    pub fn set_up(&self) -> Result<()> {
        self.run("streams", &["apply"])?;
        self.run("gateway", &["keys"])?;
        Ok(())
    }

    /// Starts a service and waits until it listens. `label` names its log; `env` comes after [`Isolated::env`].
    pub fn spawn(
        &self,
        program: &str,
        label: &str,
        env: &[(&str, &str)],
    ) -> Result<(Service, std::net::SocketAddr)> {
        let mut settings = self.env();
        for (name, value) in env {
            settings.retain(|(other, _)| other != name);
            settings.push(((*name).to_owned(), (*value).to_owned()));
        }
        let log = self.dir.join(format!("{label}.log"));
        let mut service = Service::spawn(label, binary(program)?, &[], settings, log)?;
        let addr = service.wait_listening(LISTENING)?;
        Ok((service, addr))
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        if std::thread::panicking() {
            step(format!("the logs of the failed test are in {}", self.dir.display()));
        } else {
            // What is left is swept later. The folder above goes with its last test.
            std::fs::remove_dir_all(&self.dir).ok();
            self.dir.parent().map_or(Ok(()), std::fs::remove_dir).ok();
        }
        // Both are best effort: the servers are thrown away in the end, and a test may have killed them.
        template::drop(&self.addresses.postgres_url, &self.database).ok();
        nats_api::delete_streams(&self.addresses.nats_url, &self.prefix.to_ascii_uppercase()).ok();
    }
}
