//! Looking things up in the recent past: chats, messages, earlier copies of a command, pages of a chat.
//!
//! Nothing here changes the hub, except that a chat that was asked for is kept a while longer. `None` means that the hub
//! does not know, not that the thing does not exist: the caller asks the projection then.

use bytes::Bytes;
use shared::{
    code::Code,
    event::{Event, Fact, History, Kind, Reacted},
    fold,
    frame::ServerFrame,
    id::{ChatId, Seq, UserId},
};
use sql::PageFrom;
use uuid::Uuid;

use super::{
    Hub, State,
    ring::{Verdict, command_hash},
    verdict::Key,
};

/// The facts of a message by which a command on it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageFact {
    pub author: UserId,
    pub deleted: bool,
    /// Every deletion up to here is known.
    pub seen: Seq,
}

/// A stored event with the same chat, actor and uuid as a command.
#[derive(Debug, Clone)]
pub struct EarlierCopy {
    pub seq: Seq,
    pub ts: u64,
    pub verdict: Verdict,
    pub payload: Bytes,
}

impl EarlierCopy {
    /// Whether the event counts for nothing, so that the command is to be appended again.
    pub fn is_stale(&self) -> bool {
        self.verdict == Verdict::Void(fold::STALE)
    }
}

/// A chat as one of its members may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// The chat's last event.
    pub head: Seq,
    /// The member may read what was written before they joined.
    pub reads_everything: bool,
}

impl Hub {
    /// Keeps a loaded chat for as long as a command may take. `false`: the chat is to be loaded first.
    pub fn keep(&self, chat: ChatId) -> bool {
        let now_ms = self.clock.now_ms();
        let mut state = self.lock();
        state.chats.get_mut(&chat).filter(|chat| chat.loaded).map(|chat| chat.used_ms = now_ms).is_some()
    }

    /// Whether the event would be valid if the log had it next.
    ///
    /// # Errors
    /// The code with which it would be refused.
    pub fn verdict_now(&self, chat: ChatId, event: &Event) -> Result<(), Code> {
        let state = self.lock();
        fold::verdict(state.loaded(chat).and_then(|chat| chat.state.as_ref()), event)
    }

    /// A loaded chat, if the user is a member of it.
    pub fn membership(&self, chat: ChatId, user: UserId) -> Option<Membership> {
        let state = self.lock();
        let chat = state.loaded(chat)?;
        let held = chat.state.as_ref().filter(|state| state.members.contains(user))?;
        Some(Membership { head: chat.head, reads_everything: held.history == History::All })
    }

    /// How many members a loaded chat has.
    pub fn member_count(&self, chat: ChatId) -> usize {
        let state = self.lock();
        state.loaded(chat).and_then(|chat| chat.state.as_ref()).map_or(0, |state| state.members.len())
    }

    /// The last event of a loaded chat. `None` also if the log has no event of the chat.
    pub fn head_if_created(&self, chat: ChatId) -> Option<Seq> {
        let state = self.lock();
        let chat = state.loaded(chat)?;
        chat.state.as_ref().map(|_| chat.head)
    }

    /// The message at `seq` of a loaded chat. `None`: the entry is older than the ring, or has no verdict. `Some(None)`: the
    /// entry is no message of the chat, or there is no such entry yet.
    pub fn message(&self, chat: ChatId, seq: Seq) -> Option<Option<MessageFact>> {
        self.lock().message(chat, seq)
    }

    /// Whether a message that is older than the ring was deleted after `since`, and up to where every deletion is known.
    /// `None`: the chat is not loaded, or deletions since then are not known any more.
    pub fn deleted_since(&self, chat: ChatId, message: Seq, since: Seq) -> Option<(bool, Seq)> {
        let state = self.lock();
        let known = &state.loaded(chat)?.state.as_ref()?.deletions;
        let seen = state.ring.position().seq.max(since);
        if known.has(message) || since >= known.forgotten() {
            return Some((known.has(message), seen));
        }
        let floor = state.ring.floor().seq;
        (since >= floor)
            .then(|| (state.deletions_after(std::iter::once(chat), since).contains(&message), seen))
    }

    /// The first event of the actor in the chat with this uuid, as far as the ring goes back, and the range that was looked
    /// through: from after the ring's floor to the hub's position. If all of the events are stale, the last.
    pub fn copy_of(&self, chat: ChatId, actor: UserId, uuid: Uuid) -> (Option<EarlierCopy>, Seq, Seq) {
        let state = self.lock();
        (state.copy_of(chat, actor, uuid), state.ring.floor().seq, state.ring.position().seq)
    }

    /// The entries of these chats, each after the sequence beside it, that the ring cannot judge by itself.
    pub fn doubtful(&self, chats: impl Iterator<Item = (ChatId, Seq)>) -> Vec<(Seq, Key)> {
        let state = self.lock();
        chats.flat_map(|(chat, upto)| state.doubtful(chat, upto)).collect()
    }

