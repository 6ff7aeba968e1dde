//! Installing what was loaded: chat states as of a sequence, brought up to the hub's position by the ring.

use std::collections::HashSet;

use shared::{
    code::Code,
    event::Event,
    fold::ChatState,
    id::{ChatId, Seq, UserId},
};

use super::{
    Hub, State,
    apply::joining,
    chat::Chat,
    ring::Verdict,
    user::{Interval, User},
};

/// A chat as of a sequence.
#[derive(Debug, Clone)]
pub struct LoadedChat {
    pub chat: ChatId,
    pub state: Option<ChatState>,
    /// The state is as of here.
    pub upto: Seq,
    /// The last valid event at or below `upto`.
    pub head: Seq,
    /// The last valid event at or below `floor`, and the void entries in `(floor, upto]`.
    pub floor: Seq,
    pub floor_head: Seq,
    pub void: Vec<(Seq, Code)>,
}

/// A user's memberships as of a sequence, those that ended above the ring's floor included.
#[derive(Debug, Clone)]
pub struct LoadedUser {
    pub user: UserId,
    pub upto: Seq,
    pub intervals: Vec<Interval>,
}

/// Why something could not be installed.
#[derive(Debug, PartialEq, Eq)]
pub enum Stale {
    /// The ring has moved past what the load saw, or the log was cut: load again.
    Ring,
    /// The user may have joined these chats since: load them too.
    Chats(Vec<ChatId>),
}

