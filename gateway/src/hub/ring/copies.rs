//! An index of the ring's entries by command: a hash table whose chains run through the entries themselves.
//!
//! A bucket names the newest entry of its chain, and each entry says how far before it the next one lies
//! (`Entry::alike`). An entry costs four to eight bytes in the table. Eviction needs no update: a link to an evicted
//! entry points below the ring's floor, which ends the chain. A chain may hold entries of other commands, so the reader
//! compares the whole hash. Every entry in the ring that holds a command is in its chain.

use std::collections::VecDeque;

use shared::id::Seq;

use super::Entry;

/// The buckets of an empty ring. There are never fewer buckets than entries, so chains stay short.
const LEAST: usize = 64;

/// The table of buckets.
#[derive(Debug)]
pub(super) struct Copies {
    /// The newest entry of each bucket, as the low half of its sequence. Their number is a power of two.
    buckets: Box<[u32]>,
}

impl Default for Copies {
    fn default() -> Self {
        Self { buckets: vec![0; LEAST].into() }
    }
}

impl Copies {
    /// Makes more buckets if `count` entries fill them. `entries` are the entries after `floor`.
    pub(super) fn make_room(&mut self, count: usize, entries: &mut VecDeque<Entry>, floor: Seq) {
        if count < self.buckets.len() {
            return;
        }
        self.buckets = vec![0; self.buckets.len() * 2].into();
        let mut seq = floor;
        for entry in entries {
            seq = seq.next();
            self.add(entry, seq, floor);
        }
    }

    /// Puts the ring's next entry, at `seq`, at the head of its chain.
    pub(super) fn add(&mut self, entry: &mut Entry, seq: Seq, floor: Seq) {
        entry.alike = 0;
        if entry.command == 0 {
            return;
        }
        let bucket = self.bucket(entry.command);
        let before = whole(std::mem::replace(bucket, seq.get() as u32), Seq(seq.get() - 1));
        if let Some(before) = before.filter(|before| *before > floor) {
            entry.alike = u32::try_from(seq.get() - before.get()).unwrap_or(0);
        }
    }

    /// Takes the ring's newest entry, the head of its chain, out again.
    pub(super) fn take_back(&mut self, entry: &Entry, seq: Seq) {
        if entry.command != 0 {
            let before = Self::before(entry, seq).unwrap_or(Seq::ZERO);
            *self.bucket(entry.command) = before.get() as u32;
        }
    }

    /// The head of the command's chain: the newest entry up to `position` that may hold it.
    pub(super) fn newest(&self, command: u64, position: Seq) -> Option<Seq> {
        whole(self.buckets[self.index(command)], position)
    }

    /// The next older entry that may hold the same command as the one at `seq`.
    pub(super) fn before(entry: &Entry, seq: Seq) -> Option<Seq> {
        (entry.alike > 0).then(|| Seq(seq.get() - u64::from(entry.alike)))
    }

    fn bucket(&mut self, command: u64) -> &mut u32 {
        &mut self.buckets[self.index(command)]
    }

    /// The bucket's index is taken from the upper half of the hash, because the lowest bit of the hash is always set.
    fn index(&self, command: u64) -> usize {
        (command >> 32) as usize & (self.buckets.len() - 1)
    }
}

/// The last sequence up to `position` whose low half is `low`.
fn whole(low: u32, position: Seq) -> Option<Seq> {
    let back = (position.get() as u32).wrapping_sub(low);
    position.get().checked_sub(u64::from(back)).map(Seq)
}
