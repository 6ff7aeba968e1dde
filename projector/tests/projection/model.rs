//! A naive model of what users may see, computed event by event from the log alone. Validity comes from the fold,
//! which has tests of its own; everything else is counted the long way.

use std::collections::{BTreeMap, HashSet};

use shared::{
    event::{Event, Fact, History, Kind},
    fold::{self, ChatState},
    id::{ChatId, Seq, UserId},
};
use streams::Entry;

/// A valid event.
#[derive(Clone)]
pub(crate) struct Valid {
    pub(crate) seq: Seq,
    pub(crate) ts_ms: u64,
    pub(crate) event: Event,
    /// The members before and after it.
    before: Vec<UserId>,
    after: Vec<UserId>,
}

#[derive(Default)]
pub(crate) struct ModelChat {
    pub(crate) state: Option<ChatState>,
    pub(crate) events: Vec<Valid>,
    pub(crate) void: Vec<(Seq, &'static str)>,
    seen: HashSet<(UserId, uuid::Uuid)>,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) chats: BTreeMap<ChatId, ModelChat>,
    pub(crate) marks: BTreeMap<(ChatId, UserId), Seq>,
}

/// A message as it stands: body, edited, deleted, and who reacted with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) seq: Seq,
    pub(crate) from: UserId,
    pub(crate) body: String,
    pub(crate) reply_to: Option<Seq>,
    pub(crate) edited_ms: Option<u64>,
    pub(crate) deleted: bool,
    pub(crate) reactions: BTreeMap<String, Vec<UserId>>,
}

impl Model {
    pub(crate) fn of(entries: &[Entry]) -> Self {
        let mut model = Self::default();
        for entry in entries {
            let Some(id) = entry.chat else { continue };
            let Ok(event) = Event::decode(&entry.payload) else { continue };
            let chat = model.chats.entry(id).or_default();
            let members = |chat: &ModelChat| -> Vec<UserId> {
                chat.state.as_ref().map(|state| state.members.users().collect()).unwrap_or_default()
            };
            let before = members(chat);
            let key = (event.actor, event.uuid);
            if chat.seen.contains(&key) && event.fact.kind() != Kind::ChatCreated {
                chat.void.push((entry.seq, "command.uuid_reused"));
                continue;
            }
            let verdict = fold::apply(&mut chat.state, entry.seq, &event);
            if verdict != Err(fold::STALE) {
                chat.seen.insert(key);
            }
            match verdict {
                Err(code) => chat.void.push((entry.seq, code.as_str())),
                Ok(()) => {
                    let after = members(chat);
                    chat.events.push(Valid { seq: entry.seq, ts_ms: entry.ts_ms, event, before, after });
                }
            }
        }
        model
    }

    pub(crate) fn read_seq(&self, id: ChatId, user: UserId) -> Seq {
        let chat = &self.chats[&id];
        let mut own = Seq::ZERO;
        for valid in &chat.events {
            let sent = matches!(valid.event.fact, Fact::MessageSent(_)) && valid.event.actor == user;
            let joined = matches!(valid.event.fact, Fact::MembersJoined(_)) && valid.joins(user);
            if sent || joined {
                own = valid.seq;
            }
        }
        own.max(self.marks.get(&(id, user)).copied().unwrap_or_default())
    }

    pub(crate) fn unread(&self, id: ChatId, user: UserId) -> usize {
        let read = self.read_seq(id, user);
        let chat = &self.chats[&id];
        let unread = |seen: &&Seen| seen.seq > read && seen.from != user && !seen.deleted;
        chat.messages(user).iter().filter(unread).count()
    }
}

impl Valid {
    fn joins(&self, user: UserId) -> bool {
        !self.before.contains(&user) && self.after.contains(&user)
    }

    /// The user was a member when it happened, or it made them one, or it removed them.
    pub(crate) fn entitles(&self, user: UserId) -> bool {
        self.before.contains(&user) || self.after.contains(&user)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.event.fact.kind()
    }
}

impl ModelChat {
    pub(crate) fn members(&self) -> Vec<UserId> {
        self.state.as_ref().map(|state| state.members.users().collect()).unwrap_or_default()
    }

    pub(crate) fn may_read(&self, valid: &Valid, user: UserId) -> bool {
        let everything = self.state.as_ref().is_some_and(|state| state.history == History::All);
        self.members().contains(&user) && (everything || valid.entitles(user))
    }

    /// Whether a member may know what stands at `seq`, if anything does.
    fn may_know(&self, seq: Seq, user: UserId) -> bool {
        let everything = self.state.as_ref().is_some_and(|state| state.history == History::All);
        let last = self.events.iter().rev().find(|valid| valid.seq <= seq);
        let present =
            |valid: &Valid| valid.after.contains(&user) || (valid.seq == seq && valid.entitles(user));
        everything || last.is_some_and(present)
    }

    pub(crate) fn deleted(&self, target: Seq) -> bool {
        let deletes =
            |valid: &Valid| matches!(&valid.event.fact, Fact::MessageDeleted(fact) if fact.seq == target);
        self.events.iter().any(deletes)
    }

    pub(crate) fn title(&self) -> Option<String> {
        self.events.iter().fold(None, |title, valid| match &valid.event.fact {
            Fact::ChatCreated(created) => created.title.clone(),
            Fact::TitleChanged(changed) => Some(changed.title.clone()),
            _ => title,
        })
    }

    pub(crate) fn messages(&self, reader: UserId) -> Vec<Seen> {
        self.events.iter().filter_map(|valid| self.message(valid, reader)).collect()
    }

    pub(crate) fn message(&self, valid: &Valid, reader: UserId) -> Option<Seen> {
        let Fact::MessageSent(sent) = &valid.event.fact else { return None };
        let mut seen = Seen {
            seq: valid.seq,
            from: valid.event.actor,
            body: sent.body.clone(),
            reply_to: sent.reply_to.filter(|to| self.may_know(*to, reader)),
            edited_ms: None,
            deleted: false,
            reactions: BTreeMap::new(),
        };
        for later in &self.events {
            match &later.event.fact {
                Fact::MessageEdited(edited) if edited.seq == valid.seq && !seen.deleted => {
                    (seen.body, seen.edited_ms) = (edited.body.clone(), Some(later.ts_ms));
                }
                Fact::MessageDeleted(deleted) if deleted.seq == valid.seq => seen.deleted = true,
                Fact::Reacted(reacted) if reacted.seq == valid.seq => {
                    let users = seen.reactions.entry(canonical(&reacted.emoji)).or_default();
                    let actor = later.event.actor;
                    match reacted.on {
                        true if !users.contains(&actor) => users.push(actor),
                        true => {}
                        false => users.retain(|user| *user != actor),
                    }
                }
                _ => {}
            }
        }
        seen.reactions.retain(|_, users| !users.is_empty());
        if seen.deleted {
            seen.body.clear();
            seen.reactions.clear();
        }
        Some(seen)
    }
}

/// An emoji counts in its canonical form, however it was typed.
fn canonical(emoji: &str) -> String {
    shared::text::emoji(emoji).expect("an emoji").to_owned()
}