    /// The valid reactions to a message after the sequence `after`, as far as they are in the ring.
    pub fn reactions(&self, chat: ChatId, message: Seq, after: Seq) -> Vec<Reacted> {
        let state = self.lock();
        let newer = state.ring.chain(chat).take_while(|(seq, _)| *seq > after);
        let valid = newer.filter(|(_, entry)| entry.verdict == Verdict::Valid);
        valid
            .filter(|(_, entry)| entry.kind == Kind::Reacted)
            .filter_map(|(_, entry)| {
                let Fact::Reacted(reacted) = Event::decode(&entry.payload).ok()?.fact else { return None };
                (reacted.seq == message).then_some(reacted)
            })
            .collect()
    }

    /// A page of a loaded chat, ascending, and whether the chat has more beyond it. `None`: the page reaches below the
    /// ring, or its payloads are larger than `most_bytes`.
    pub fn page(
        &self,
        chat: ChatId,
        from: PageFrom,
        limit: usize,
        most_bytes: usize,
    ) -> Option<(Vec<ServerFrame>, bool)> {
        let state = self.lock();
        let (events, more) = state.page(chat, from, limit)?;
        let mut bytes = 0;
        let mut frames = Vec::with_capacity(events.len());
        for seq in &events {
            let entry = state.ring.get(*seq)?;
            bytes += entry.payload.len();
            if bytes > most_bytes {
                return None;
            }
            frames.push(entry.frame(*seq)?);
        }
        Some((frames, more))
    }
}

impl State {
    /// See [`Hub::message`].
    fn message(&self, chat: ChatId, seq: Seq) -> Option<Option<MessageFact>> {
        let Some(entry) = self.ring.get(seq) else {
            return (seq > self.ring.position().seq).then_some(None);
        };
        if entry.chat != Some(chat) {
            return Some(None);
        }
        let event = Event::decode(&entry.payload).ok();
        match entry.verdict {
            Verdict::Unknown => None,
            Verdict::Void(_) | Verdict::Repeat(_) => Some(None),
            Verdict::Valid => {
                // Deletions are known as far as the chat's entries are judged: all of them, if it is loaded.
                self.loaded(chat)?;
                let (deleted, seen) = (entry.deleted, self.ring.position().seq);
                let sent = event.filter(|event| event.fact.kind() == Kind::MessageSent);
                Some(sent.map(|event| MessageFact { author: event.actor, deleted, seen }))
            }
        }
    }

    /// See [`Hub::copy_of`].
    fn copy_of(&self, chat: ChatId, actor: UserId, uuid: Uuid) -> Option<EarlierCopy> {
        let newest_first = self.ring.copies(command_hash(chat, actor, uuid));
        let (mut first, mut stale) = (None, None);
        for (seq, entry) in newest_first.filter(|(_, entry)| entry.holds(actor, uuid)) {
            match entry.verdict {
                Verdict::Void(fold::STALE) => stale = stale.or(Some((seq, entry))),
                // The first one is older than the ring.
                Verdict::Repeat(before) if before <= self.ring.floor().seq => {}
                Verdict::Unknown | Verdict::Valid | Verdict::Void(_) | Verdict::Repeat(_) => {
                    first = Some((seq, entry));
                }
            }
        }
        let (seq, entry) = first.or(stale)?;
        Some(EarlierCopy { seq, ts: entry.ts, verdict: entry.verdict, payload: entry.payload.clone() })
    }

