//! Explicit watch sets, and who may be in one.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use shared::id::{ChatId, UserId};
use smallvec::SmallVec;
use uuid::Uuid;

use crate::{hub::Hub, session::Session};

/// Entries in all sets of this gateway: some 50 MB.
const MAX_ENTRIES: usize = 1_000_000;

/// Chats that are looked through in one hold of the hub's lock.
const CHATS_PER_LOCK: usize = 16;

/// The gateway's watch sets hold as much as they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many users are watched on this gateway")]
pub struct TooMany;

/// Who watches whom. Nothing is kept for sessions that watch nobody.
#[derive(Default)]
pub(super) struct Watches(Mutex<Sets>);

#[derive(Default)]
struct Sets {
    by_session: HashMap<Uuid, Box<[UserId]>>,
    by_user: HashMap<UserId, SmallVec<[Arc<Session>; 1]>>,
    entries: usize,
}

impl Watches {
    /// `users` holds nobody twice.
    pub(super) fn replace(&self, session: &Arc<Session>, users: Vec<UserId>) -> Result<(), TooMany> {
        let mut sets = self.0.lock();
        sets.forget(session.id);
        if sets.entries + users.len() > MAX_ENTRIES {
            return Err(TooMany);
        }
        // The session may have ended while its request was on the way: nobody would forget it again.
        if users.is_empty() || session.is_ended() {
            return Ok(());
        }
        for user in &users {
            sets.by_user.entry(*user).or_default().push(session.clone());
        }
        sets.entries += users.len();
        sets.by_session.insert(session.id, users.into());
        Ok(())
    }

    pub(super) fn forget(&self, session: Uuid) {
        self.0.lock().forget(session);
    }

    /// Those whom the session watches.
    pub(super) fn of(&self, session: Uuid) -> Vec<UserId> {
        self.0.lock().by_session.get(&session).map(|users| users.to_vec()).unwrap_or_default()
    }

    /// The sessions that watch the user.
    pub(super) fn watchers(&self, user: UserId) -> SmallVec<[Arc<Session>; 1]> {
        self.0.lock().by_user.get(&user).cloned().unwrap_or_default()
    }
}

impl Sets {
    fn forget(&mut self, session: Uuid) {
        let Some(users) = self.by_session.remove(&session) else { return };
        self.entries -= users.len();
        for user in &users {
            if let Some(watchers) = self.by_user.get_mut(user) {
                watchers.retain(|watcher| watcher.id != session);
                if watchers.is_empty() {
                    self.by_user.remove(user);
                }
            }
        }
    }
}

/// Those of `wanted` that share a chat with `user`, each once.
pub(super) fn sharing_a_chat(hub: &Hub, user: UserId, wanted: Vec<UserId>) -> Vec<UserId> {
    let mut open: HashSet<UserId> = wanted.into_iter().filter(|other| *other != user).collect();
    let mut found = Vec::with_capacity(open.len());
    let chats: Vec<ChatId> = hub.lock().user(user).map(|user| user.chats().collect()).unwrap_or_default();
    for chats in chats.chunks(CHATS_PER_LOCK) {
        let state = hub.lock();
        for state in chats.iter().filter_map(|chat| state.loaded(*chat)?.state.as_ref()) {
            if open.is_empty() {
                return found;
            }
            if state.members.len() <= open.len() {
                found.extend(state.members.users().filter(|member| open.remove(member)));
            } else {
                let here: Vec<UserId> =
                    open.iter().copied().filter(|user| state.members.contains(*user)).collect();
                found.extend(here.into_iter().filter(|user| open.remove(user)));
            }
        }
    }
    found
}
