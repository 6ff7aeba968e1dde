//! From decisions to announcements: steps down that are due are decided, silent gateways are swept, and changes of
//! users are announced.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use fred::prelude::FredResult;
use shared::id::UserId;
use streams::{
    Nats,
    signal::{PresenceChange, Signal},
};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    config::Timing,
    listening::Listening,
    metrics::Metrics,
    registry::{Announcement, Registry},
};

/// How late an announcement may be: little beside the second between two reports of a gateway.
const TICK: Duration = Duration::from_millis(200);
/// Partners of one user, in either direction of ids.
const MAX_PARTNERS: usize = 5_000;
/// Partners named in one signal: some 50 KB.
const PARTNERS_PER_SIGNAL: usize = 10_000;
/// Users whose partners are remembered for the time that Postgres is away: some 50 MB with 20 partners each.
const MAX_REMEMBERED: usize = 200_000;

/// The task that announces.
pub struct Announcer {
    pub nats: Nats,
    pub db: sql::Db,
    pub registry: Registry,
    pub timing: Timing,
    pub metrics: Metrics,
    remembered: HashMap<UserId, Arc<[UserId]>>,
}

impl Announcer {
    pub fn new(nats: Nats, db: sql::Db, registry: Registry, timing: Timing, metrics: Metrics) -> Self {
        Self { nats, db, registry, timing, metrics, remembered: HashMap::new() }
    }

    /// Announces for ever.
    pub async fn run(&mut self, listening: &Listening) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.tick(listening).await {
                listening.interrupted();
                tracing::debug!(%error, "redis does not answer; presence is frozen");
            }
        }
    }

    async fn tick(&mut self, listening: &Listening) -> FredResult<()> {
        let silence_ms = self.timing.silence_ms;
        let registry = &self.registry;
        if listening.for_at_least(self.timing.silence()) {
            // Sent together: while nothing happens, which is nearly always, they are one round trip.
            let (swept, ()) =
                tokio::try_join!(biased; registry.sweep(silence_ms), registry.decide_due(silence_ms))?;
            self.metrics.swept_total.inc_by(swept as u64);
        } else {
            registry.look(silence_ms).await?;
        }
        loop {
            let claimed = self.registry.claim().await?;
            if claimed.is_empty() || !self.announce(&claimed).await {
                return Ok(());
            }
            self.registry.done(&claimed).await?;
        }
    }

    /// `false`: NATS did not take an announcement. The claims run out, and then this or another instance tries again.
    async fn announce(&mut self, claimed: &[Announcement]) -> bool {
        let mut partners = self.partners(claimed).await;
        let mut changes = Vec::new();
        let mut named = 0;
        for Announcement { user, announced, .. } in claimed {
            let partners = partners.remove(user).map(|partners| partners.to_vec()).unwrap_or_default();
            named += partners.len();
            changes.push(PresenceChange { user: *user, announced: *announced, partners });
            if named >= PARTNERS_PER_SIGNAL {
                named = 0;
                if !self.send(std::mem::take(&mut changes)) {
                    return false;
                }
            }
        }
        changes.is_empty() || self.send(changes)
    }

    fn send(&self, changes: Vec<PresenceChange>) -> bool {
        let count = changes.len() as u64;
        if let Err(error) = self.nats.signal(&Signal::Presence(changes)) {
            tracing::debug!(%error, "an announcement did not leave");
            return false;
        }
        self.metrics.announced_total.inc_by(count);
        true
    }

    /// The partners of each user; from memory while Postgres does not answer.
    async fn partners(&mut self, claimed: &[Announcement]) -> HashMap<UserId, Arc<[UserId]>> {
        let users: HashSet<UserId> = claimed.iter().map(|one| one.user).collect();
        let users: Vec<UserId> = users.into_iter().collect();
        match self.db.partners(&users, MAX_PARTNERS).await {
            Ok(pairs) => {
                let mut found: HashMap<UserId, Vec<UserId>> =
                    users.into_iter().map(|user| (user, Vec::new())).collect();
                for (user, partner) in pairs {
                    found.entry(user).or_default().push(partner);
                }
                let found: HashMap<UserId, Arc<[UserId]>> =
                    found.into_iter().map(|(user, partners)| (user, partners.into())).collect();
                if self.remembered.len() + found.len() > MAX_REMEMBERED {
                    self.remembered.clear();
                }
                self.remembered.extend(found.clone());
                found
            }
            Err(error) => {
                tracing::warn!(%error, "partners come from memory");
                let known =
                    users.into_iter().filter_map(|user| Some((user, self.remembered.get(&user)?.clone())));
                known.collect()
            }
        }
    }
}
