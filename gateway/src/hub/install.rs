//! Installing loaded chats and users. A load is the state at one sequence; the ring's entries after it bring it up to
//! the hub's position.
//!
//! Loads run without the lock, so the hub moves on meanwhile. Invariants: a load is installed only if the ring still has
//! every entry after it, and if no cut came between; an installed user's chats are all loaded; a chat that is installed
//! is as if the hub had followed it from its first event.

use std::collections::HashSet;

use shared::{
    code::Code,
    event::{Event, Kind},
    fold::ChatState,
    id::{ChatId, Seq, UserId},
};

use super::{
    Hub, State, UserSlot,
    chat::Chat,
    facts::{joining, leaving},
    judge::{Judged, Looked},
    ring::Verdict,
    user::{Interval, User},
    verdict::Key,
};

/// A chat as it was loaded.
#[derive(Debug, Clone)]
pub struct LoadedChat {
    pub chat: ChatId,
    pub state: Option<ChatState>,
    /// The state is as of this sequence.
    pub upto: Seq,
    /// The last valid event at or below `upto`.
    pub head: Seq,
    /// The ring's floor when the load began.
    pub floor: Seq,
    /// The last valid event at or below `floor`.
    pub floor_head: Seq,
    /// The void events in `(floor, upto]`. Entries that are no event at all are not among them.
    pub void: Vec<(Seq, Code)>,
    /// What the projection says of the entries after `upto` that the ring cannot judge by itself.
    pub looked: Looked,
}

/// A user as they were loaded.
#[derive(Debug, Clone)]
pub struct LoadedUser {
    pub user: UserId,
    /// The memberships are as of this sequence.
    pub upto: Seq,
    /// The memberships that hold, those that ended above the ring's floor, and the newest of the others.
    pub intervals: Vec<Interval>,
}

/// Why something could not be installed.
#[derive(Debug, PartialEq, Eq)]
pub enum Stale {
    /// The ring lacks entries that the load does not cover, or the load is ahead of the hub, or the log was cut
    /// meanwhile. Load again.
    Ring,
    /// The user is or may be a member of these chats, and they are not loaded. Load them first.
    Chats(Vec<ChatId>),
}

/// A load in flight. While it lives the ring keeps its entries as long as it is at most a quarter over its budget, so
/// that the load can be installed.
pub struct Pin<'a> {
    hub: &'a Hub,
    /// The ring's floor when the load began.
    pub floor: Seq,
    /// The hub's epoch when the load began.
    pub epoch: u32,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.hub.lock().ring.unpin();
    }
}

impl Hub {
    /// Begins a load: see [`Pin`].
    pub fn pin(&self) -> Pin<'_> {
        let mut state = self.lock();
        state.ring.pin();
        let (floor, epoch) = (state.ring.floor().seq, state.epoch);
        drop(state);
        Pin { hub: self, floor, epoch }
    }

    /// The chats among these that are not loaded.
    pub fn missing(&self, chats: impl Iterator<Item = ChatId>) -> Vec<ChatId> {
        let state = self.lock();
        chats.filter(|chat| state.loaded(*chat).is_none()).collect()
    }

    /// Installs a chat that was loaded in `epoch`. A chat that is here already stays as it is.
    ///
    /// # Errors
    /// [`Stale::Ring`].
    pub fn install_chat(&self, loaded: LoadedChat, epoch: u32) -> Result<(), Stale> {
        let now_ms = self.clock.now_ms();
        let mut state = self.lock();
        let chat = loaded.chat;
        if state.epoch != epoch {
            return Err(Stale::Ring);
        }
        if state.loaded(chat).is_some() {
            return Ok(());
        }
        state.install_chat(loaded, now_ms)?;
        let settled: Vec<Seq> = state.ring.chain(chat).map(|(seq, _)| seq).collect();
        for seq in settled {
            self.settle(&mut state, seq);
        }
        drop(state);
        self.installed.notify_waiters();
        Ok(())
    }

    /// Installs a user who was loaded in `epoch`. Install their chats first.
    ///
    /// # Errors
    /// [`Stale`].
    pub fn install_user(&self, loaded: &LoadedUser, epoch: u32) -> Result<(), Stale> {
        let now_ms = self.clock.now_ms();
        let mut state = self.lock();
        if state.epoch == epoch { state.install_user(loaded, now_ms) } else { Err(Stale::Ring) }
    }
}

impl State {
    fn install_chat(&mut self, loaded: LoadedChat, now_ms: u64) -> Result<(), Stale> {
        let chat_id = loaded.chat;
        if loaded.upto < self.ring.floor().seq || loaded.upto > self.ring.position().seq {
            return Err(Stale::Ring);
        }
        let mut chain: Vec<(Seq, Seq)> =
            self.ring.chain(chat_id).map(|(seq, entry)| (seq, entry.link)).collect();
        chain.reverse();
        let new = chain.split_off(chain.partition_point(|(seq, _)| *seq <= loaded.upto));
        let old = chain;
        // `floor_head` is right as the oldest entry's `prev` only if the ring has evicted no entry of the chat since
        // the load began: the floor has not moved, or the oldest entry's `link` is at or below the floor of then.
        let nothing_evicted = self.ring.floor().seq <= loaded.floor
            || old.first().is_none_or(|(_, link)| *link > Seq::ZERO && *link <= loaded.floor);
        let untold = |(seq, _): &(Seq, Key)| loaded.looked.first(*seq, self.ring.floor().seq).is_none();
        if !nothing_evicted || self.doubtful(chat_id, loaded.upto).iter().any(untold) {
            return Err(Stale::Ring);
        }
        let head = if old.is_empty() { loaded.head } else { loaded.floor_head };
        let locals = self.chats.remove(&chat_id).map(|chat| chat.locals).unwrap_or_default();
        let chat = Chat { state: loaded.state, head, locals, used_ms: now_ms, loaded: true };
        self.chats.insert(chat_id, chat);
        let waiting = self.end_waiting(chat_id);
        for (seq, _) in old {
            self.take_judged(chat_id, seq, &loaded.void, &waiting);
        }
        self.link_waiting(chat_id, &waiting);
        for (seq, _) in new {
            if let Judged::Valid(event) = self.judge(chat_id, seq, &loaded.looked) {
                self.take_members(chat_id, seq, &event);
                self.drop_members(chat_id, seq, &event);
            }
        }
        Ok(())
    }

