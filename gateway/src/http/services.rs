//! The services that the routes call. They are made in `serve` alone.

use std::sync::Arc;

use streams::Nats;

use super::{HttpSettings, limits::Limits, request::origin::Origins};
use crate::{auth::Auth, feed::reads::Reads, hub::Hub, infra::redis::Redis, socket, submit::Commands};

/// The services of the routes, shared by all requests.
pub struct Services {
    pub auth: Arc<Auth>,
    pub commands: Arc<Commands>,
    pub reads: Arc<Reads>,
    pub db: sql::Db,
    pub limits: Limits,
    pub origins: Origins,
    pub hub: Arc<Hub>,
    pub redis: Redis,
    /// `/readyz` asks it whether it is connected; nothing else here uses it.
    pub nats: Nats,
    /// The services of sessions, handed over to requests that become WebSockets.
    pub sockets: Arc<socket::Services>,
    pub settings: HttpSettings,
}
