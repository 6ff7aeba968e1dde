//! The ring: the newest entries of the log in memory, up to a budget of bytes, with a chain per chat.
//!
//! A device that comes back after a short absence is served from here, without a query. The ring judges nothing: others
//! set the verdicts. Invariants: the entries are dense, from the one after the floor to the position; each entry links to
//! the previous entry of its chat; `heads` holds the newest entry of every chat that has one here.

mod copies;

use std::{collections::VecDeque, hash::BuildHasher, sync::LazyLock};

use bytes::Bytes;
use foldhash::fast::{FixedState, RandomState};
use hashbrown::{HashMap, hash_map::Entry as MapEntry};
use shared::{
    code::Code,
    event::Kind,
    id::{ChatId, EventId, Position, Seq, UserId},
};
use uuid::Uuid;

use self::copies::Copies;

/// The key of a command in the ring's index. Two commands may share it, so a reader that finds an entry by it compares
/// uuid and user. Clients choose the uuids, so the hash has a secret seed: nobody can make many of them collide. The
/// lowest bit is always set, because zero means "no command".
pub fn command_hash(chat: ChatId, actor: UserId, uuid: Uuid) -> u64 {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    SEED.hash_one((chat, actor, uuid)) | 1
}

/// Whether an entry is a valid event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not judged yet: the chat's state is not loaded on this gateway.
    Unknown,
    Valid,
    /// Refused, so it is no part of the chat.
    Void(Code),
    /// A second copy of the command at this sequence. Only the first copy counts.
    Repeat(Seq),
}

/// One entry of the log, and what is known of it.
#[derive(Debug)]
pub struct Entry {
    pub id: EventId,
    /// JetStream's stored time, Unix ms.
    pub ts: u64,
    /// `None`: the entry belongs to no chat. It is the partition's own no-op, or its head cannot be read.
    pub chat: Option<ChatId>,
    /// The chat's previous entry, valid or not; zero if the ring had none when this one came. Set by the ring.
    pub link: Seq,
    /// The chat's previous valid event. Only meaningful once the verdict is `Valid`.
    pub prev: Seq,
    pub verdict: Verdict,
    pub kind: Kind,
    /// A hash of (chat, user, uuid); zero: no command.
    pub command: u64,
    /// The distance back to the next older entry that may hold the same command; zero: there is none. Set by the ring.
    pub alike: u32,
    /// The message was deleted later, or the entry edits a message that was. It is replayed without its body.
    pub deleted: bool,
    /// A slice of a larger allocation, which it shares with its neighbours in the log.
    pub payload: Bytes,
}

/// Bytes that an entry costs beside its payload: itself, and its share of the two indexes.
const ENTRY_BYTES: usize = size_of::<Entry>() + 40;

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.payload.len()
    }
}

/// The newest entries of the log. [`Ring::push`] adds one, and gives up the oldest beyond the budget.
#[derive(Debug)]
pub struct Ring {
    /// The position before the oldest entry here.
    floor: Position,
    entries: VecDeque<Entry>,
    heads: HashMap<ChatId, Seq, FixedState>,
    copies: Copies,
    bytes: usize,
    max_bytes: usize,
    /// How many loads are in flight; see [`Ring::pin`].
    pins: usize,
}

/// While a load is in flight the ring may exceed its budget by one part in this many. Loads take milliseconds. If more
/// than that arrives during a load, the load starts again.
const PIN_SLACK_DIVISOR: usize = 4;

/// The capacity grows by one part in this many. So each entry is moved some eight times while the ring fills, and never
/// afterwards. Moving all entries of 8 MiB takes a millisecond.
const GROWTH_DIVISOR: usize = 8;
const LEAST_GROWTH: usize = 64;

impl Ring {
    /// An empty ring that continues after `floor`.
    pub fn new(floor: Position, max_bytes: usize) -> Self {
        Self {
            floor,
            entries: VecDeque::new(),
            heads: HashMap::default(),
            copies: Copies::default(),
            bytes: 0,
            max_bytes,
            pins: 0,
        }
    }

