//! Databases for tests: the migrations are applied once to a template, and each test gets a clone of it.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use postgres::{Client, NoTls};
use sha2::{Digest as _, Sha256};

use super::binary;
use crate::thread::off_runtime;

/// Serialises the making of the template over all test processes. The number is arbitrary.
const TEMPLATE_LOCK: i64 = 0x6d74_7470_6c00;

/// Makes `name`, a clone of the migrated template.
pub(super) fn create(maintenance_url: &str, name: &str) -> Result<()> {
    // Built outside of the database lock, or a cargo build would hold up every other test.
    let sql = binary("sql")?;
    off_runtime(|| {
        let mut client = connect(maintenance_url)?;
        let template = template(&mut client, maintenance_url, &sql)?;
        client
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .context("cloning the template")
    })
}

/// Makes an empty database.
pub fn create_empty(maintenance_url: &str, name: &str) -> Result<()> {
    off_runtime(|| Ok(connect(maintenance_url)?.batch_execute(&format!("CREATE DATABASE {name}"))?))
}

/// Removes a database and cuts off whoever uses it.
pub(super) fn drop(maintenance_url: &str, name: &str) -> Result<()> {
    off_runtime(|| {
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        Ok(connect(maintenance_url)?.batch_execute(&drop)?)
    })
}

/// The URL of another database of the same server.
pub(super) fn url_of(maintenance_url: &str, database: &str) -> String {
    match maintenance_url.rsplit_once('/') {
        Some((server, _)) => format!("{server}/{database}"),
        None => maintenance_url.to_owned(),
    }
}

fn connect(url: &str) -> Result<Client> {
    Client::connect(url, NoTls).context("connecting to Postgres")
}

/// The migrated template; its name holds a hash of the migrations, so that a changed one gives a new template.
fn template(client: &mut Client, maintenance_url: &str, sql: &Path) -> Result<String> {
    let name = format!("mt_template_{}", migrations_hash()?);
    if exists(client, &name)? {
        return Ok(name);
    }
    client.execute("SELECT pg_advisory_lock($1)", &[&TEMPLATE_LOCK])?;
    let made = if exists(client, &name)? { Ok(()) } else { make(client, maintenance_url, &name, sql) };
    client.execute("SELECT pg_advisory_unlock($1)", &[&TEMPLATE_LOCK])?;
    made.map(|()| name)
}

fn exists(client: &mut Client, name: &str) -> Result<bool> {
    Ok(client.query_opt("SELECT 1 FROM pg_database WHERE datname = $1", &[&name])?.is_some())
}

/// Under another name until it is whole: a killed test must not leave half a template.
fn make(client: &mut Client, maintenance_url: &str, name: &str, sql: &Path) -> Result<()> {
    let partial = format!("{name}_partial");
    client.batch_execute(&format!("DROP DATABASE IF EXISTS {partial} WITH (FORCE)"))?;
    client.batch_execute(&format!("CREATE DATABASE {partial}"))?;
    let output = crate::process::command(sql)
        .arg("up")
        .env("MT_POSTGRES_URL", url_of(maintenance_url, &partial))
        .stdin(Stdio::null())
        .output()
        .context("running `sql up`")?;
    ensure!(
        output.status.success(),
        "`sql up` failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    client.batch_execute(&format!("ALTER DATABASE {partial} RENAME TO {name}")).context("naming the template")
}

fn migrations_hash() -> Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/migrations");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(fs::read(&file)?);
    }
    Ok(hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}
