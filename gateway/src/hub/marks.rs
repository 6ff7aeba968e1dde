//! What the hub knows of uuids that were ahead of the log's time: by that, and by the log's dedupe window, most commands
//! need no look-up of an earlier copy (`shared::window`).
//!
//! Every entry that is applied marks its user if it is ahead, whatever chat it is of and whether it is valid or not.
//! What is older than the first entry that the hub reads is loaded, by `feed::marks`. Invariant: nothing is
//! proven before that. A mark is never taken back: a mark of an entry that the log has lost costs a look-up.

use shared::{
    id::{Seq, UserId},
    window::{Ahead, Window},
};
use uuid::Uuid;

use super::Hub;

/// The marks of all users; part of what the hub's mutex guards.
#[derive(Debug, Default)]
pub struct Marks {
    /// The log's dedupe window; zero until it is known.
    window: Window,
    ahead: Ahead,
    /// The marks of the entries up to here are not loaded.
    missing: Option<Seq>,
}

/// What speaks for or against a uuid; see [`Hub::standing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub window: Window,
    /// Whether the user may have a uuid that was ahead and is not earlier than this one; `None`: marks are missing.
    pub is_marked: Option<bool>,
    /// The stored time of the newest entry; 0: the hub has none.
    pub newest_ms: u64,
}

impl Marks {
    /// Takes in an entry.
    pub(super) fn note(&mut self, actor: UserId, uuid: Uuid, ts_ms: u64) {
        self.ahead.note(actor, uuid, ts_ms);
    }

    /// The hub begins after `floor`: what is marked up to there is to be loaded.
    pub(super) fn begin_after(&mut self, floor: Seq) {
        self.missing = (floor > Seq::ZERO).then_some(floor);
    }

    /// The log has lost all above `cut`. What it stores there next is applied.
    pub(super) fn cut(&mut self, cut: Seq) {
        self.missing = self.missing.map(|missing| missing.min(cut));
    }

    /// Whether the log certainly holds no earlier copy of a command that it has stored at `ts_ms`. The marks of the
    /// entries before it are here.
    pub fn proves_new(&self, actor: UserId, uuid: Uuid, ts_ms: u64) -> bool {
        self.missing.is_none() && self.window.proves_new(&self.ahead, actor, uuid, ts_ms)
    }
}

impl Hub {
    /// Says what the log's dedupe window is. If it was another one before, the shorter one counts, because the log may
    /// hold what was stored under that.
    pub fn set_window(&self, window: Window) {
        let mut state = self.lock();
        let known = state.marks.window;
        if known.ms == 0 || window.ms < known.ms {
            state.marks.window = window;
        }
    }

    /// Whether the log certainly holds no earlier copy of a command that it has stored at `ts_ms`.
    pub fn proves_new(&self, actor: UserId, uuid: Uuid, ts_ms: u64) -> bool {
        self.lock().marks.proves_new(actor, uuid, ts_ms)
    }

    /// The sequence up to which marks are missing.
    pub fn marks_missing(&self) -> Option<Seq> {
        self.lock().marks.missing
    }

    /// Takes in marks that were loaded: all that there are of entries up to `upto`, or more.
    pub fn install_marks(&self, marks: impl IntoIterator<Item = (UserId, u64)>, upto: Seq) {
        let mut state = self.lock();
        for (actor, until_ms) in marks {
            state.marks.ahead.mark(actor, until_ms);
        }
        state.marks.missing = state.marks.missing.filter(|missing| *missing > upto);
    }

    /// Whether a uuid of the user, made at `made_ms`, may be older than it looks.
    pub fn standing(&self, actor: UserId, made_ms: u64) -> Standing {
        let state = self.lock();
        let marks = &state.marks;
        Standing {
            window: marks.window,
            is_marked: marks.missing.is_none().then(|| marks.ahead.covers(actor, made_ms)),
            newest_ms: state.ring.newest_ms(),
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::{
        event::{Event, Fact},
        id::Position,
    };
    use streams::Entry;

    use super::*;
    use crate::hub::stage::*;

    /// An entry of a user whose uuid is so much later than the entry.
    fn ahead_by(stage: &mut Stage, actor: u64, fact: Fact, by_ms: u64) -> Entry {
        let entry = stage.log.append(7, actor, fact);
        Entry { ts_ms: made_ms(&entry) - by_ms, ..entry }
    }

    fn made_ms(entry: &Entry) -> u64 {
        shared::window::uuid_time_ms(Event::decode(&entry.payload).unwrap().uuid).unwrap()
    }

    #[test]
    fn an_entry_that_is_ahead_marks_its_user_though_nobody_knows_its_chat() {
        let mut stage = Stage::new();
        let entry = ahead_by(&mut stage, 1, sent("from the future"), 150_000);
        let near = ahead_by(&mut stage, 2, sent("from now"), 1_000);
        let made_ms = made_ms(&entry);
        let marked = |stage: &Stage, actor| stage.hub.standing(user(actor), made_ms).is_marked;
        assert_eq!(marked(&stage, 1), Some(false));
        stage.apply(&entry);
        stage.apply(&near);
        assert_eq!((marked(&stage, 1), marked(&stage, 2)), (Some(true), Some(false)));
        assert_eq!(stage.hub.standing(user(1), made_ms).newest_ms, near.ts_ms);
        assert_eq!(stage.hub.standing(user(1), made_ms + 1).is_marked, Some(false), "a later one");
    }

    #[test]
    fn nothing_is_proven_before_the_marks_of_the_past_are_here() {
        let stage = Stage::new();
        stage.hub.set_window(Window { ms: 120_000 });
        let new = |stage: &Stage, actor| {
            let uuid = stage.log.next_key(1, actor).uuid;
            stage.hub.lock().marks.proves_new(user(actor), uuid, shared::window::uuid_time_ms(uuid).unwrap())
        };
        assert!(new(&stage, 1));
        stage.hub.begin(Position { seq: Seq(10), ..Position::default() }, 0);
        assert_eq!((stage.hub.marks_missing(), new(&stage, 1)), (Some(Seq(10)), false));
        stage.hub.install_marks([], Seq(9));
        assert_eq!((stage.hub.marks_missing(), new(&stage, 1)), (Some(Seq(10)), false), "not all of them");
        stage.hub.install_marks([(user(2), u64::MAX)], Seq(10));
        assert_eq!((stage.hub.marks_missing(), new(&stage, 1), new(&stage, 2)), (None, true, false));
        stage.hub.skip_to(Position { seq: Seq(20), ..Position::default() });
        assert_eq!(stage.hub.marks_missing(), Some(Seq(20)), "entries were skipped");
        stage.hub.cut(Position { seq: Seq(15), ..Position::default() }, 1);
        assert_eq!(stage.hub.marks_missing(), Some(Seq(15)), "the rest is lost and comes anew");
    }

    #[test]
    fn the_shortest_window_counts() {
        let stage = Stage::new();
        let window = |stage: &Stage| stage.hub.standing(user(1), 0).window.ms;
        assert_eq!(window(&stage), 0, "nothing is fresh before it is known");
        for (told, counts) in [(120_000, 120_000), (60_000, 60_000), (120_000, 60_000)] {
            stage.hub.set_window(Window { ms: told });
            assert_eq!(window(&stage), counts);
        }
    }
}