    /// The position before the oldest entry. Entries at or below it must be read from elsewhere.
    pub const fn floor(&self) -> Position {
        self.floor
    }

    /// The position of the newest entry.
    pub fn position(&self) -> Position {
        let seq = Seq(self.floor.seq.get() + self.entries.len() as u64);
        self.entries.back().map_or(self.floor, |entry| Position { seq, id: entry.id })
    }

    /// The stored time of the newest entry; 0: there is none.
    pub fn newest_ms(&self) -> u64 {
        self.entries.back().map_or(0, |entry| entry.ts)
    }

    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    fn index(&self, seq: Seq) -> Option<usize> {
        let above = seq.get().checked_sub(self.floor.seq.get() + 1)?;
        usize::try_from(above).ok().filter(|index| *index < self.entries.len())
    }

    pub fn get(&self, seq: Seq) -> Option<&Entry> {
        self.entries.get(self.index(seq)?)
    }

    pub fn get_mut(&mut self, seq: Seq) -> Option<&mut Entry> {
        let index = self.index(seq)?;
        self.entries.get_mut(index)
    }

    /// The identity of the entry at `seq`, the floor's included.
    pub fn id_at(&self, seq: Seq) -> Option<EventId> {
        if seq == self.floor.seq { Some(self.floor.id) } else { self.get(seq).map(|entry| entry.id) }
    }

    /// The newest entry of a chat.
    pub fn head(&self, chat: ChatId) -> Option<Seq> {
        self.heads.get(&chat).copied()
    }

    /// Appends the next entry and gives up the oldest beyond the budget. The entry's `link` is set here.
    pub fn push(&mut self, mut entry: Entry) -> Seq {
        let seq = self.position().seq.next();
        if let Some(chat) = entry.chat {
            entry.link = match self.heads.entry(chat) {
                MapEntry::Occupied(mut head) => head.insert(seq),
                MapEntry::Vacant(vacant) => {
                    vacant.insert(seq);
                    Seq::ZERO
                }
            };
        }
        self.copies.make_room(self.entries.len(), &mut self.entries, self.floor.seq);
        self.copies.add(&mut entry, seq, self.floor.seq);
        self.bytes += entry.bytes();
        if self.entries.len() == self.entries.capacity() {
            // A ring buffer touches all of its capacity, so spare capacity would become resident memory. Grow by an
            // eighth instead of doubling.
            self.entries.reserve_exact((self.entries.len() / GROWTH_DIVISOR).max(LEAST_GROWTH));
        }
        self.entries.push_back(entry);
        self.evict();
        seq
    }

    fn evict(&mut self) {
        let slack = if self.pins > 0 { self.max_bytes / PIN_SLACK_DIVISOR } else { 0 };
        while self.bytes > self.max_bytes + slack && self.entries.len() > 1 {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.floor = Position { seq: self.floor.seq.next(), id: entry.id };
        self.bytes -= entry.bytes();
        if let Some(chat) = entry.chat
            && self.heads.get(&chat) == Some(&self.floor.seq)
        {
            self.heads.remove(&chat);
        }
    }

    /// The entries in the ring with this hash of a command (see [`Entry::command`]), newest first.
    pub fn copies(&self, command: u64) -> impl Iterator<Item = (Seq, &Entry)> + '_ {
        let mut next = self.copies.newest(command, self.position().seq);
        let alike = std::iter::from_fn(move || {
            let seq = next?;
            let entry = self.get(seq)?;
            next = Copies::before(entry, seq);
            Some((seq, entry))
        });
        alike.filter(move |(_, entry)| entry.command == command)
    }

