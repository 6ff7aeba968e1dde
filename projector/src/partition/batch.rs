//! One batch: load what the fold needs, fold, write; and once more if a command turns out to be stored already.

use shared::id::{ChatId, Position, UserId};
use sql::projection::{Key, Rows, Written};

use super::active::{Active, End, Failure, Stop, now_ms};
use crate::projection::{Decoded, Keys, project};

/// What a batch came to.
#[derive(Debug, Default)]
pub(super) struct Folded {
    pub(super) refused: u64,
    pub(super) dead_letters: u64,
    /// The greatest ids in it.
    pub(super) last_chat: Option<ChatId>,
    pub(super) last_user: Option<UserId>,
}

impl Folded {
    fn of(rows: &Rows<'_>) -> Self {
        Self {
            refused: rows.refused.len() as u64,
            dead_letters: rows.dead_letters.len() as u64,
            last_chat: rows.chats.iter().map(|chat| chat.chat).max(),
            last_user: rows.opened.iter().map(|opened| opened.user).max(),
        }
    }
}

impl Active<'_> {
    /// Folds and writes decoded entries that follow the checkpoint; `last` is where the checkpoint goes.
    pub(super) async fn fold_and_write(
        &mut self,
        decoded: &[Decoded<'_>],
        last: Position,
    ) -> Result<Folded, Stop> {
        self.load(decoded).await?;
        let suspects = self.suspects(decoded);
        let mut stored = self.stored(&suspects).await?;
        for _ in 0..2 {
            let rows = project(&mut self.cache, decoded, &stored);
            let written = self.writer.write(self.checkpoint, last, &rows, now_ms()).await;
            match written {
                Ok(Written::Yes) => return Ok(Folded::of(&rows)),
                Ok(Written::Moved) => {
                    tracing::warn!(partition = %self.partition, "somebody else moved the checkpoint");
                    return Err(Stop::End(End::Restart));
                }
                Ok(Written::DuplicateKey) => {
                    // Rare: the log took a command twice, further apart than its dedupe window. Fold again, from
                    // what the database has, knowing which.
                    self.projector.metrics.duplicates.inc();
                    self.cache.clear();
                    self.load(decoded).await?;
                    let all: Vec<Key> = decoded.iter().filter_map(key).collect();
                    stored = self.stored(&all).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        // Not the log's doing, then; from the checkpoint it can be seen afresh.
        Err(Stop::End(End::Restart))
    }

    /// The chats of the batch that are not in memory.
    async fn load(&mut self, decoded: &[Decoded<'_>]) -> Result<(), Failure> {
        let mut unknown: Vec<ChatId> =
            decoded.iter().map(|decoded| decoded.chat).filter(|chat| !self.cache.contains(*chat)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return Ok(());
        }
        for stored in self.writer.load(&unknown).await? {
            self.cache.insert(stored.chat, stored.into());
        }
        Ok(())
    }

    /// The keys that the events' own unique index cannot guard: in chats where some command was refused, it may be
    /// a copy of that.
    fn suspects(&mut self, decoded: &[Decoded<'_>]) -> Vec<Key> {
        let mut chats: Vec<ChatId> = decoded.iter().map(|decoded| decoded.chat).collect();
        chats.sort_unstable();
        chats.dedup();
        chats.retain(|chat| self.cache.get_mut(*chat).is_some_and(|chat| chat.has_refused));
        let is_suspect = |decoded: &&Decoded<'_>| chats.binary_search(&decoded.chat).is_ok();
        decoded.iter().filter(is_suspect).filter_map(key).collect()
    }

    async fn stored(&mut self, keys: &[Key]) -> Result<Keys, Failure> {
        if keys.is_empty() {
            return Ok(Keys::default());
        }
        Ok(self.writer.stored_keys(keys).await?.into_iter().collect())
    }
}

fn key(decoded: &Decoded<'_>) -> Option<Key> {
    let event = decoded.event.as_ref().ok()?;
    Some((decoded.chat, event.actor, event.uuid))
}
