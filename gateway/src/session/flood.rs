//! When a session is closed for frames that had to be refused.
//!
//! There are two counts per session, each over a window that begins with its first refusal: one of all refused
//! frames, one of frames that could not be parsed.

use super::close::Close;

/// More refusals than this in [`FLOOD_WINDOW_MS`] close the session.
const FLOOD_REFUSALS: u16 = 200;
const FLOOD_WINDOW_MS: u32 = 10_000;
/// More unparsable frames than this in [`MALFORMED_WINDOW_MS`] close the session.
const MALFORMED_FRAMES: u8 = 5;
const MALFORMED_WINDOW_MS: u32 = 60_000;

/// Counts of refused frames in windows that start with the first refusal.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Refusals {
    window_ms: u32,
    count: u16,
    malformed_window_ms: u32,
    malformed: u8,
}

impl Refusals {
    /// Counts a refused frame. Returns the close if there were too many in the window.
    pub(super) fn count(&mut self, malformed: bool, now_ms: u64) -> Option<Close> {
        // The low 32 bits are enough for windows of a minute; wrapping differences stay right.
        let now = now_ms as u32;
        if self.count == 0 || now.wrapping_sub(self.window_ms) > FLOOD_WINDOW_MS {
            (self.window_ms, self.count) = (now, 0);
        }
        self.count += 1;
        if malformed {
            if self.malformed == 0 || now.wrapping_sub(self.malformed_window_ms) > MALFORMED_WINDOW_MS {
                (self.malformed_window_ms, self.malformed) = (now, 0);
            }
            self.malformed += 1;
        }
        if self.malformed > MALFORMED_FRAMES && malformed {
            Some(Close::Malformed)
        } else if self.count > FLOOD_REFUSALS {
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
            assert_eq!(refusals.count(true, at * 1_000), None);
        }
        assert_eq!(refusals.count(true, 59_000), Some(Close::Malformed));
        let mut calm = Refusals::default();
        for at in 0..20 {
            assert_eq!(calm.count(true, at * 13_000), None);
        }
    }

    #[test]
    fn refused_commands_close_only_as_a_flood() {
        let mut refusals = Refusals::default();
        for _ in 0..200 {
            assert_eq!(refusals.count(false, 5_000), None);
        }
        assert_eq!(refusals.count(false, 5_000), Some(Close::Flooding));
        assert_eq!(refusals.count(false, 20_000), None);
    }
}
