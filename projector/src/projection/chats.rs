//! The rows of chats: what begins in a batch, and what changes.

use std::collections::BTreeMap;

use shared::{
    event::Fact,
    id::{ChatId, Seq},
};
use sql::projection::{ChatChange, NewChat, Rows};
use streams::Entry;

use crate::cache::Cache;

/// The chats whose row a batch touches.
#[derive(Debug, Default)]
pub(super) struct Chats(BTreeMap<ChatId, Change>);

#[derive(Debug, Default)]
struct Change {
    /// It begins here, and when.
    created: Option<(Seq, u64)>,
    title: Option<String>,
}

impl Chats {
    /// Takes in a valid event.
    pub(super) fn apply(&mut self, id: ChatId, entry: &Entry, fact: &Fact) {
        match fact {
            Fact::ChatCreated(created) => {
                let change = self.0.entry(id).or_default();
                change.created = Some((entry.seq, entry.ts_ms));
                change.title.clone_from(&created.title);
            }
            Fact::TitleChanged(changed) => self.0.entry(id).or_default().title = Some(changed.title.clone()),
            Fact::SettingsChanged(_) | Fact::MembersJoined(_) | Fact::MemberLeft(_) => {
                self.0.entry(id).or_default();
            }
            Fact::MessageSent(_)
            | Fact::MessageEdited(_)
            | Fact::MessageDeleted(_)
            | Fact::Reacted(_)
            | Fact::RoleChanged(_)
            | Fact::Noop => {}
        }
    }

    /// The rows, from the chats' states after the batch.
    pub(super) fn finish(self, cache: &mut Cache, rows: &mut Rows<'_>) {
        for (chat, change) in self.0 {
            let Some(state) = cache.get_mut(chat).and_then(|chat| chat.state.as_ref()) else { continue };
            let (history, title) = (state.history, change.title);
            let member_count = u32::try_from(state.members.len()).unwrap_or(u32::MAX);
            match change.created {
                Some((created_seq, created_ms)) => rows.chats.new.push(NewChat {
                    chat,
                    chat_type: state.chat_type,
                    created_seq,
                    created_ms,
                    title,
                    history,
                    member_count,
                }),
                None => rows.chats.changed.push(ChatChange { chat, title, history, member_count }),
            }
        }
    }
}
