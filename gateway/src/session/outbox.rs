//! The frames that wait to be written to one session, encoded, in the order in which they go on the wire.
//!
//! The bytes of a frame are shared by all sessions that are sent it. Invariants:
//! - live events and best-effort frames stay within [`Bounds`]: `Outlet` asks before it queues them;
//! - the events of a catch-up and a page are queued only when little waits, one piece of them at a time. Nothing is
//!   read from a client whose outbox is past its bounds, so its answers end with what had been read until then;
//! - frames are written in the order in which they were queued, each whole;
//! - `written` is the position up to which every durable event has been handed to the kernel. So a session that falls
//!   behind can drop its queued durable frames and read them from the log again, without a gap or a duplicate.

use std::{collections::VecDeque, task::Waker};

use bytes::Bytes;
use shared::id::Seq;

/// How much may still wait to be written when a catch-up is asked for more.
pub const LOW_WATER_BYTES: usize = 8 * 1024;

/// A WebSocket frame, header included.
#[derive(Debug, Clone)]
pub struct Queued {
    pub bytes: Bytes,
    /// Once this frame is written, every durable event up to here has been. Set for durable events, `Live` and
    /// `Cursor`; zero for all other frames.
    pub covers: Seq,
    /// When the log stored the event, Unix µs; zero for frames whose delivery is not measured.
    pub stored_us: u64,
}

/// How much may wait for a slow reader.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Past this many bytes or frames a session leaves the live lane.
    pub bytes: usize,
    pub frames: usize,
}

#[derive(Debug, Default)]
pub struct Outbox {
    frames: VecDeque<Queued>,
    bytes: usize,
    /// Bytes of the first frame that are written already.
    offset: usize,
    written: Seq,
    /// When a byte was last written, or the outbox last stopped being empty; ms of the gateway's clock.
    moved_ms: u64,
    /// Since when the first frame is the first.
    first_ms: u64,
    /// Wakes the session's catch-up and its fetch when the outbox has drained.
    drained: Vec<Waker>,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub const fn written(&self) -> Seq {
        self.written
    }

    /// Sets the position that a session starts from, or goes back to. The rest of a frame that is half on the wire is
    /// still written, but no longer counts as covering anything beyond.
    pub fn start_at(&mut self, position: Seq) {
        self.written = position;
        if let Some(front) = self.frames.front_mut() {
            front.covers = front.covers.min(position);
        }
    }

    /// Whether one more frame of `length` bytes stays within the bounds.
    pub fn has_room(&self, bounds: Bounds, length: usize) -> bool {
        self.frames.len() < bounds.frames && self.bytes + length <= bounds.bytes
    }

    /// Whether more waits than the bounds allow.
    pub fn is_over(&self, bounds: Bounds) -> bool {
        self.frames.len() > bounds.frames || self.bytes > bounds.bytes
    }

    pub fn push(&mut self, frame: Queued, now_ms: u64) {
        if self.frames.is_empty() {
            (self.moved_ms, self.first_ms) = (now_ms, now_ms);
        }
        self.bytes += frame.bytes.len();
        self.frames.push_back(frame);
    }

    /// Since when nothing was written although something waits.
    pub fn stalled_since_ms(&self) -> Option<u64> {
        (!self.frames.is_empty()).then_some(self.moved_ms)
    }

    /// Since when the frame is being written that is not whole on the wire yet.
    pub fn writing_since_ms(&self) -> Option<u64> {
        (!self.frames.is_empty()).then_some(self.first_ms)
    }

    /// Drops all durable frames, since they can be read from the log again, except one that is half on the wire.
    /// Returns the position from which to read, and how many frames were dropped.
    pub fn drop_durable(&mut self) -> (Seq, usize) {
        let before = self.frames.len();
        let half_written = self.offset > 0;
        let mut index = 0;
        let mut resume = self.written;
        let mut first_dropped = None;
        self.frames.retain(|frame| {
            let keep = frame.covers == Seq::ZERO || (index == 0 && half_written);
            if keep {
                resume = resume.max(frame.covers);
            } else {
                first_dropped.get_or_insert(frame.covers);
            }
            index += 1;
            keep
        });
        self.wake_if_drained(usize::MAX);
        // No event of this session lies between the last frame written and the first one dropped, so reading may
        // resume just before the dropped one.
        let resume = first_dropped.map_or(resume, |seq| resume.max(Seq(seq.get() - 1)));
        self.bytes = self.frames.iter().map(|frame| frame.bytes.len()).sum::<usize>() - self.offset;
        (resume, before - self.frames.len())
    }

    /// Drops everything but a frame that is half on the wire: the client is only told why it is closed.
    pub fn clear(&mut self) {
        let keep = usize::from(self.offset > 0);
        self.frames.truncate(keep);
        self.bytes = self.frames.iter().map(|frame| frame.bytes.len()).sum::<usize>() - self.offset;
    }

