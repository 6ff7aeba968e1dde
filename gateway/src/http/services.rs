//! What the routes need of the rest of the gateway.

use std::sync::Arc;

use streams::Nats;

use super::{HttpSettings, limits::Limits, request::origin::Origins};
use crate::{auth::Auth, feed::reads::Reads, hub::Hub, infra::redis::Redis, socket, submit::Commands};

/// Shared by all requests.
pub struct Services {
    pub auth: Arc<Auth>,
    pub commands: Arc<Commands>,
    pub reads: Arc<Reads>,
    pub db: sql::Db,
    pub limits: Limits,
    pub origins: Origins,
    pub hub: Arc<Hub>,
    pub redis: Redis,
    /// For `/readyz` alone.
    pub nats: Nats,
    /// For requests that become WebSockets.
    pub sockets: Arc<socket::Services>,
    pub settings: HttpSettings,
}
