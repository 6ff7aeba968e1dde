//! Accounts and tokens: by the operator's command for many, over HTTP for a few.
//!
//! Ten thousand registrations would be ten thousand bcrypt hashes; the command makes accounts without passwords.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

use crate::client::http::Api;

/// An account that can connect.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    pub user_id: u64,
    pub access_token: String,
}

/// The gateway's binary: in the given folder, or beside this one (tests run one folder below).
///
/// # Errors
/// When it is in neither.
pub fn gateway_binary(bin_dir: Option<&Path>) -> Result<PathBuf> {
    let own = std::env::current_exe().context("where is this program?")?;
    let beside = own.ancestors().skip(1).take(2).map(Path::to_owned);
    let given = bin_dir.map(Path::to_owned);
    let candidates: Vec<PathBuf> = given.into_iter().chain(beside).map(|dir| dir.join("gateway")).collect();
    candidates
        .iter()
        .find(|path| path.is_file())
        .cloned()
        .with_context(|| format!("no gateway binary: build it first (looked for {candidates:?})"))
}

/// Runs `gateway provision` with the services' settings.
///
/// # Errors
/// When the command fails or prints something else.
pub async fn provision(
    gateway: &Path,
    env: &BTreeMap<String, String>,
    users: usize,
    prefix: &str,
    ttl_s: u64,
) -> Result<Vec<Account>> {
    let output = Command::new(gateway)
        .args(["provision", "--users", &users.to_string()])
        .args(["--prefix", prefix, "--ttl-s", &ttl_s.to_string()])
        .envs(env)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("run {}", gateway.display()))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "gateway provision failed: {}\n{stderr}", output.status);
    let stdout = String::from_utf8(output.stdout)?;
    // Logs are JSON lines on the same stream; accounts are those with a token.
    let accounts: Vec<Account> = stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    ensure!(accounts.len() == users, "asked for {users} accounts, got {}", accounts.len());
    Ok(accounts)
}

/// Registers one account over HTTP.
///
/// # Errors
/// When it is refused.
pub async fn register(api: &Api, email: &str, password: &str) -> Result<Account> {
    let reply = api.post("/v1/auth/register", &json!({"email": email, "password": password})).await?.ok()?;
    let user_id = reply["user"]["id"].as_u64().context("no user id")?;
    let access_token = reply["accessToken"].as_str().context("no access token")?.to_owned();
    Ok(Account { user_id, access_token })
}