    /// Copies the next bytes to write, as many as there is room for in `buffer`.
    pub fn gather<'a>(&self, buffer: &'a mut [u8]) -> &'a [u8] {
        let mut filled = 0;
        let mut skip = self.offset;
        for frame in &self.frames {
            let rest = frame.bytes.get(skip..).unwrap_or_default();
            skip = 0;
            let room = &mut buffer[filled..];
            let count = rest.len().min(room.len());
            room[..count].copy_from_slice(&rest[..count]);
            filled += count;
            if filled == buffer.len() {
                break;
            }
        }
        &buffer[..filled]
    }

    /// Removes `written` bytes that the kernel has taken. Returns when the log stored the oldest live event among the
    /// frames that are whole on the wire now, or zero.
    pub fn advance(&mut self, mut written: usize, now_ms: u64) -> u64 {
        let mut oldest_us = 0;
        self.bytes -= written;
        self.moved_ms = now_ms;
        while let Some(front) = self.frames.front() {
            let rest = front.bytes.len() - self.offset;
            if written < rest {
                self.offset += written;
                break;
            }
            written -= rest;
            self.offset = 0;
            self.written = self.written.max(front.covers);
            if oldest_us == 0 {
                oldest_us = front.stored_us;
            }
            self.frames.pop_front();
            self.first_ms = now_ms;
        }
        if self.frames.is_empty() {
            // An idle session keeps no queue.
            self.frames = VecDeque::new();
        }
        oldest_us
    }

    /// Wakes those who wait, if no more than `low` bytes are left.
    pub fn wake_if_drained(&mut self, low: usize) {
        if self.bytes <= low {
            std::mem::take(&mut self.drained).into_iter().for_each(Waker::wake);
        }
    }

    /// Adds a waker for [`Outbox::wake_if_drained`].
    pub fn wait_drained(&mut self, waker: &Waker) {
        if !self.drained.iter().any(|waiting| waiting.will_wake(waker)) {
            self.drained.push(waker.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(covers: u64, length: usize) -> Queued {
        Queued { bytes: Bytes::from(vec![covers as u8; length]), covers: Seq(covers), stored_us: 0 }
    }

    proptest! {
        /// Whatever the kernel takes at a time: the wire is the concatenation, and `written` counts whole frames.
        #[test]
        fn writes_everything_in_order(
            lengths in prop::collection::vec(1_usize..50, 1..80),
            takes in prop::collection::vec(1_usize..200, 1..200),
            room in 1_usize..300,
        ) {
            let mut buffer = vec![0; room];
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for (index, length) in lengths.iter().enumerate() {
                let frame = frame(index as u64 + 1, *length);
                expected.extend_from_slice(&frame.bytes);
                outbox.push(frame, 0);
            }
            let mut wire = Vec::new();
            let mut takes = takes.into_iter().cycle();
            while !outbox.is_empty() {
                let offered = outbox.gather(&mut buffer);
                let taken = offered.len().min(takes.next().unwrap());
                wire.extend_from_slice(&offered[..taken]);
                outbox.advance(taken, 0);
                prop_assert_eq!(outbox.bytes(), expected.len() - wire.len());
            }
            prop_assert_eq!(wire, expected);
            prop_assert_eq!(outbox.written(), Seq(lengths.len() as u64));
        }

        /// Falling behind never loses a byte of a frame under way nor a frame that the log does not have.
        #[test]
        fn drops_only_what_the_log_gives_again(
            frames in prop::collection::vec((any::<bool>(), 1_usize..20), 1..40),
            taken in 0_usize..300,
        ) {
            let mut outbox = Outbox::default();
            for (index, (durable, length)) in frames.iter().enumerate() {
                outbox.push(frame(if *durable { index as u64 + 1 } else { 0 }, *length), 0);
            }
            let total = outbox.bytes();
            outbox.advance(taken.min(total), 0);
            let half = outbox.offset > 0;
            let queued: Vec<Seq> = outbox.frames.iter().map(|frame| frame.covers).collect();
            let (resume, dropped) = outbox.drop_durable();
            let lost: Vec<Seq> = queued.into_iter().skip(half.into()).filter(|seq| *seq > Seq::ZERO).collect();
            prop_assert_eq!(dropped, lost.len());
            prop_assert!(lost.iter().all(|seq| *seq > resume), "the log is read from before what was dropped");
            let kept = outbox.frames.front().map_or(Seq::ZERO, |frame| frame.covers).max(outbox.written());
            prop_assert!(resume >= kept, "and from behind what was not");
            prop_assert!(outbox.frames.iter().skip(usize::from(half)).all(|frame| frame.covers == Seq::ZERO));
            let left: usize = outbox.frames.iter().map(|frame| frame.bytes.len()).sum();
            prop_assert_eq!(outbox.bytes(), left - outbox.offset);
        }
    }

    /// The log is cut below a frame that is half on the wire. Its rest is written, but covers nothing any more.
    #[test]
    fn a_half_written_frame_covers_nothing_beyond_the_position_that_a_session_goes_back_to() {
        let mut outbox = Outbox::default();
        outbox.push(frame(120, 10), 0);
        outbox.advance(4, 0);
        assert_eq!(outbox.drop_durable(), (Seq(120), 0));
        outbox.start_at(Seq(100));
        outbox.advance(6, 0);
        assert!(outbox.is_empty());
        assert_eq!(outbox.written(), Seq(100));
    }
}
