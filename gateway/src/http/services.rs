//! The services that the routes call. They are made in `serve` alone.

use std::sync::Arc;

use streams::Nats;

use super::{HttpSettings, limits::Limits, request::origin::Origins};
use crate::{
    auth::Auth,
    feed::reads::Reads,
    hub::{Hub, Phase},
    infra::{addresses::Addresses, redis::Redis},
    socket,
    submit::Commands,
};

/// Why a gateway takes no sessions at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
    Draining,
    /// The recent past of the log is still being read.
    Starting,
    /// The revocations of before the start are not read yet.
    Revocations,
    /// The tail has proven nothing for seconds: this gateway does not know where the log is.
    Unproven,
    /// The log does not answer appends.
    Unanswered,
    /// The log is above its guard.
    Full,
}

/// The services of the routes, shared by all requests.
pub struct Services {
    pub auth: Arc<Auth>,
    pub commands: Arc<Commands>,
    pub reads: Arc<Reads>,
    pub db: sql::Db,
    pub limits: Limits,
    pub origins: Origins,
    pub addresses: Arc<Addresses>,
    pub hub: Arc<Hub>,
    pub redis: Redis,
    /// `/readyz` asks it whether it is connected; nothing else here uses it.
    pub nats: Nats,
    /// The services of sessions, handed over to requests that become WebSockets.
    pub sockets: Arc<socket::Services>,
    pub settings: HttpSettings,
}

impl Services {
    /// Whether this gateway can prove what it would tell a session.
    ///
    /// # Errors
    /// The first reason why it can't.
    pub fn ready(&self) -> Result<(), Unready> {
        let checks = [
            (self.hub.phase() != Phase::Draining, Unready::Draining),
            (self.hub.is_open(), Unready::Starting),
            (self.auth.revocations.is_primed(), Unready::Revocations),
            (self.hub.is_proven(), Unready::Unproven),
            (self.commands.is_answered(), Unready::Unanswered),
            (!self.commands.is_full(), Unready::Full),
        ];
        checks.into_iter().find(|(fine, _)| !fine).map_or(Ok(()), |(_, why)| Err(why))
    }
}
