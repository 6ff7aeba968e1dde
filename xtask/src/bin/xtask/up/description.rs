//! `up.json`: what runs and where, for programs: load tests and measurements read it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};
use xtask::servers::write_private;

use super::backing::Backing;
use super::fleet::Fleet;

/// The file; removed when what it describes has ended.
#[derive(Debug)]
pub(crate) struct Description(PathBuf);

impl Description {
    pub(crate) fn write(
        fleet: &Fleet,
        backing: &Backing,
        env: &[(String, String)],
        data: &Path,
    ) -> Result<Self> {
        let path = data.join("up.json");
        let env: serde_json::Map<String, Value> =
            env.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        let service = |name: &str| fleet.describe(name).map(|(url, pid)| json!({ "url": url, "pid": pid }));
        let server = |server: &xtask::servers::Server| json!({ "url": server.url(), "pid": server.pid() });
        let text = json!({
            "gateways": (1..).map_while(|n| service(&format!("gateway-{n}"))).collect::<Vec<_>>(),
            "projector": service("projector"),
            "presence": service("presence"),
            "servers": {
                "nats": server(&backing.nats),
                "postgres": server(&backing.postgres),
                "redis": server(&backing.redis),
            },
            "natsUrl": backing.nats.url(),
            "postgresUrl": backing.database_url(),
            "redisUrl": backing.redis.url(),
            "keysDir": data.join("keys"),
            "env": env,
        });
        // The addresses hold the servers' password.
        write_private(&path, &format!("{text:#}\n"))?;
        Ok(Self(path))
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // Nobody is misled by a file whose addresses do not answer.
        fs::remove_file(&self.0).ok();
    }
}
