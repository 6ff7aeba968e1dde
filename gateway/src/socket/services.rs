//! The parts of the gateway that a connection uses.

use std::sync::Arc;

use tokio_util::task::TaskTracker;

use super::seats::Seats;
use crate::{
    auth::Auth,
    feed::{catch_up::CatchUps, epochs::Epochs, loader::Loader, reads::Reads},
    hub::Hub,
    infra::pages::Pages,
    presence::Presence,
    session::settings::SessionSettings,
    submit::Commands,
};

/// Shared by all sockets.
pub struct Services {
    pub hub: Arc<Hub>,
    pub commands: Arc<Commands>,
    pub reads: Arc<Reads>,
    pub db: sql::Db,
    pub loader: Loader,
    pub catch_ups: Arc<CatchUps>,
    pub epochs: Arc<Epochs>,
    pub presence: Arc<Presence>,
    pub auth: Arc<Auth>,
    pub pages: Arc<Pages>,
    pub seats: Seats,
    pub settings: SessionSettings,
    /// Sessions, their commands and their reads: a drain waits for all of them.
    pub tracker: TaskTracker,
    /// Whether spans are exported. If not, none are made: each would cost the log's formatter a microsecond.
    pub traced: bool,
}

impl Services {
    /// Milliseconds since the gateway started.
    pub fn now_ms(&self) -> u64 {
        self.hub.clock.now_ms()
    }
}
