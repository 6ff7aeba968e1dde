//! The last deletions of a chat, by which the fold judges edits, reactions and further deletions.
//!
//! A gateway looks for a deletion of the message before it appends, and the event says up to which entry it has looked
//! (`seen`). The deletions after that are remembered here, as many as [`KEPT`]. So together the two know of every
//! deletion, although the state is bounded. An event whose gateway has looked before the oldest one that is remembered
//! can't be judged; it is void, and its client is told to try again.
//!
//! Invariant: what is remembered depends on the chat's valid deletions alone: the last [`KEPT`] of them, and where the
//! one before them was. So it can be read from any store that holds the valid events.

use crate::{code::Code, id::Seq};

/// The deletions of a chat that are remembered. An append takes milliseconds, so an honest gateway's look is never so
/// long ago; and a chat takes half a kilobyte at most.
pub const KEPT: usize = 32;

/// The verdict on an event whose gateway has looked for a deletion too long ago. The event is void, and is no copy of
/// its command: the command may be appended again.
pub const STALE: Code = Code::LogUnavailable;

/// A valid deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// The message.
    pub target: Seq,
    /// The event that deleted it.
    pub at: Seq,
}

/// The last deletions of a chat. Most chats have none, and then it takes eight bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deletions(Option<Box<Recent>>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Recent {
    /// The newest deletion that is not remembered; zero: all are.
    forgotten: Seq,
    /// Ascending by `at`.
    kept: Vec<Deletion>,
}

impl Deletions {
    /// Adds the chat's next valid deletion.
    pub fn add(&mut self, deletion: Deletion) {
        let recent = self.0.get_or_insert_default();
        if recent.kept.len() == KEPT {
            recent.forgotten = recent.kept.remove(0).at;
        }
        recent.kept.push(deletion);
    }

    /// Whether the message is deleted, as far as is remembered.
    pub fn has(&self, target: Seq) -> bool {
        self.iter().any(|deletion| deletion.target == target)
    }

    /// Every deletion after this one is remembered.
    pub fn forgotten(&self) -> Seq {
        self.0.as_ref().map_or(Seq::ZERO, |recent| recent.forgotten)
    }

    /// The remembered deletions, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Deletion> + '_ {
        self.0.iter().flat_map(|recent| recent.kept.iter().copied())
    }

    /// Whether an event about the message is valid whose gateway had found no deletion up to `seen`.
    pub(super) fn judge(&self, target: Seq, seen: Option<Seq>) -> Result<(), Code> {
        match seen {
            // An event of version 1: its gateway is trusted.
            None => Ok(()),
            Some(_) if self.has(target) => Err(Code::MessageDeleted),
            Some(seen) if seen < self.forgotten() => Err(STALE),
            Some(_) => Ok(()),
        }
    }
}

impl FromIterator<Deletion> for Deletions {
    /// All valid deletions of a chat, or the last ones: at least `KEPT + 1` of them if there are as many.
    fn from_iter<I: IntoIterator<Item = Deletion>>(deletions: I) -> Self {
        let mut all = Self::default();
        for deletion in deletions {
            all.add(deletion);
        }
        all
    }
}
