//! What every attack begins with: the product, and new accounts.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;

use crate::{
    client::http::Api,
    provision::{Account, provision},
    target::Target,
};

/// The sockets of the largest attack.
pub(super) const SOCKETS: usize = 16_000;
/// Tokens outlive any run.
const TOKEN_TTL_S: u64 = 3_600;

/// What every way needs.
pub(super) struct Field {
    pub(super) target: Target,
    pub(super) api: Api,
    pub(super) gateway: PathBuf,
    /// How long to keep it up.
    pub(super) long: Duration,
}

impl Field {
    /// The gateway that is attacked.
    pub(super) fn url(&self) -> &str {
        &self.target.gateways[0].url
    }

    /// New accounts, made by the operator's command so that no limit of registrations is spent.
    pub(super) async fn accounts(&self, count: usize, name: &str) -> Result<Vec<Account>> {
        let prefix = format!("{name}{}", std::process::id());
        provision(&self.gateway, &self.target.env, count, &prefix, TOKEN_TTL_S).await
    }
}