/// Keeps the ring from giving up what a load in flight builds on, for as long as it lives.
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

    /// Those of `chats` that are not loaded.
    pub fn missing(&self, chats: impl Iterator<Item = ChatId>) -> Vec<ChatId> {
        let state = self.lock();
        chats.filter(|chat| state.loaded(*chat).is_none()).collect()
    }

    /// Installs a chat. Loading one that is loaded changes nothing.
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

    /// Installs a user, whose chats are loaded.
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
            self.ring.chain(chat_id).map(|(seq, slot)| (seq, slot.link)).collect();
        chain.reverse();
        let new = chain.split_off(chain.partition_point(|(seq, _)| *seq <= loaded.upto));
        let old = chain;
        // The `prev` of the oldest entry is known only if nothing of the chat was evicted since the load began.
        let nothing_evicted = self.ring.floor().seq <= loaded.floor
            || old.first().is_none_or(|(_, link)| *link > Seq::ZERO && *link <= loaded.floor);
        if !nothing_evicted {
            return Err(Stale::Ring);
        }
        let old: Vec<Seq> = old.into_iter().map(|(seq, _)| seq).collect();
        let waiting = self.chats.remove(&chat_id).map(|chat| chat.locals).unwrap_or_default();
        let mut chat =
            Chat { state: loaded.state, used_ms: now_ms, loaded: true, locals: waiting, ..Chat::default() };
        chat.head = if old.is_empty() { loaded.head } else { loaded.floor_head };
        self.mark_judged(&old, &loaded.void, &mut chat.head);
        self.chats.insert(chat_id, chat);
        self.blank_deleted(chat_id, &old);
        for (seq, _) in new {
            self.judge_installed(chat_id, seq);
        }
        self.link_pending(chat_id);
        Ok(())
    }

    /// Entries that the projection has judged already.
    fn mark_judged(&mut self, entries: &[Seq], void: &[(Seq, Code)], head: &mut Seq) {
        for seq in entries {
            let Some(slot) = self.ring.get_mut(*seq) else { continue };
            if slot.verdict == Verdict::Void(Code::CommandInvalid) {
                continue;
            }
            match void.iter().find(|(at, _)| at == seq) {
                Some((_, code)) => slot.verdict = Verdict::Void(*code),
                None => {
                    slot.verdict = Verdict::Valid;
                    slot.prev = std::mem::replace(head, *seq);
                }
            }
        }
    }

    fn blank_deleted(&mut self, chat: ChatId, entries: &[Seq]) {
        for seq in entries {
            let Some(slot) = self.ring.get(*seq).filter(|slot| slot.verdict == Verdict::Valid) else {
                continue;
            };
            if slot.kind == shared::event::Kind::MessageDeleted
                && let Ok(event) = Event::decode(&slot.payload)
                && let shared::event::Fact::MessageDeleted(deleted) = event.fact
            {
                self.blank(chat, deleted.seq);
            }
        }
    }

    fn judge_installed(&mut self, chat: ChatId, seq: Seq) {
        let Some(slot) = self.ring.get(seq) else { return };
        let Ok(event) = Event::decode(&slot.payload) else { return };
        if self.judge(chat, seq, &event) {
            self.take_members(chat, seq, &event);
            self.drop_members(chat, seq, &event);
        }
    }

    /// The users that waited for this chat wait no more.
    fn link_pending(&mut self, chat_id: ChatId) {
        let waiting: Vec<(usize, UserId)> = self
            .users
            .iter()
            .filter(|(_, user)| user.pending.contains(&chat_id))
            .map(|(slot, user)| (slot, user.id))
            .collect();
        for (slot, id) in waiting {
            let joined = self.joined_at(chat_id, id);
            let (Some(chat), Some(user)) = (self.chats.get_mut(&chat_id), self.users.get_mut(slot)) else {
                continue;
            };
            user.pending.retain(|pending| *pending != chat_id);
            if chat.state.as_ref().is_some_and(|state| state.members.contains(id)) {
                user.join(chat_id, joined);
                chat.link(slot as super::UserSlot);
            }
        }
    }

    /// The newest valid event in the ring by which the user became a member; zero: it is older.
    fn joined_at(&self, chat: ChatId, user: UserId) -> Seq {
        let joins = |slot: &super::ring::Slot| {
            slot.kind.changes_members()
                && slot.verdict == Verdict::Valid
                && Event::decode(&slot.payload).is_ok_and(|event| joining(&event).contains(&user))
        };
        self.ring.chain(chat).find(|(_, slot)| joins(slot)).map_or(Seq::ZERO, |(seq, _)| seq)
    }

    fn install_user(&mut self, loaded: &LoadedUser, now_ms: u64) -> Result<(), Stale> {
        if self.slots.contains_key(&loaded.user) {
            return Ok(());
        }
        if loaded.upto < self.ring.floor().seq || loaded.upto > self.ring.position().seq {
            return Err(Stale::Ring);
        }
        let mut chats: HashSet<ChatId> = loaded.intervals.iter().map(|interval| interval.chat).collect();
        let later: Vec<Seq> = self.membership.iter().copied().filter(|seq| *seq > loaded.upto).collect();
        let mut changes = Vec::new();
        for seq in later {
            let Some(slot) = self.ring.get(seq) else { continue };
            let (Some(chat), Ok(event)) = (slot.chat, Event::decode(&slot.payload)) else { continue };
            let left =
                matches!(&event.fact, shared::event::Fact::MemberLeft(left) if left.user_id == loaded.user);
            let joined = joining(&event).contains(&loaded.user);
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
        let floor = self.ring.floor().seq;
        let mut user = User::loaded(loaded.user, &loaded.intervals, floor, now_ms);
        for (seq, chat, joined) in changes {
            if self.ring.get(seq).is_none_or(|slot| slot.verdict != Verdict::Valid) {
                continue;
            }
            if joined { user.join(chat, seq) } else { user.leave(chat, seq, floor) }
        }
        let slot = self.users.insert(user);
        self.slots.insert(loaded.user, slot as super::UserSlot);
        let Some(user) = self.users.get(slot) else { return Ok(()) };
        for chat in user.chats() {
            if let Some(chat) = self.chats.get_mut(&chat) {
                chat.link(slot as super::UserSlot);
            }
        }
        Ok(())
    }
}