    /// A chat's entries, valid or not, newest first.
    pub fn chain(&self, chat: ChatId) -> impl Iterator<Item = (Seq, &Entry)> + '_ {
        let mut next = self.head(chat);
        std::iter::from_fn(move || {
            let seq = next?;
            let entry = self.get(seq)?;
            next = (entry.link > self.floor.seq).then_some(entry.link);
            Some((seq, entry))
        })
    }

    /// Keeps the entries while they are at most a quarter over the budget, until [`Ring::unpin`] was called as often as
    /// this.
    pub const fn pin(&mut self) {
        self.pins += 1;
    }

    pub fn unpin(&mut self) {
        self.pins = self.pins.saturating_sub(1);
        self.evict();
    }

    /// Forgets everything, and continues after `position`.
    pub fn skip_to(&mut self, position: Position) {
        self.entries.clear();
        self.heads.clear();
        self.copies = Copies::default();
        (self.bytes, self.floor) = (0, position);
    }

    /// Forgets all above `cut`, because the log lost it.
    pub fn cut(&mut self, cut: Position) {
        while self.position().seq > cut.seq {
            let seq = self.position().seq;
            let Some(entry) = self.entries.pop_back() else { break };
            self.bytes -= entry.bytes();
            self.copies.take_back(&entry, seq);
            let Some(chat) = entry.chat else { continue };
            if entry.link > self.floor.seq {
                self.heads.insert(chat, entry.link);
            } else {
                self.heads.remove(&chat);
            }
        }
        if self.entries.is_empty() {
            self.floor = cut;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The hash of a chat's one command. The commands of two chats share a bucket.
    fn command(chat: u64) -> u64 {
        (chat / 2) << 32 | chat << 1 | 1
    }

    fn entry(chat: u64, payload: usize) -> Entry {
        Entry {
            id: EventId(chat),
            ts: 0,
            chat: ChatId::new(chat).ok(),
            link: Seq::ZERO,
            prev: Seq::ZERO,
            verdict: Verdict::Unknown,
            kind: Kind::MessageSent,
            command: command(chat),
            alike: 0,
            deleted: false,
            payload: vec![0; payload].into(),
        }
    }

    proptest! {
        /// The chain of each chat is exactly what a scan of the survivors finds, after any pushes and cuts.
        #[test]
        fn chains_agree_with_a_scan(
            steps in prop::collection::vec((0_u64..6, 0_usize..300, prop::option::weighted(0.05, 0_u64..20)), 1..300),
            max_bytes in 500_usize..60_000,
            floor in prop::sample::select(vec![0, u64::from(u32::MAX) - 50]),
        ) {
            let mut ring = Ring::new(Position { seq: Seq(floor), id: EventId(0) }, max_bytes);
            for (chat, payload, cut) in steps {
                ring.push(entry(chat, payload));
                if let Some(back) = cut {
                    let seq = Seq(ring.position().seq.get().saturating_sub(back).max(ring.floor().seq.get()));
                    let id = ring.id_at(seq).unwrap();
                    ring.cut(Position { seq, id });
                }
                prop_assert!(ring.bytes() <= max_bytes || ring.entries.len() <= 1);
                let (floor, tip) = (ring.floor().seq.get(), ring.position().seq.get());
                for chat in 1..6 {
                    let chat = ChatId::new(chat).unwrap();
                    let chained: Vec<Seq> = ring.chain(chat).map(|(seq, _)| seq).collect();
                    let scanned: Vec<Seq> = (floor + 1..=tip)
                        .rev()
                        .map(Seq)
                        .filter(|seq| ring.get(*seq).unwrap().chat == Some(chat))
                        .collect();
                    prop_assert_eq!(&chained, &scanned);
                    prop_assert_eq!(ring.head(chat), scanned.first().copied());
                    let copies: Vec<Seq> = ring.copies(command(chat.get())).map(|(seq, _)| seq).collect();
                    prop_assert_eq!(&copies, &scanned);
                }
            }
        }
    }

    #[test]
    fn a_pinned_ring_keeps_its_floor_within_the_slack() {
        let mut ring = Ring::new(Position::default(), 1_000);
        ring.push(entry(1, 100));
        ring.pin();
        while ring.bytes() + ENTRY_BYTES + 100 <= 1_250 {
            ring.push(entry(1, 100));
        }
        assert_eq!(ring.floor().seq, Seq::ZERO);
        ring.unpin();
        assert!(ring.floor().seq > Seq::ZERO);
        assert!(ring.bytes() <= 1_000);
    }
}
