//! The sets of users that sessions watch.
//!
//! Each pair of a session and a user whom it watches comes with a chat that the two share: that is why the session may
//! see them. Invariants: both directions, from a session to its users and back, hold the same pairs; a session that has
//! ended, or watches nobody, holds no memory here; the number of pairs on a gateway is bounded.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use shared::id::{ChatId, UserId};
use smallvec::SmallVec;
use uuid::Uuid;

use crate::session::Session;

/// Pairs of a session and a user in all sets of this gateway: some 60 MB.
const MAX_ENTRIES: usize = 1_000_000;

/// The sets of this gateway are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many users are watched on this gateway")]
pub struct TooMany;

/// A user who is watched, and a chat in which the watcher meets them.
pub(super) type Watched = (UserId, ChatId);

/// The sets of all sessions.
#[derive(Default)]
pub(super) struct Watches(Mutex<Sets>);

#[derive(Default)]
struct Sets {
    /// Ascending by user.
    by_session: HashMap<Uuid, Vec<Watched>>,
    by_user: HashMap<UserId, SmallVec<[Arc<Session>; 1]>>,
    entries: usize,
}

impl Watches {
    /// Replaces the set of a session. `users` holds no user twice.
    ///
    /// # Errors
    /// [`TooMany`] if the new set does not fit. The session then watches nobody.
    pub(super) fn replace(&self, session: &Arc<Session>, mut users: Vec<Watched>) -> Result<(), TooMany> {
        let mut sets = self.0.lock();
        sets.forget(session.id);
        if sets.entries + users.len() > MAX_ENTRIES {
            return Err(TooMany);
        }
        // A session that closes or has ended was already forgotten, so its set would stay for ever.
        if users.is_empty() || session.closing().is_some() || session.is_ended() {
            return Ok(());
        }
        for (user, _) in &users {
            sets.by_user.entry(*user).or_default().push(session.clone());
        }
        sets.entries += users.len();
        users.sort_unstable();
        users.shrink_to_fit();
        sets.by_session.insert(session.id, users);
        Ok(())
    }

    pub(super) fn forget(&self, session: Uuid) {
        self.0.lock().forget(session);
    }

    /// How many pairs there are.
    pub(super) fn len(&self) -> usize {
        self.0.lock().entries
    }

    /// The users that the session watches.
    pub(super) fn of(&self, session: Uuid) -> Vec<UserId> {
        let sets = self.0.lock();
        let users = sets.by_session.get(&session).into_iter().flatten();
        users.map(|(user, _)| *user).collect()
    }

    /// The sessions that watch the user.
    pub(super) fn watchers(&self, user: UserId) -> SmallVec<[Arc<Session>; 1]> {
        self.0.lock().by_user.get(&user).cloned().unwrap_or_default()
    }

    /// The chat in which the session's user met the watched one last; `None`: the session does not watch them.
    pub(super) fn meeting(&self, session: Uuid, user: UserId) -> Option<ChatId> {
        let sets = self.0.lock();
        let users = sets.by_session.get(&session)?;
        let at = users.binary_search_by_key(&user, |(user, _)| *user).ok()?;
        Some(users[at].1)
    }

    /// Notes another chat in which the two meet. `None`: there is none any more, and the watch ends.
    pub(super) fn meet_again(&self, session: Uuid, user: UserId, chat: Option<ChatId>) {
        let mut sets = self.0.lock();
        let Some(users) = sets.by_session.get_mut(&session) else { return };
        let Ok(at) = users.binary_search_by_key(&user, |(user, _)| *user) else { return };
        if let Some(chat) = chat {
            users[at].1 = chat;
            return;
        }
        users.remove(at);
        if users.is_empty() {
            sets.by_session.remove(&session);
        }
        sets.entries -= 1;
        sets.unlink(session, user);
    }
}

impl Sets {
    fn forget(&mut self, session: Uuid) {
        let Some(users) = self.by_session.remove(&session) else { return };
        self.entries -= users.len();
        for (user, _) in &users {
            self.unlink(session, *user);
        }
    }

    fn unlink(&mut self, session: Uuid, user: UserId) {
        if let Some(watchers) = self.by_user.get_mut(&user) {
            watchers.retain(|watcher| watcher.id != session);
            if watchers.is_empty() {
                self.by_user.remove(&user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hub::stage, session::close::Close};

    fn session() -> Arc<Session> {
        stage::Stage::new().session(1)
    }

    fn users(ids: &[u64]) -> Vec<UserId> {
        ids.iter().map(|id| stage::user(*id)).collect()
    }

    fn met(ids: &[u64]) -> Vec<Watched> {
        ids.iter().map(|id| (stage::user(*id), stage::chat(1))).collect()
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
        watches.replace(&session, met(&[2, 3])).unwrap();
        watches.replace(&session, met(&[4, 3])).unwrap();
        assert_eq!(watches.of(session.id), users(&[3, 4]));
        assert!(watchers(&watches, 2).is_empty());
        assert_eq!(watchers(&watches, 3), [session.id], "no session stands there twice");
        assert_eq!(watches.0.lock().entries, 2);
    }

    #[test]
    fn sessions_watch_the_same_user_independently() {
        let (watches, one, other) = (Watches::default(), session(), session());
        watches.replace(&one, met(&[2])).unwrap();
        watches.replace(&other, met(&[2])).unwrap();
        watches.forget(one.id);
        assert_eq!(watchers(&watches, 2), [other.id]);
        assert_eq!(watches.of(one.id), []);
    }

    #[test]
    fn a_watch_moves_to_another_chat_and_ends_with_the_last_one() {
        let (watches, session) = (Watches::default(), session());
        watches.replace(&session, met(&[2, 3])).unwrap();
        watches.meet_again(session.id, stage::user(2), Some(stage::chat(7)));
        assert_eq!(watches.meeting(session.id, stage::user(2)), Some(stage::chat(7)));
        watches.meet_again(session.id, stage::user(2), None);
        assert_eq!(watches.meeting(session.id, stage::user(2)), None);
        assert_eq!((watchers(&watches, 2), watches.of(session.id)), (Vec::new(), users(&[3])));
        watches.meet_again(session.id, stage::user(2), None);
        watches.meet_again(session.id, stage::user(3), None);
        assert!(is_empty(&watches));
    }

    #[test]
    fn an_empty_set_and_a_session_that_closes_or_has_ended_cost_nothing() {
        let (watches, session, closes) = (Watches::default(), session(), self::session());
        watches.replace(&session, met(&[2])).unwrap();
        watches.replace(&session, Vec::new()).unwrap();
        assert!(is_empty(&watches));
        watches.replace(&session, met(&[2])).unwrap();
        watches.forget(session.id);
        watches.forget(session.id);
        assert!(is_empty(&watches));
        session.end();
        watches.replace(&session, met(&[2])).unwrap();
        closes.close(Close::Revoked, 0);
        watches.replace(&closes, met(&[2])).unwrap();
        assert!(is_empty(&watches), "nobody would forget it any more");
    }

    #[test]
    fn what_exceeds_the_bound_is_refused() {
        let (watches, session) = (Watches::default(), session());
        watches.0.lock().entries = MAX_ENTRIES - 2;
        watches.replace(&session, met(&[2, 3])).unwrap();
        assert_eq!(watches.replace(&session, met(&[2, 3, 4])), Err(TooMany));
        assert_eq!(watches.of(session.id), [], "its old set is gone");
        watches.replace(&session, met(&[4])).unwrap();
        assert_eq!(watches.0.lock().entries, MAX_ENTRIES - 1);
    }
}
