//! Which entries of the ring may hold the same command: a hash table whose chains run through the entries themselves.
//!
//! An entry costs four bytes here and one look at them when it comes. When it goes it costs nothing: what a bucket or
//! an entry says of evicted ones is below the ring's floor, and ends the chain. Everybody who follows a chain compares
//! the whole hash, so that a bucket may say too much, but never too little.

use std::collections::VecDeque;

use shared::id::Seq;

use super::Entry;

/// Buckets of a ring that holds next to nothing; there are always as many as entries.
const LEAST: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Copies {
    /// The newest entry of each: the low half of its sequence. A power of two of them.
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

    /// Chains the entry that comes next, at `seq`.
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

    /// Takes the newest entry out of its chain.
    pub(super) fn take_back(&mut self, entry: &Entry, seq: Seq) {
        if entry.command != 0 {
            let before = Self::before(entry, seq).unwrap_or(Seq::ZERO);
            *self.bucket(entry.command) = before.get() as u32;
        }
    }

    /// The newest entry up to `position` that may hold the command.
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

    /// The upper half of the hash: its lowest bit says that there is a command at all.
    fn index(&self, command: u64) -> usize {
        (command >> 32) as usize & (self.buckets.len() - 1)
    }
}

/// The last sequence up to `position` with this low half.
fn whole(low: u32, position: Seq) -> Option<Seq> {
    let back = (position.get() as u32).wrapping_sub(low);
    position.get().checked_sub(u64::from(back)).map(Seq)
}
