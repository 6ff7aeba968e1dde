//! The handles and settings that every partition of a process works with.

use std::sync::Arc;

use sql::Db;
use streams::{Nats, nap::Rest};

use crate::{config::ProjectorSettings, metrics::Metrics};

/// What all partitions of a process share.
#[derive(Clone)]
pub struct Projector {
    pub nats: Nats,
    pub db: Db,
    pub metrics: Metrics,
    pub settings: Arc<ProjectorSettings>,
    pub rest: Arc<Rest>,
}
