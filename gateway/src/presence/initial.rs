//! The state that a session gets once it is live, or when it changes whom it watches: one `Presence` per user who is
//! not offline.
//!
//! Read from Redis, many sessions and users at a time, so that a storm of connects costs a few reads. Without Redis
//! a session gets nothing but the changes that follow.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use fred::interfaces::KeysInterface;
use shared::id::UserId;
use streams::signal::{Announced, PresenceState};

use super::{Presence, push};
use crate::session::{
    Session,
    wire::{self, Encoding},
};

/// Sessions served together.
const SESSIONS: usize = 64;
/// Keys in one read: well under a millisecond for Redis.
const KEYS: usize = 1_000;
/// Direct-chat partners of one user that are reported.
const MAX_PARTNERS: usize = 1_000;

/// A session, and of whom it wants the state.
pub(super) type Request = (Arc<Session>, Audience);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// Of the explicit set.
    Watched,
    /// And of the partners in direct chats.
    All,
}

/// Serves those who ask, for ever.
pub(super) async fn serve(presence: &Presence) {
    loop {
        let asked = presence.initial.next(SESSIONS).await;
        answer(presence, asked).await;
    }
}

async fn answer(presence: &Presence, asked: Vec<Request>) {
    let mut wanted = Vec::with_capacity(asked.len());
    for (session, whose) in asked.into_iter().filter(|(session, _)| session.closing().is_none()) {
        let users = presence.whom(&session, whose);
        wanted.push((session, users));
    }
    let users: HashSet<UserId> = wanted.iter().flat_map(|(_, users)| users).copied().collect();
    let announced = presence.announced(users.into_iter().collect()).await;
    let mut frames = Frames::default();
    for (session, users) in wanted {
        for user in users {
            if let Some(announced) = announced.get(&user) {
                let bytes = frames.of(user, *announced, session.identity.encoding);
                presence.push(&session, &bytes);
            }
        }
    }
}

impl Presence {
    fn whom(&self, session: &Session, whose: Audience) -> Vec<UserId> {
        let mut users = self.watches.of(session.id);
        if whose == Audience::All {
            users.extend(self.hub.partners(session.user(), MAX_PARTNERS));
            users.sort_unstable();
            users.dedup();
        }
        users
    }

    /// The users that are not offline, as far as Redis tells in time.
    async fn announced(&self, users: Vec<UserId>) -> HashMap<UserId, Announced> {
        let mut announced = HashMap::new();
        for users in users.chunks(KEYS) {
            let keys: Vec<String> =
                users.iter().map(|user| self.redis.key(&Announced::redis_key(*user))).collect();
            let read = self.redis.run(async |client| client.mget::<Vec<Option<String>>, _>(keys).await);
            let Ok(texts) = read.await else { break };
            for (user, text) in users.iter().zip(texts) {
                if let Some(known) = text.as_deref().and_then(Announced::from_redis) {
                    announced.insert(*user, known);
                }
            }
        }
        // What was announced while we read is newer.
        self.recent.correct(&mut announced, &users, self.clock.now_ms());
        announced.retain(|_, announced| announced.state != PresenceState::Offline);
        announced
    }
}

/// Frames that several sessions of a batch share.
#[derive(Default)]
struct Frames(HashMap<(UserId, bool), Bytes>);

impl Frames {
    fn of(&mut self, user: UserId, announced: Announced, encoding: Encoding) -> Bytes {
        let key = (user, encoding == Encoding::Json);
        self.0
            .entry(key)
            .or_insert_with(|| wire::encode(&push::frame(user, announced).into(), encoding))
            .clone()
    }
}
