//! Where the product runs: from the file that `cargo xtask up` writes, or from flags.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Deserialize;

/// Flags of every scenario.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// What `cargo xtask up` wrote about itself.
    #[arg(long, default_value = ".data/up.json")]
    pub up: PathBuf,
    /// Gateways, instead of the file's.
    #[arg(long, value_delimiter = ',')]
    pub gateways: Vec<String>,
    /// The gateway's binary, for provisioning; by default beside this one.
    #[arg(long, env = "MT_TEST_BIN_DIR")]
    pub bin_dir: Option<PathBuf>,
}

/// One running service.
#[derive(Debug, Clone, Deserialize)]
pub struct Service {
    pub url: String,
    #[serde(default)]
    pub pid: Option<u32>,
}

/// The running product.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Target {
    pub gateways: Vec<Service>,
    pub projector: Option<Service>,
    pub presence: Option<Service>,
    pub servers: Servers,
    pub nats_url: Option<String>,
    /// `MT_...` settings of the services.
    pub env: BTreeMap<String, String>,
}

/// The servers that the product stands on.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Servers {
    pub nats: Option<Service>,
    pub postgres: Option<Service>,
    pub redis: Option<Service>,
}

/// Connects to NATS, with the credentials of the URL if it has some: the client does not look for them there.
///
/// # Errors
/// When it is no URL, or NATS does not answer.
pub async fn nats(url: &str) -> Result<async_nats::Client> {
    let server: async_nats::ServerAddr = url.parse().context("the URL of NATS")?;
    let options = match (server.username(), server.password()) {
        (Some(user), Some(password)) => {
            async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        }
        _ => async_nats::ConnectOptions::new(),
    };
    options.connect(server).await.context("connect to NATS")
}

impl TargetArgs {
    /// # Errors
    /// When there is neither a file nor a flag.
    pub fn resolve(&self) -> Result<Target> {
        let mut target = match fs::read_to_string(&self.up) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("{} is not what `cargo xtask up` writes", self.up.display()))?,
            Err(_) => Target::default(),
        };
        if !self.gateways.is_empty() {
            let service = |url: &String| Service { url: url.clone(), pid: None };
            target.gateways = self.gateways.iter().map(service).collect();
        }
        ensure!(
            !target.gateways.is_empty(),
            "no gateways: start `cargo xtask up`, or give --gateways (looked into {})",
            self.up.display()
        );
        Ok(target)
    }
}
