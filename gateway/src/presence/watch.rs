//! The sets of users that sessions watch.
//!
//! Invariants: both directions, from a session to its users and back, hold the same pairs; a session that has ended, or
//! watches nobody, holds no memory here; the number of pairs on a gateway is bounded.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use shared::id::UserId;
use smallvec::SmallVec;
use uuid::Uuid;

use crate::session::Session;

/// Pairs of a session and a user in all sets of this gateway: some 50 MB.
const MAX_ENTRIES: usize = 1_000_000;

/// The sets of this gateway are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many users are watched on this gateway")]
pub struct TooMany;

/// The sets of all sessions.
#[derive(Default)]
pub(super) struct Watches(Mutex<Sets>);

#[derive(Default)]
struct Sets {
    by_session: HashMap<Uuid, Box<[UserId]>>,
    by_user: HashMap<UserId, SmallVec<[Arc<Session>; 1]>>,
    entries: usize,
}

impl Watches {
    /// Replaces the set of a session. `users` holds no user twice.
    ///
    /// # Errors
    /// [`TooMany`] if the new set does not fit. The session then watches nobody.
    pub(super) fn replace(&self, session: &Arc<Session>, users: Vec<UserId>) -> Result<(), TooMany> {
        let mut sets = self.0.lock();
        sets.forget(session.id);
        if sets.entries + users.len() > MAX_ENTRIES {
            return Err(TooMany);
        }
        // A session that has ended meanwhile was already forgotten, so its set would stay for ever.
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

    /// The users that the session watches.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::stage;

    fn session() -> Arc<Session> {
        stage::Stage::new().session(1)
    }

    fn users(ids: &[u64]) -> Vec<UserId> {
        ids.iter().map(|id| stage::user(*id)).collect()
    }

    fn watchers(watches: &Watches, id: u64) -> Vec<Uuid> {
        watches.watchers(stage::user(id)).iter().map(|session| session.id).collect()
    }

    fn is_empty(watches: &Watches) -> bool {
        let sets = watches.0.lock();
        sets.by_session.is_empty() && sets.by_user.is_empty() && sets.entries == 0
    }

    #[test]
    fn a_new_set_replaces_the_old_one_in_both_directions() {
        let (watches, session) = (Watches::default(), session());
        watches.replace(&session, users(&[2, 3])).unwrap();
        watches.replace(&session, users(&[3, 4])).unwrap();
        assert_eq!(watches.of(session.id), users(&[3, 4]));
        assert!(watchers(&watches, 2).is_empty());
        assert_eq!(watchers(&watches, 3), [session.id], "no session stands there twice");
        assert_eq!(watches.0.lock().entries, 2);
    }

    #[test]
    fn sessions_watch_the_same_user_independently() {
        let (watches, one, other) = (Watches::default(), session(), session());
        watches.replace(&one, users(&[2])).unwrap();
        watches.replace(&other, users(&[2])).unwrap();
        watches.forget(one.id);
        assert_eq!(watchers(&watches, 2), [other.id]);
        assert_eq!(watches.of(one.id), []);
    }

    #[test]
    fn an_empty_set_and_a_session_that_ended_cost_nothing() {
        let (watches, session) = (Watches::default(), session());
        watches.replace(&session, users(&[2])).unwrap();
        watches.replace(&session, Vec::new()).unwrap();
        assert!(is_empty(&watches));
        watches.replace(&session, users(&[2])).unwrap();
        watches.forget(session.id);
        watches.forget(session.id);
        assert!(is_empty(&watches));
        session.end();
        watches.replace(&session, users(&[2])).unwrap();
        assert!(is_empty(&watches), "nobody would forget it any more");
    }

    #[test]
    fn what_exceeds_the_bound_is_refused() {
        let (watches, session) = (Watches::default(), session());
        watches.0.lock().entries = MAX_ENTRIES - 2;
        watches.replace(&session, users(&[2, 3])).unwrap();
        assert_eq!(watches.replace(&session, users(&[2, 3, 4])), Err(TooMany));
        assert_eq!(watches.of(session.id), [], "its old set is gone");
        watches.replace(&session, users(&[4])).unwrap();
        assert_eq!(watches.0.lock().entries, MAX_ENTRIES - 1);
    }
}
