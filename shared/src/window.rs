//! What the time in a uuid proves, by the log's clock alone: whether an earlier copy of a command can be stored.
//!
//! The log remembers the commands of its dedupe window and stores none of them twice. A uuid of version 7 names the time
//! at which it was made, but a wrong clock may have made it. So that time proves nothing by itself, only together with
//! the times at which the log stored the user's commands:
//!
//! - An entry is *ahead* if its uuid's time is more than [`AHEAD_MS`] later than its own stored time. [`Ahead`] holds
//!   for each user the latest time of such a uuid.
//! - A copy that is not ahead was stored at most [`AHEAD_MS`] before its uuid's time. So if the uuid's time is not too
//!   long ago, such a copy is still inside the window, and the log recognises it.
//! - A copy that is ahead has marked its user.
//!
//! So no uuid needs a look-up whose time is near the log's time and later than every mark of its user. The margins, in
//! seconds, for a window of 120: 55 ahead + 45 fresh + 10 for the append + twice 5 for the clocks = 120, and
//! 55 ahead + 60 behind + 5 for the clocks = 120.
//!
//! Whether an entry is ahead depends on the log alone and on no setting, so every reader finds the same. The window may
//! be set shorter than two minutes: then less is proven, and more is looked up.

use uuid::{Uuid, Variant};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::id::UserId;

/// An entry whose uuid's time is later than its own stored time by more than this is ahead. Readers of the log have
/// judged by this number: it must not change.
pub const AHEAD_MS: u64 = 55_000;

/// How far the clocks of the log's servers may differ from each other, and how far a gateway's estimate of the log's
/// time may be wrong.
pub const CLOCK_ERROR_MS: u64 = 5_000;

/// The time in a uuid of version 7, in Unix milliseconds; `None`: it is of another version.
pub fn uuid_time_ms(uuid: Uuid) -> Option<u64> {
    if uuid.get_version_num() != 7 || uuid.get_variant() != Variant::RFC4122 {
        return None;
    }
    // The first 48 bits.
    Some((uuid.as_u128() >> 80) as u64)
}

/// The time of the uuid of an entry that the log stored at `ts_ms`, if the entry is ahead.
pub fn ahead_until(uuid: Uuid, ts_ms: u64) -> Option<u64> {
    uuid_time_ms(uuid).filter(|made_ms| *made_ms > ts_ms.saturating_add(AHEAD_MS))
}

/// The time for which the log remembers the commands that it has stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    pub ms: u64,
}

impl Window {
    /// A uuid is fresh if its time is nearer to the log's time than this; if its user has no mark at or above it, it may
    /// be appended without a look-up. An append takes up to `append_ms`. Zero: no uuid is fresh.
    pub const fn fresh_ms(self, append_ms: u64) -> u64 {
        // A fresh uuid is stored before it is ahead, although the estimate of the log's time may be wrong.
        let unmarked = AHEAD_MS - 2 * CLOCK_ERROR_MS;
        let inside = self.ms.saturating_sub(AHEAD_MS + append_ms + 2 * CLOCK_ERROR_MS);
        if inside < unmarked { inside } else { unmarked }
    }

    /// Whether no earlier copy of a command is stored, whose entry the log has stored at `ts_ms`. `ahead` holds the
    /// marks of all entries before it. `false` proves nothing: the earlier copy is to be looked for.
    pub fn proves_new(self, ahead: &Ahead, actor: UserId, uuid: Uuid, ts_ms: u64) -> bool {
        let Some(made_ms) = uuid_time_ms(uuid) else { return false };
        let Some(behind_ms) = self.ms.checked_sub(AHEAD_MS + CLOCK_ERROR_MS) else { return false };
        made_ms <= ts_ms.saturating_add(AHEAD_MS)
            && ts_ms <= made_ms.saturating_add(behind_ms)
            && !ahead.covers(actor, made_ms)
    }
}

/// For each user the latest time of a uuid of theirs that was ahead, in bounded memory.
///
/// Two tables of times, and each user has a place in both, which they share with others. A mark raises both places, and a
/// user's mark is the lower of the two. So it is never too low; it is too high only for a user both of whose places were
/// raised by others, and then a look-up is made that was not needed. The places are the same on every gateway, so that
/// gateways agree for whom. No memory is taken before the first mark.
#[derive(Debug, Clone, Default)]
pub struct Ahead {
    places: Box<[u64]>,
    /// The latest mark of all users: the places need not be read for a later uuid.
    latest_ms: u64,
}

/// The places of one table: 512 KiB for both. Of the users without a mark, one in 4,000 shares both places with marked
/// ones when a thousand users are marked.
const PLACES: usize = 1 << 15;

impl Ahead {
    /// Takes in an entry that the log stored at `ts_ms`; `true`: it is ahead.
    pub fn note(&mut self, actor: UserId, uuid: Uuid, ts_ms: u64) -> bool {
        let until = ahead_until(uuid, ts_ms);
        if let Some(until_ms) = until {
            self.mark(actor, until_ms);
        }
        until.is_some()
    }

    /// Marks a user who has a uuid of this time that was ahead.
    pub fn mark(&mut self, actor: UserId, until_ms: u64) {
        if self.places.is_empty() {
            self.places = vec![0; 2 * PLACES].into();
        }
        for place in places(actor) {
            self.places[place] = self.places[place].max(until_ms);
        }
        self.latest_ms = self.latest_ms.max(until_ms);
    }

    /// Whether the user may have a uuid that was ahead and whose time is this or later.
    pub fn covers(&self, actor: UserId, made_ms: u64) -> bool {
        let is_below = |place: usize| self.places.get(place).is_some_and(|until_ms| made_ms <= *until_ms);
        made_ms <= self.latest_ms && places(actor).into_iter().all(is_below)
    }
}

/// The user's place in each of the two tables.
fn places(actor: UserId) -> [usize; 2] {
    let hash = xxh3_64_with_seed(&actor.get().to_le_bytes(), 0);
    let place = |bits: u64| bits as usize % PLACES;
    [place(hash), PLACES + place(hash >> 32)]
}
