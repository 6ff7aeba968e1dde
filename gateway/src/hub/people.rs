//! Questions about the local users: their sessions, their chats, and the users with whom they share chats.
//!
//! Nothing here changes the hub. What takes long is done in several short holds of the lock.

use std::{collections::HashSet, sync::Arc};

use shared::{
    entitlement::Sight,
    id::{ChatId, Seq, UserId},
    permission::ChatType,
};
use uuid::Uuid;

use super::{Hub, ring::Verdict};
use crate::session::{Lane, Session, close::Close};

/// Chats whose members are looked through in one hold of the lock. A chat may have 10,000 of them, but a look at a few
/// wanted users costs a search each.
const CHATS_PER_LOCK: usize = 16;

impl Hub {
    /// All local sessions.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        self.lock().sessions().cloned().collect()
    }

    /// Whether the user has fewer than `most` sessions here, with those of `starting` that are not attached yet. One that
    /// is being closed has given its place away. If there are as many, the one whose client has been silent for the
    /// longest is closed for the new one, if it has not been heard since `silent_before_ms`.
    pub fn has_place(
        &self,
        user: UserId,
        starting: &[Arc<Session>],
        most: usize,
        silent_before_ms: u64,
    ) -> bool {
        let state = self.lock();
        // A session's lane changes under the lock, so none is counted twice and none is missed.
        let starting = starting.iter().filter(|session| session.lane() == Lane::Starting);
        let attached = state.user(user).into_iter().flat_map(|user| &user.sessions);
        let open: Vec<Arc<Session>> =
            starting.chain(attached).filter(|session| session.closing().is_none()).cloned().collect();
        drop(state);
        if open.len() < most {
            return true;
        }
        let longest = open.iter().min_by_key(|session| session.heard_ms());
        let silent = longest.filter(|session| session.heard_ms() < silent_before_ms);
        if let Some(session) = silent {
            session.close(Close::NoHeartbeat, self.clock.now_ms());
        }
        silent.is_some()
    }

    /// How many sessions a user has here.
    #[cfg(test)]
    pub fn sessions_of(&self, user: UserId) -> usize {
        self.lock().user(user).map_or(0, |user| user.sessions.len())
    }

    /// Every session of these users.
    pub fn sessions_of_all(&self, users: &[UserId]) -> Vec<Arc<Session>> {
        let state = self.lock();
        let users = users.iter().filter_map(|user| state.user(*user));
        users.flat_map(|user| &user.sessions).cloned().collect()
    }

    /// Closes the sessions of a token family, and detaches them. If its user is not known, all sessions are looked
    /// through.
    pub fn revoke(&self, user: Option<UserId>, family: Uuid) {
        let now_ms = self.clock.now_ms();
        let state = self.lock();
        let of_family = |session: &&Arc<Session>| session.identity.family == family;
        let mut revoked: Vec<Arc<Session>> = match user {
            Some(user) => {
                let sessions = state.user(user).into_iter().flat_map(|user| &user.sessions);
                sessions.filter(of_family).cloned().collect()
            }
            None => state.sessions().filter(of_family).cloned().collect(),
        };
        revoked.extend(state.away.values().filter(of_family).cloned());
        drop(state);
        for session in revoked {
            session.close(Close::Revoked, now_ms);
            self.detach(&session);
        }
    }

    /// Whether the user's memberships are loaded.
    pub fn knows(&self, user: UserId) -> bool {
        self.lock().user(user).is_some()
    }

    /// Whether the user is a member of the chat, as far as the hub knows the user.
    pub fn is_member(&self, chat: ChatId, user: UserId) -> bool {
        self.lock().user(user).is_some_and(|user| user.is_member(chat))
    }

    /// The chats among these that have local members.
    pub fn with_locals(&self, chats: impl Iterator<Item = ChatId>) -> HashSet<ChatId> {
        let state = self.lock();
        chats.filter(|chat| state.chats.get(chat).is_some_and(|chat| !chat.locals.is_empty())).collect()
    }

    /// The live local sessions of a chat's members, each with what its user sees of the chat.
    pub fn live_members(&self, chat: ChatId) -> Vec<(Arc<Session>, Sight)> {
        let state = self.lock();
        let Some(locals) = state.loaded(chat).map(|chat| &chat.locals) else { return Vec::new() };
        let users = locals.iter().filter_map(|slot| state.users.get(*slot as usize));
        let mut live = Vec::new();
        for user in users.filter(|user| user.is_member(chat)) {
            let Some(sight) = state.sight(user, chat) else { continue };
            let sessions = user.sessions.iter().filter(|session| session.lane() == Lane::Live);
            live.extend(sessions.map(|session| (session.clone(), sight.clone())));
        }
        live
    }

    /// The user's chats with the newest events, at most `most` of them, in no order.
    pub fn liveliest(&self, user: UserId, most: usize) -> Vec<ChatId> {
        let state = self.lock();
        let chats = state.user(user).into_iter().flat_map(|user| user.chats());
        let mut by_head: Vec<(Seq, ChatId)> =
            chats.filter_map(|chat| Some((state.loaded(chat)?.head, chat))).collect();
        drop(state);
        if by_head.len() > most {
            by_head.select_nth_unstable_by(most, |one, other| other.cmp(one));
            by_head.truncate(most);
        }
        by_head.into_iter().map(|(_, chat)| chat).collect()
    }

    /// The other members of the user's direct chats, at most `most` of them.
    pub fn partners(&self, user: UserId, most: usize) -> Vec<UserId> {
        let state = self.lock();
        let chats = state.user(user).into_iter().flat_map(|user| user.chats());
        let direct = chats
            .filter_map(|chat| state.loaded(chat)?.state.as_ref())
            .filter(|state| state.chat_type == ChatType::Direct);
        direct.filter_map(|state| state.members.users().find(|member| *member != user)).take(most).collect()
    }

    /// A chat in which two users meet now, of whom the first is local: `last`, in which they met before, if they still
    /// do. `Some(None)`: they share no chat. `None`: the hub can't tell, because it does not know the first one or has yet
    /// to load one of their chats.
    pub fn meeting_place(&self, user: UserId, other: UserId, last: ChatId) -> Option<Option<ChatId>> {
        let state = self.lock();
        state.user(user)?;
        let members = state.loaded(last).and_then(|chat| chat.state.as_ref()).map(|state| &state.members);
        if members.is_some_and(|members| members.contains(user) && members.contains(other)) {
            return Some(Some(last));
        }
        drop(state);
        if let Some((_, chat)) = self.sharing_a_chat(user, vec![other]).first() {
            return Some(Some(*chat));
        }
        let state = self.lock();
        let known = state.user(user)?;
        let all_loaded = known.pending.is_empty() && known.chats().all(|chat| state.loaded(chat).is_some());
        all_loaded.then_some(None)
    }

    /// Whether the user is a member of a loaded chat.
    pub fn is_in(&self, chat: ChatId, user: UserId) -> bool {
        let state = self.lock();
        let held = state.loaded(chat).and_then(|chat| chat.state.as_ref());
        held.is_some_and(|state| state.members.contains(user))
    }

    /// The users among `wanted` who share a chat with `user`, each once, with such a chat.
    pub fn sharing_a_chat(&self, user: UserId, wanted: Vec<UserId>) -> Vec<(UserId, ChatId)> {
        let mut open: HashSet<UserId> = wanted.into_iter().filter(|other| *other != user).collect();
        let mut found = Vec::with_capacity(open.len());
        let chats: Vec<ChatId> =
            self.lock().user(user).map(|user| user.chats().collect()).unwrap_or_default();
        for chats in chats.chunks(CHATS_PER_LOCK) {
            let state = self.lock();
            for chat in chats {
                let Some(state) = state.loaded(*chat).and_then(|chat| chat.state.as_ref()) else { continue };
                if open.is_empty() {
                    return found;
                }
                let here: Vec<UserId> = if state.members.len() <= open.len() {
                    state.members.users().filter(|member| open.contains(member)).collect()
                } else {
                    open.iter().copied().filter(|user| state.members.contains(*user)).collect()
                };
                for user in here {
                    open.remove(&user);
                    found.push((user, *chat));
                }
            }
        }
        found
    }

    /// The user's chats with valid events after `after` and up to `upto`, each with its last such event. Events older
    /// than the ring are left out, and so are chats that a look at `most` entries does not reach.
    pub fn heads_between(&self, user: UserId, after: Seq, upto: Seq, most: usize) -> Vec<(ChatId, Seq)> {
        let state = self.lock();
        let Some(user) = state.user(user) else { return Vec::new() };
        let mut steps = most;
        let mut heads = Vec::new();
        for chat in user.chats() {
            for (seq, entry) in state.ring.chain(chat) {
                if seq <= after || steps == 0 {
                    break;
                }
                steps -= 1;
                if seq <= upto && entry.verdict == Verdict::Valid && user.entitled(chat, seq) {
                    heads.push((chat, seq));
                    break;
                }
            }
        }
        heads
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{
        attach::Reattached,
        stage::{Stage, user},
    };

    #[test]
    fn a_session_in_its_start_takes_a_place_and_one_that_closes_has_given_its_place_away() {
        let stage = Stage::with_group(&[1, 2]);
        let (device, starting) = (stage.connect(1), [stage.session(1)]);
        let has = |starting: &[Arc<Session>], most| stage.hub.has_place(user(1), starting, most, 0);
        assert!(has(&[], 2) && has(&starting, 3) && !has(&starting, 2) && !has(&[], 1));
        assert!(stage.hub.has_place(user(2), &[], 1, 0), "of another user");
        starting[0].set_lane(Lane::Live);
        assert!(has(&starting, 2), "it is attached by now, and none is counted twice");
        device.session.close(Close::Draining, 0);
        assert!(has(&[], 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_session_that_was_silent_for_the_longest_makes_room_if_it_missed_a_heartbeat() {
        let stage = Stage::with_group(&[1]);
        let [one, other] = [stage.connect(1), stage.connect(1)];
        one.session.heard(50);
        other.session.heard(40);
        assert!(!stage.hub.has_place(user(1), &[], 2, 40), "nobody has missed one");
        assert!(stage.hub.has_place(user(1), &[], 2, 60));
        assert_eq!(other.session.closing(), Some(Close::NoHeartbeat.code()));
        assert_eq!(one.session.closing(), None);
    }

    #[test]
    fn a_revoked_session_is_detached_before_its_task_takes_notice() {
        let stage = Stage::with_group(&[1]);
        let device = stage.connect(1);
        stage.hub.revoke(None, device.session.identity.family);
        assert_eq!(device.session.closing(), Some(Close::Revoked.code()));
        assert_eq!(stage.hub.sessions_of(user(1)), 0);
    }

    #[test]
    fn a_session_that_is_about_to_be_attached_again_is_revoked_like_any_other() {
        let mut stage = Stage::with_group(&[1]);
        let device = stage.connect(1);
        let session = stage.lose_tail(stage.log.tip()).pop().unwrap();
        stage.hub.revoke(Some(user(1)), device.session.identity.family);
        assert_eq!(session.closing(), Some(Close::Revoked.code()));
        stage.load_user(1);
        assert_eq!(stage.hub.reattach(&session, stage.hub.epoch()), Reattached::Ended);
        assert_eq!(stage.hub.sessions_of(user(1)), 0);
    }
}
