//! Explicit watch sets, and who may be in one.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use shared::id::UserId;
use smallvec::SmallVec;
use uuid::Uuid;

use crate::session::Session;

/// Entries in all sets of this gateway: some 50 MB.
const MAX_ENTRIES: usize = 1_000_000;

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