    /// The sequences of a page. See [`Hub::page`].
    fn page(&self, chat: ChatId, from: PageFrom, limit: usize) -> Option<(Vec<Seq>, bool)> {
        let valid = self.ring.chain(chat).filter(|(_, entry)| entry.verdict == Verdict::Valid);
        match from {
            PageFrom::After(after) => {
                let mut newer = Vec::new();
                let mut reached = self.loaded(chat)?.head <= after;
                for (seq, entry) in valid.take_while(|(seq, _)| *seq > after) {
                    newer.push(seq);
                    reached = entry.prev <= after;
                }
                newer.reverse();
                let more = newer.len() > limit;
                newer.truncate(limit);
                reached.then_some((newer, more))
            }
            PageFrom::Before(before) => {
                let mut older = Vec::new();
                let mut first_prev = None;
                for (seq, entry) in valid.skip_while(|(seq, _)| *seq >= before).take(limit) {
                    older.push(seq);
                    first_prev = Some(entry.prev);
                }
                older.reverse();
                let begins = first_prev == Some(Seq::ZERO);
                (older.len() == limit || begins).then_some((older, !begins))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::stage::*;

    #[test]
    fn a_message_is_known_by_its_author_until_it_is_deleted() {
        let mut stage = Stage::with_group(&[1, 2]);
        let message = stage.append(1, 2, sent("hi"));
        let reaction = stage.append(1, 1, reacted(message));
        let void = stage.append(1, 9, sent("from a stranger"));
        let fact = |deleted, seen| Some(Some(MessageFact { author: user(2), deleted, seen }));
        assert_eq!(stage.hub.message(chat(1), message), fact(false, void));
        assert_eq!(stage.hub.message(chat(2), message), Some(None), "of another chat");
        for none in [reaction, void] {
            assert_eq!(stage.hub.message(chat(1), none), Some(None));
        }
        assert_eq!(stage.hub.message(chat(1), void.next()), Some(None), "not yet");
        let deletion = stage.append(1, 2, deleted(message, 2));
        assert_eq!(stage.hub.message(chat(1), message), fact(true, deletion));
    }

    #[test]
    fn a_deletion_of_a_message_below_the_ring_is_known_as_long_as_every_one_since_then_is() {
        let mut stage = Stage::with_ring(4_000);
        stage.append(1, 1, created(&[1]));
        stage.load_chat(1);
        let (gone, kept) = (stage.append(1, 1, sent("gone")), stage.append(1, 1, sent("kept")));
        let others: Vec<Seq> = (0..40).map(|_| stage.append(1, 1, sent("hi"))).collect();
        let before = stage.hub.position();
        stage.append(1, 1, deleted(gone, 1));
        assert!(stage.hub.floor().seq > gone);
        let since = |stage: &Stage, message| stage.hub.deleted_since(chat(1), message, before);
        let here = stage.hub.position();
        assert_eq!(since(&stage, gone), Some((true, here)));
        assert_eq!(since(&stage, kept), Some((false, here)));
        assert_eq!(stage.hub.deleted_since(chat(2), kept, before), None, "not loaded");
        for other in others {
            stage.append(1, 1, deleted(other, 1));
        }
        for message in [gone, kept] {
            assert_eq!(since(&stage, message), None, "more were deleted since than the fold remembers");
        }
        let (floor, here) = (stage.hub.floor().seq, stage.hub.position());
        assert_eq!(stage.hub.deleted_since(chat(1), kept, floor), Some((false, here)), "all in the ring");
        let foreseen = here.next();
        assert_eq!(stage.hub.deleted_since(chat(1), kept, foreseen), Some((false, foreseen)));
    }

    #[test]
    fn a_page_holds_the_valid_events_only_and_says_whether_there_are_more() {
        let mut stage = Stage::with_group(&[1]);
        for _ in 0..3 {
            stage.append(1, 9, sent("from a stranger"));
            stage.append(1, 1, sent("hi"));
        }
        let page = |from, limit| {
            let (frames, more) = stage.hub.page(chat(1), from, limit, usize::MAX)?;
            Some((frames.iter().map(in_short).collect::<Vec<_>>(), more))
        };
        let told = |frames: &[&str], more| Some((frames.iter().map(ToString::to_string).collect(), more));
        assert_eq!(page(PageFrom::After(Seq(1)), 2), told(&["Message 3 after 1", "Message 5 after 3"], true));
        assert_eq!(
            page(PageFrom::After(Seq(3)), 2),
            told(&["Message 5 after 3", "Message 7 after 5"], false)
        );
        assert_eq!(page(PageFrom::Before(Seq(7)), 1), told(&["Message 5 after 3"], true));
        let first = told(&["chatCreated 1 after 0", "Message 3 after 1"], false);
        assert_eq!(page(PageFrom::Before(Seq(5)), 2), first);
        assert_eq!(stage.hub.page(chat(1), PageFrom::After(Seq(1)), 2, 10), None, "too many bytes");
    }

    #[test]
    fn a_page_that_reaches_below_the_ring_is_not_served_from_it() {
        let mut stage = Stage::with_ring(4_000);
        stage.append(1, 1, created(&[1]));
        stage.load_chat(1);
        for _ in 0..50 {
            stage.append(1, 1, sent("hi"));
        }
        let floor = stage.hub.floor().seq;
        let after = |seq| stage.hub.page(chat(1), PageFrom::After(seq), 100, usize::MAX);
        assert!(after(floor).is_some());
        assert_eq!(after(Seq(floor.get() - 1)), None);
        assert_eq!(stage.hub.page(chat(1), PageFrom::Before(floor.next().next()), 2, usize::MAX), None);
    }

    #[test]
    fn the_first_copy_of_a_command_is_found_by_its_key() {
        let mut stage = Stage::with_group(&[1, 2]);
        let first = stage.append(1, 1, sent("once"));
        let copy = stage.log.append_copy(first);
        stage.apply(&copy);
        let uuid = Event::decode(&copy.payload).unwrap().uuid;
        let found =
            |of: u64, actor: u64| stage.hub.copy_of(chat(of), user(actor), uuid).0.map(|copy| copy.seq);
        assert_eq!(found(1, 1), Some(first));
        assert_eq!((found(2, 1), found(1, 2)), (None, None));
    }
}