    /// The users who waited for this chat. They wait no more.
    fn end_waiting(&mut self, chat: ChatId) -> Vec<UserSlot> {
        let mut waiting = Vec::new();
        for (slot, user) in self.users.iter_mut().filter(|(_, user)| user.pending.contains(&chat)) {
            user.pending.retain(|pending| *pending != chat);
            waiting.push(slot as UserSlot);
        }
        waiting
    }

    /// Takes over the projection's verdict on an entry. The loaded state contains the event already, so the event is
    /// not folded. Users who waited for the chat may have become members or left by it.
    fn take_judged(&mut self, chat: ChatId, seq: Seq, void: &[(Seq, Code)], waiting: &[UserSlot]) {
        // An entry that is no event is void, but the projection does not list it.
        let Some(event) = self.decode(seq) else { return };
        if let Some((_, code)) = void.iter().find(|(at, _)| *at == seq) {
            let repeats = *code == Code::CommandUuidReused && event.fact.kind() != Kind::ChatCreated;
            // Zero: the first copy is older than the ring.
            let first = || self.earlier_copy(seq, &event).unwrap_or_default();
            let verdict = if repeats { Verdict::Repeat(first()) } else { Verdict::Void(*code) };
            if let Some(entry) = self.ring.get_mut(seq) {
                entry.verdict = verdict;
            }
            return;
        }
        self.mark_valid(chat, seq, &event);
        let (joining, leaving) = (joining(&event.fact), leaving(&event.fact));
        let floor = self.ring.floor().seq;
        for slot in waiting {
            let Some(user) = self.users.get_mut(*slot as usize) else { continue };
            if joining.contains(&user.id) {
                user.join(chat, seq);
            }
            if leaving == Some(user.id) {
                // The user was a member before. If the ring lacks the join, it is older than the ring, and nobody here
                // knows by how much: what came before the ring is taken not to have reached them.
                user.join(chat, floor);
                user.leave(chat, seq, floor);
            }
        }
    }

    /// Links the users who waited for the chat and are members of it by its state.
    fn link_waiting(&mut self, chat_id: ChatId, waiting: &[UserSlot]) {
        let floor = self.ring.floor().seq;
        let Some(chat) = self.chats.get_mut(&chat_id) else { return };
        for slot in waiting {
            let Some(user) = self.users.get_mut(*slot as usize) else { continue };
            if chat.state.as_ref().is_some_and(|state| state.members.contains(user.id)) {
                // This changes nothing if the ring has the join, which was recorded above. If not, nobody here knows
                // how much older it is: what came before the ring is taken not to have reached them.
                user.join(chat_id, floor);
                chat.link(*slot);
            }
        }
    }

    fn install_user(&mut self, loaded: &LoadedUser, now_ms: u64) -> Result<(), Stale> {
        if self.slots.contains_key(&loaded.user) {
            return Ok(());
        }
        if loaded.upto < self.ring.floor().seq || loaded.upto > self.ring.position().seq {
            return Err(Stale::Ring);
        }
        let floor = self.ring.floor().seq;
        let within = loaded.intervals.iter().filter(|interval| interval.reaches_above(floor));
        let mut chats: HashSet<ChatId> = within.map(|interval| interval.chat).collect();
        let later: Vec<Seq> = self.membership.iter().copied().filter(|seq| *seq > loaded.upto).collect();
        let mut changes = Vec::new();
        for seq in later {
            let Some(entry) = self.ring.get(seq) else { continue };
            let (Some(chat), Ok(event)) = (entry.chat, Event::decode(&entry.payload)) else { continue };
            let left = leaving(&event.fact) == Some(loaded.user);
            let joined = joining(&event.fact).contains(&loaded.user);
            if joined {
                chats.insert(chat);
            }
            if joined || left {
                changes.push((seq, chat, joined));
            }
        }
        let unknown: Vec<ChatId> =
            chats.iter().copied().filter(|chat| self.loaded(*chat).is_none()).collect();
        if !unknown.is_empty() {
            return Err(Stale::Chats(unknown));
        }
        let mut user = User::loaded(loaded.user, &loaded.intervals, floor, now_ms);
        for (seq, chat, joined) in changes {
            if self.ring.get(seq).is_none_or(|entry| entry.verdict != Verdict::Valid) {
                continue;
            }
            if joined { user.join(chat, seq) } else { user.leave(chat, seq, floor) }
        }
        let slot = self.users.insert(user);
        self.slots.insert(loaded.user, slot as UserSlot);
        let Some(user) = self.users.get(slot) else { return Ok(()) };
        for chat in user.chats() {
            if let Some(chat) = self.chats.get_mut(&chat) {
                chat.link(slot as UserSlot);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
