//! `gateway provision`: makes accounts and access tokens for load tests. The accounts have no password, whose hash would
//! be expensive.

use std::io::Write;

use serde::Serialize;
use shared::id::UserId;
use sql::SqlSettings;
use uuid::Uuid;

use crate::{
    auth::{AuthSettings, Tokens, keys::Keys, revocation::LONGEST_TOKEN_S},
    infra::clock::unix_ms,
};

#[derive(Debug, Clone, clap::Args)]
pub struct ProvisionArgs {
    /// How many accounts.
    #[arg(long)]
    pub users: usize,
    /// What their names begin with.
    #[arg(long, default_value = "load", value_parser = prefix)]
    pub prefix: String,
    /// How long their access tokens live, in seconds.
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(..=LONGEST_TOKEN_S))]
    pub ttl_s: u64,
}

/// The device label of provisioned logins.
const DEVICE: &str = "load";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    user_id: UserId,
    access_token: String,
}

fn prefix(text: &str) -> Result<String, String> {
    let fits = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits { Ok(text.to_owned()) } else { Err("1 to 32 letters, digits and hyphens".to_owned()) }
}

/// Makes the accounts and prints a line of JSON with an access token for each. Whoever sees the output can act as these
/// accounts.
///
/// # Errors
/// Missing keys, a database that is away, a closed stdout.
pub async fn run(auth: &AuthSettings, sql: &SqlSettings, args: &ProvisionArgs) -> anyhow::Result<()> {
    let keys = Keys::load(&auth.keys_dir)?;
    let tokens = Tokens::new(&keys, auth);
    let db = sql::Db::new(sql, "gateway-provision")?;
    let now = unix_ms();
    let expires = now + args.ttl_s * 1_000;
    let accounts = db.provision_users(&args.prefix, args.users, DEVICE, now, expires).await?;
    print(&accounts, &tokens, args.ttl_s)
}

fn print(accounts: &[(UserId, Uuid)], tokens: &Tokens, ttl_s: u64) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for (user_id, family) in accounts {
        let access_token = tokens.issue_for(*user_id, *family, ttl_s)?;
        serde_json::to_writer(&mut out, &Line { user_id: *user_id, access_token })?;
        writeln!(out)?;
    }
    out.flush()?;
    Ok(())
}
