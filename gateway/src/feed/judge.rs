//! Folds a span of the log as the projection will: from chats as of a checkpoint, entry by entry.
//!
//! The copies of commands within the span are remembered here. For those that may be older than the span the projection
//! is asked, once for each batch of entries that holds such a command; that is rare. Invariants: the entries of a chat are
//! folded in the log's order, all of them from the chat's state on; each batch is looked up before it is folded. Memory
//! grows with the events of the span: some 70 bytes for each event of a chat that is folded.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use shared::{
    code::Code,
    event::{Event, Head},
    fold::{self, ChatState},
    id::{ChatId, Seq},
};
use sql::projection::Key;
use streams::Entry;

use crate::{command::Failure, hub::Hub};

/// Keys in one query.
pub(super) const KEYS_PER_QUERY: usize = 2_048;

/// Judges the entries of a span.
#[derive(Default)]
pub(super) struct Judge {
    /// The commands of the span so far, and the first entry that holds each.
    seen: HashMap<Key, Seq, RandomState>,
    /// The entries that repeat a command from before the span.
    repeats: HashSet<Seq>,
}

impl Judge {
    /// Looks up the commands of the next entries, where need be. `known_after` says for a chat that is folded as of which
    /// entry its state was loaded.
    ///
    /// # Errors
    /// Temporary, if the projection can't be read.
    pub(super) async fn look(
        &mut self,
        (hub, db): (&Hub, &sql::Db),
        entries: &[Entry],
        known_after: impl Fn(ChatId) -> Option<Seq>,
    ) -> Result<(), Failure> {
        let doubtful = doubtful(hub, entries, known_after);
        for piece in doubtful.chunks(KEYS_PER_QUERY) {
            let keys: Vec<Key> = piece.iter().map(|(key, _)| *key).collect();
            let (_, firsts) = db.first_copies(&keys).await?;
            self.tell(piece, &firsts.into_iter().collect());
        }
        Ok(())
    }

    /// Takes in what the projection knows of doubtful entries: the first copies of their commands.
    fn tell(&mut self, doubtful: &[(Key, Seq)], firsts: &HashMap<Key, Seq>) {
        let repeats = doubtful.iter().filter(|(key, seq)| firsts.get(key).is_some_and(|first| first < seq));
        self.repeats.extend(repeats.map(|(_, seq)| *seq));
    }

    /// The verdict on a chat's next event, and its effect on the chat.
    ///
    /// # Errors
    /// The code with which it is void.
    pub(super) fn fold(
        &mut self,
        state: &mut Option<ChatState>,
        chat: ChatId,
        seq: Seq,
        event: &Event,
    ) -> Result<(), Code> {
        let key = (chat, event.actor, event.uuid);
        let repeats = self.seen.contains_key(&key) || self.repeats.contains(&seq);
        let verdict = fold::judge(state, seq, event, repeats);
        if fold::is_copy(verdict) {
            self.seen.entry(key).or_insert(seq);
        }
        verdict
    }

    /// The first copy of a command that stands after the span at `seq`: in the span, or among those that the projection has
    /// stored.
    pub(super) fn first_copy(&self, key: &Key, seq: Seq, stored: &HashMap<Key, Seq>) -> Option<Seq> {
        let stored = stored.get(key).copied().filter(|first| *first < seq);
        stored.into_iter().chain(self.seen.get(key).copied()).min()
    }
}

/// The entries that may repeat a command from before the span.
fn doubtful(hub: &Hub, entries: &[Entry], known_after: impl Fn(ChatId) -> Option<Seq>) -> Vec<(Key, Seq)> {
    let mut doubtful = Vec::new();
    for entry in entries {
        let Some((chat, after)) = entry.chat.and_then(|chat| Some((chat, known_after(chat)?))) else {
            continue;
        };
        let Ok((head, _)) = Head::read(&entry.payload) else { continue };
        let is_new = || hub.proves_new(head.actor, head.uuid, entry.ts_ms);
        if after < entry.seq && fold::is_doubtful(head.kind, head.unique_as_of, after, is_new) {
            doubtful.push(((chat, head.actor, head.uuid), entry.seq));
        }
    }
    doubtful
}

#[cfg(test)]
mod law;
