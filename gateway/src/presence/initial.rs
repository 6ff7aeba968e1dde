//! The state of others that a session gets when it becomes live, or changes the users it watches: one `Presence` frame
//! for each user who is not offline.
//!
//! The state is read from Redis for many sessions and users at a time, so that a storm of connects costs few reads.
//! While Redis is away, a session gets only the changes that follow.

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

/// Sessions that are served together.
const SESSIONS: usize = 64;
/// Keys in one read: Redis takes well under a millisecond for them.
const KEYS: usize = 1_000;
/// The most partners in direct chats whose state one session gets.
const MAX_PARTNERS: usize = 1_000;

/// A session, and the users whose state it wants.
pub(super) type Request = (Arc<Session>, Audience);

/// The users whose state a session wants.
#[derive(Clone, Copy)]
pub(super) enum Audience {
    /// The users that the session watches.
    Watched,
    /// Those, and the partners in direct chats.
    All,
}

/// Serves requests for ever.
pub(super) async fn serve(presence: &Presence) {
    loop {
        let asked = presence.initial.next(SESSIONS).await;
        answer(presence, asked).await;
    }
}

async fn answer(presence: &Presence, asked: Vec<Request>) {
    let mut wanted = Vec::with_capacity(asked.len());
    for (session, audience) in asked.into_iter().filter(|(session, _)| session.closing().is_none()) {
        let users = presence.users(&session, audience);
        wanted.push((session, users));
    }
    let users: HashSet<UserId> = wanted.iter().flat_map(|(_, users)| users.all()).collect();
    let announced = presence.announced(users.into_iter().collect()).await;
    let mut frames = Frames::default();
    for (session, users) in wanted {
        for user in users.all() {
            // The last chat that they shared may have ended while the states were read.
            if let Some(announced) = announced.get(&user)
                && (users.is_partner(user) || presence.still_sees(&session, user))
            {
                let bytes = frames.of(user, *announced, session.identity.encoding);
                presence.push(&session, &bytes);
            }
        }
    }
}

/// The users whose state one session gets, each list ascending.
struct Users {
    partners: Vec<UserId>,
    watched: Vec<UserId>,
}

impl Users {
    fn is_partner(&self, user: UserId) -> bool {
        self.partners.binary_search(&user).is_ok()
    }

    /// Each once.
    fn all(&self) -> impl Iterator<Item = UserId> + '_ {
        let watched = self.watched.iter().filter(|user| !self.is_partner(**user));
        self.partners.iter().chain(watched).copied()
    }
}

impl Presence {
    fn users(&self, session: &Session, audience: Audience) -> Users {
        let mut partners = match audience {
            Audience::Watched => Vec::new(),
            Audience::All => self.hub.partners(session.user(), MAX_PARTNERS),
        };
        partners.sort_unstable();
        Users { partners, watched: self.watches.of(session.id) }
    }

    /// The state of the users who are not offline, as far as Redis tells it in time.
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
        // A change that was announced during the read is newer than the state that was read.
        self.recent.correct(&mut announced, &users, self.clock.now_ms());
        announced.retain(|_, announced| announced.state != PresenceState::Offline);
        announced
    }
}

/// The frames of one batch. Each is encoded once per encoding, and shared by the sessions that get it.
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
