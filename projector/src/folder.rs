//! Folding slice after slice into a projection: load the chats of the slice, fold, write; and once more if a command
//! turns out to be stored already.

use std::time::{SystemTime, UNIX_EPOCH};

use shared::id::{ChatId, Position};
use sql::{
    Checkpoint,
    projection::{Key, Rows, Writer, Written},
};
use streams::Entry;

use crate::{
    cache::Cache,
    projection::{Decoded, Keys, Slice, project},
};

/// Why a slice was not folded.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error(transparent)]
    Sql(#[from] sql::Error),
    /// The checkpoint in the database is not where this folder left it.
    #[error("somebody else moved the checkpoint")]
    Moved,
}

/// The result of a slice.
#[derive(Debug, Default)]
pub struct Folded {
    pub refused: u64,
    pub dead_letters: u64,
    /// The log held a command twice that was stored before.
    pub duplicates: bool,
    /// The chats that are new in it.
    pub chats: Vec<ChatId>,
}

/// A projection that grows by slices.
pub struct Folder {
    writer: Writer,
    cache: Cache,
    checkpoint: Checkpoint,
}

impl Folder {
    /// Goes on from the checkpoint in the database.
    ///
    /// # Errors
    /// [`sql::Error`]
    pub async fn new(writer: Writer, cache_members: usize) -> Result<Self, sql::Error> {
        let checkpoint = writer.checkpoint().await?;
        Ok(Self { writer, cache: Cache::new(cache_members), checkpoint })
    }

    /// Everything up to here is folded.
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// The session by which it writes.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Folds the entries that follow the checkpoint, in one transaction. After an error the folder is to be given up.
    ///
    /// # Errors
    /// [`FoldError`]
    pub async fn apply(&mut self, slice: &Slice<'_>) -> Result<Folded, FoldError> {
        let Some(last) = slice.entries.last().map(Entry::position) else { return Ok(Folded::default()) };
        let folded = self.fold(&slice.decoded, last).await?;
        self.checkpoint.position = last;
        self.cache.trim();
        Ok(folded)
    }

    async fn fold(&mut self, decoded: &[Decoded<'_>], last: Position) -> Result<Folded, FoldError> {
        self.load(decoded).await?;
        let suspects = self.suspects(decoded);
        let mut stored = self.stored(&suspects).await?;
        let mut folded = self.write(decoded, last, &stored).await?;
        if folded.is_none() {
            // Rare: the log took a command twice, further apart than its dedupe window. Fold again, from what the
            // database has, knowing which.
            self.cache.clear();
            self.load(decoded).await?;
            let all: Vec<Key> = decoded.iter().filter_map(key).collect();
            stored = self.stored(&all).await?;
            folded =
                self.write(decoded, last, &stored).await?.map(|again| Folded { duplicates: true, ..again });
        }
        // A duplicate key without a stored command means that memory and database disagree: start afresh.
        folded.ok_or(FoldError::Moved)
    }

    /// `None`: a command of the batch is stored already.
    async fn write(
        &mut self,
        decoded: &[Decoded<'_>],
        last: Position,
        stored: &Keys,
    ) -> Result<Option<Folded>, FoldError> {
        let rows = project(&mut self.cache, decoded, stored);
        match self.writer.write(self.checkpoint, last, &rows, now_ms()).await? {
            Written::Yes => Ok(Some(Folded::of(&rows))),
            Written::Moved => Err(FoldError::Moved),
            Written::DuplicateKey => Ok(None),
        }
    }

    /// Brings the chats of the batch into memory.
    async fn load(&mut self, decoded: &[Decoded<'_>]) -> Result<(), sql::Error> {
        let unknown = |chat: &ChatId| !self.cache.contains(*chat);
        let mut unknown: Vec<ChatId> = decoded.iter().map(|decoded| decoded.chat).filter(unknown).collect();
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

    /// The keys that the unique index of the events cannot guard: in a chat where some command was refused, an event
    /// may be a copy of that.
    fn suspects(&mut self, decoded: &[Decoded<'_>]) -> Vec<Key> {
        let mut chats: Vec<ChatId> = decoded.iter().map(|decoded| decoded.chat).collect();
        chats.sort_unstable();
        chats.dedup();
        chats.retain(|chat| self.cache.get_mut(*chat).is_some_and(|chat| chat.has_refused));
        let is_suspect = |decoded: &&Decoded<'_>| chats.binary_search(&decoded.chat).is_ok();
        decoded.iter().filter(is_suspect).filter_map(key).collect()
    }

    async fn stored(&self, keys: &[Key]) -> Result<Keys, sql::Error> {
        if keys.is_empty() {
            return Ok(Keys::default());
        }
        Ok(self.writer.stored_keys(keys).await?.into_iter().collect())
    }
}

impl Folded {
    fn of(rows: &Rows<'_>) -> Self {
        Self {
            refused: rows.refused.len() as u64,
            dead_letters: rows.dead_letters.len() as u64,
            chats: rows.chats.new.iter().map(|chat| chat.chat).collect(),
            ..Self::default()
        }
    }
}

fn key(decoded: &Decoded<'_>) -> Option<Key> {
    let event = decoded.event.as_ref().ok()?;
    Some((decoded.chat, event.actor, event.uuid))
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
