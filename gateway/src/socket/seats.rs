//! How many sessions a user may have, over all gateways.
//!
//! Each session takes a place in Redis, and renews it while its client is heard. A client that misses a heartbeat loses
//! its place to a new session of the user: a device that lost its connection without a word may come back before the
//! gateway has noticed. Without Redis only this gateway's own sessions are counted, by the same rule. Invariants: a
//! session in its start counts as well, so any number that start at once fill no more than the places; a session that
//! closes has given its place away; a place that nobody renews is free soon.

use std::{collections::HashMap, sync::Arc};

use fred::{
    interfaces::{LuaInterface, SortedSetsInterface},
    types::scripts::Script,
};
use parking_lot::Mutex;
use shared::id::UserId;
use smallvec::SmallVec;
use uuid::Uuid;

use crate::{
    hub::Hub,
    infra::redis::{Down, Redis},
    session::{Session, close::Close, settings::SessionSettings},
};

const SEATS: &str = include_str!("seats.lua");
/// Places that one call renews: Redis is busy with them for some 2 ms.
const PER_CALL: usize = 200;
/// How much later than a heartbeat an answer to it may come before it counts as missed: a part of the heartbeat, and at
/// least the second, since the answer has to travel and the place is renewed by a timer.
const GRACE_DIVISOR: u64 = 4;
/// A client that was heard so soon after the last renewal is not renewed again: an eighth of the heartbeat. It must be
/// less than the grace. Until a client is heard again a heartbeat can pass, and the place must last until then.
const RENEW_DIVISOR: u64 = 8;
const LEAST_GRACE_MS: u64 = 1_000;

/// The places of this gateway's sessions.
pub struct Seats {
    hub: Arc<Hub>,
    redis: Redis,
    script: Script,
    /// Names this process: a gateway that restarts gets another id.
    gateway: Uuid,
    per_user: usize,
    /// A client that is silent for longer than this has missed a heartbeat.
    hold_ms: u64,
    /// A place is renewed once its client was heard so much later than at the last renewal.
    renew_ms: u64,
    /// The sessions that were let in and are not attached to the hub yet.
    starting: Mutex<HashMap<UserId, SmallVec<[Arc<Session>; 1]>>>,
}

impl Seats {
    pub fn new(hub: Arc<Hub>, redis: Redis, settings: &SessionSettings) -> Self {
        let heartbeat_ms = settings.heartbeat_ms;
        Self {
            hub,
            redis,
            script: Script::from_lua(SEATS),
            gateway: Uuid::new_v4(),
            per_user: settings.per_user,
            hold_ms: heartbeat_ms + (heartbeat_ms / GRACE_DIVISOR).max(LEAST_GRACE_MS),
            renew_ms: heartbeat_ms / RENEW_DIVISOR,
            starting: Mutex::default(),
        }
    }

    /// Takes a place for a session that is about to start. `false`: the user has none left. Tell [`Seats::started`] when
    /// the start is over, and [`Seats::give_back`] when the session is.
    pub async fn take(&self, session: &Arc<Session>) -> bool {
        let user = session.user();
        {
            let mut starting = self.starting.lock();
            let silent_before_ms = self.hub.clock.now_ms().saturating_sub(self.hold_ms);
            let others = starting.get(&user).map(SmallVec::as_slice).unwrap_or_default();
            if !self.hub.has_place(user, others, self.per_user, silent_before_ms) {
                return false;
            }
            starting.entry(user).or_default().push(session.clone());
        }
        // The place is renewed at the first chance if Redis does not answer now.
        let taken = match self.ask(std::slice::from_ref(session)).await {
            Ok(held) => held.first() != Some(&false),
            Err(Down) => {
                self.hub.metrics.place_fallbacks.inc();
                true
            }
        };
        if !taken {
            self.started(session);
        }
        taken
    }

    /// The session is attached to the hub, or was refused for another reason.
    pub fn started(&self, session: &Session) {
        let mut starting = self.starting.lock();
        if let Some(of_user) = starting.get_mut(&session.user()) {
            of_user.retain(|other| other.id != session.id);
            if of_user.is_empty() {
                starting.remove(&session.user());
            }
        }
    }

    /// Gives the place of a session back that closes or has ended.
    pub async fn give_back(&self, session: &Session) {
        let key = self.redis.key(&format!("seats:{}", session.user()));
        let member = format!("{}:{}", self.gateway, session.id);
        // Without Redis the place is free once it was not renewed.
        let _given = self.redis.run(async |client| client.zrem::<(), _, _>(key, member).await).await.is_ok();
    }

    /// Renews the places of the sessions whose clients were heard, and closes a session that lost its place while its
    /// client was silent.
    pub async fn renew(&self) {
        let due = |session: &Arc<Session>| {
            let (heard_ms, seat_ms) = (session.heard_ms(), session.seat_ms());
            session.closing().is_none() && (seat_ms == 0 || heard_ms.saturating_sub(seat_ms) >= self.renew_ms)
        };
        let sessions: Vec<Arc<Session>> = self.hub.sessions().into_iter().filter(due).collect();
        if sessions.is_empty() {
            // This gateway lives.
            drop(self.ask(&[]).await);
        }
        for sessions in sessions.chunks(PER_CALL) {
            let before: Vec<u64> = sessions.iter().map(|session| session.seat_ms()).collect();
            let Ok(held) = self.ask(sessions).await else { return };
            for ((session, before_ms), _) in sessions.iter().zip(before).zip(held).filter(|(_, held)| !*held)
            {
                if before_ms > 0 && session.heard_ms().saturating_sub(before_ms) > self.hold_ms {
                    session.close(Close::NoHeartbeat, self.hub.clock.now_ms());
                }
            }
            // A session may have given its place back while this call was on its way.
            for session in sessions.iter().filter(|session| session.closing().is_some()) {
                self.give_back(session).await;
            }
        }
    }

    /// Takes or renews a place for each session. Whether each has one now.
    async fn ask(&self, sessions: &[Arc<Session>]) -> Result<Vec<bool>, Down> {
        let now_ms = self.hub.clock.now_ms();
        let mut args = vec![self.per_user.to_string(), self.hold_ms.to_string(), self.gateway.to_string()];
        let heard: Vec<u64> = sessions.iter().map(|session| session.heard_ms()).collect();
        for (session, heard_ms) in sessions.iter().zip(&heard) {
            let silent_ms = now_ms.saturating_sub(*heard_ms);
            args.extend([session.user().to_string(), session.id.to_string(), silent_ms.to_string()]);
        }
        let key = self.redis.key("");
        let answer = self.redis.run(async |client| {
            match self.script.evalsha::<Vec<u8>, _, _, _>(client, key.clone(), args.clone()).await {
                Err(error) if error.details().starts_with("NOSCRIPT") => {
                    client.eval::<Vec<u8>, _, _, _>(SEATS, key, args).await
                }
                answer => answer,
            }
        });
        let held: Vec<bool> = answer.await?.into_iter().map(|held| held == 1).collect();
        for ((session, heard_ms), _) in sessions.iter().zip(heard).zip(&held).filter(|(_, held)| **held) {
            session.set_seat(heard_ms.max(1));
        }
        Ok(held)
    }
}
