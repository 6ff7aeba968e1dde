//! When a session is closed for frames that had to be refused, or that do nothing.
//!
//! There are two counts per session, each over a window that begins with its first frame: one of all refused, ignored and
//! dropped frames, one of frames that could not be parsed.

use super::close::Close;

/// More of these than [`FLOOD`] in [`FLOOD_WINDOW_MS`] close the session: 200 frames that were refused or ignored, or
/// 1,000 best-effort ones that were dropped. Those may come in bursts from a client that only scrolls fast.
const FLOOD: u16 = 1_000;
const REFUSED: u16 = 5;
const DROPPED: u16 = 1;
const FLOOD_WINDOW_MS: u32 = 10_000;
/// More unparsable frames than this in [`MALFORMED_WINDOW_MS`] close the session.
const MALFORMED_FRAMES: u8 = 5;
const MALFORMED_WINDOW_MS: u32 = 60_000;

/// A frame that had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// It was answered by an error.
    Refused,
    /// It could not even be parsed.
    Malformed,
    /// It asks for nothing (an unknown type, a pong, a fragment), and there were more of those than a client needs.
    Ignored,
    /// It was a best-effort frame beyond the allowance.
    Dropped,
}

/// Counts of such frames in windows that start with the first.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Refusals {
    window_ms: u32,
    count: u16,
    malformed_window_ms: u32,
    malformed: u8,
}

impl Refusals {
    /// Counts a frame. Returns the close if there were too many in the window.
    pub(super) fn count(&mut self, frame: Idle, now_ms: u64) -> Option<Close> {
        // The low 32 bits are enough for windows of a minute; wrapping differences stay right.
        let now = now_ms as u32;
        if self.count == 0 || now.wrapping_sub(self.window_ms) > FLOOD_WINDOW_MS {
            (self.window_ms, self.count) = (now, 0);
        }
        let weight = if frame == Idle::Dropped { DROPPED } else { REFUSED };
        self.count = self.count.saturating_add(weight);
        let malformed = frame == Idle::Malformed;
        if malformed {
            if self.malformed == 0 || now.wrapping_sub(self.malformed_window_ms) > MALFORMED_WINDOW_MS {
                (self.malformed_window_ms, self.malformed) = (now, 0);
            }
            self.malformed += 1;
        }
        if self.malformed > MALFORMED_FRAMES && malformed {
            Some(Close::Malformed)
        } else if self.count > FLOOD {
            Some(Close::Flooding)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_unparsable_frame_in_a_minute_closes() {
        let mut refusals = Refusals::default();
        for at in 0..5 {
            assert_eq!(refusals.count(Idle::Malformed, at * 1_000), None);
        }
        assert_eq!(refusals.count(Idle::Malformed, 59_000), Some(Close::Malformed));
        let mut calm = Refusals::default();
        for at in 0..20 {
            assert_eq!(calm.count(Idle::Malformed, at * 13_000), None);
        }
    }

    #[test]
    fn refused_commands_close_only_as_a_flood() {
        let mut refusals = Refusals::default();
        for _ in 0..200 {
            assert_eq!(refusals.count(Idle::Refused, 5_000), None);
        }
        assert_eq!(refusals.count(Idle::Refused, 5_000), Some(Close::Flooding));
        assert_eq!(refusals.count(Idle::Refused, 20_000), None);
    }
    #[test]
    fn frames_that_do_nothing_close_as_a_flood_and_dropped_ones_later() {
        for (frame, allowed) in [(Idle::Ignored, 200), (Idle::Dropped, 1_000)] {
            let mut refusals = Refusals::default();
            for _ in 0..allowed {
                assert_eq!(refusals.count(frame, 5_000), None, "{frame:?}");
            }
            assert_eq!(refusals.count(frame, 5_000), Some(Close::Flooding), "{frame:?}");
        }
    }
}
