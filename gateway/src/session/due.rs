//! What becomes due for a session as time passes: a ping, the notice that its token ends soon, a close.
//!
//! Called for every session once a tick, so that no session has a timer of its own. Invariants: a session that is
//! closing is sent nothing more. Its task detaches it at once, and tells the peer why for no longer than the linger time;
//! one that is still attached after that time is ended.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use shared::frame;

use super::{
    Session,
    close::Close,
    settings::Intervals,
    wire::{self, Encoding},
};

/// The time of a tick, by two clocks: intervals are measured by the first, tokens end by the second.
#[derive(Clone, Copy)]
pub struct Now {
    /// Milliseconds of the gateway's clock.
    pub mono_ms: u64,
    pub unix_ms: u64,
    /// The memory for pages is nearly used up, so a reader may not sit on one for long.
    pub pages_short: bool,
}

/// How long a reader may take for a page while the memory for pages is short. A reader on an ordinary link takes less.
const SHORT_WRITE_MS: u64 = 5_000;
/// What waits for a reader is most likely a page if it is more than this.
const PAGE_LIKE_BYTES: usize = 32 * 1024;

/// The `Ping` frame of this tick, encoded once for everyone.
pub struct Pings {
    json: Bytes,
    msgpack: Bytes,
}

impl Pings {
    pub fn new(t: u64) -> Self {
        let ping = frame::Ping { t }.into();
        Self {
            json: wire::encode(&ping, Encoding::Json),
            msgpack: wire::encode(&ping, Encoding::MessagePack),
        }
    }

    fn of(&self, encoding: Encoding) -> Bytes {
        match encoding {
            Encoding::Json => self.json.clone(),
            Encoding::MessagePack => self.msgpack.clone(),
        }
    }
}

impl Session {
    /// Does what has become due since the last tick. A session that is closing is only ended in time.
    pub fn sweep(&self, intervals: &Intervals, now: Now, pings: &Pings) {
        if self.closing().is_some() {
            let since = self.outlet.closing_since_ms();
            if now.mono_ms.saturating_sub(since) > intervals.linger_ms {
                self.end();
            }
            return;
        }
        if self.is_too_slow(intervals, now) {
            return self.close(Close::TooSlow, now.mono_ms);
        }
        self.sweep_token(intervals, now);
        let silent_ms = now.mono_ms.saturating_sub(self.alive_ms());
        if silent_ms > 2 * intervals.heartbeat_ms {
            return self.close(Close::NoHeartbeat, now.mono_ms);
        }
        let pinged = self.pinged_ms.load(Ordering::Acquire);
        if now.mono_ms.saturating_sub(pinged) >= intervals.heartbeat_ms {
            self.pinged_ms.store(now.mono_ms, Ordering::Release);
            self.push_control(wire::CONTROL_PING, now.mono_ms);
            self.push_control(pings.of(self.identity.encoding), now.mono_ms);
        }
    }

    /// Whether the reader has taken nothing for too long, or has been at one frame for too long.
    fn is_too_slow(&self, intervals: &Intervals, now: Now) -> bool {
        let outbox = self.outbox();
        let longer =
            |since: Option<u64>, ms| since.is_some_and(|since| now.mono_ms.saturating_sub(since) > ms);
        let is_page = now.pages_short && outbox.bytes() > PAGE_LIKE_BYTES;
        let write_ms = if is_page { SHORT_WRITE_MS.min(intervals.write_ms) } else { intervals.write_ms };
        longer(outbox.stalled_since_ms(), intervals.stall_ms) || longer(outbox.writing_since_ms(), write_ms)
    }

    /// When the client last showed that it is there. While so much waits for it that nothing is read, what it takes counts
    /// as well.
    fn alive_ms(&self) -> u64 {
        let heard_ms = self.heard_ms();
        if !self.is_choked() {
            return heard_ms;
        }
        self.outbox().stalled_since_ms().map_or(heard_ms, |moved_ms| moved_ms.max(heard_ms))
    }

    fn sweep_token(&self, intervals: &Intervals, now: Now) {
        let left_ms = self.token_expires_ms().saturating_sub(now.unix_ms);
        if left_ms == 0 {
            self.close(Close::TokenExpired, now.mono_ms);
        } else if left_ms <= intervals.expiry_notice_ms && !self.expiry_announced.swap(true, Ordering::AcqRel)
        {
            let expiring = frame::AuthExpiring { in_ms: left_ms };
            self.push_control(wire::encode(&expiring.into(), self.identity.encoding), now.mono_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::frame::ServerFrame;

    use super::*;
    use crate::session::stage::{Heard, frames, heard, session, session_until, settings};

    const INTERVALS: Intervals = Intervals {
        tick: std::time::Duration::from_millis(100),
        heartbeat_ms: 1_000,
        stall_ms: 5_000,
        write_ms: 20_000,
        linger_ms: 300,
        expiry_notice_ms: 60_000,
        memory_ms: 10_000,
    };

    fn at(session: &Session, mono_ms: u64) {
        session.sweep(&INTERVALS, Now { mono_ms, unix_ms: 0, pages_short: false }, &Pings::new(mono_ms));
    }

    fn at_unix(session: &Session, unix_ms: u64) {
        session.sweep(&INTERVALS, Now { mono_ms: 0, unix_ms, pages_short: false }, &Pings::new(0));
    }

    fn ping(t: u64) -> [Heard; 2] {
        [Heard::ControlPing, Heard::Frame(frame::Ping { t }.into())]
    }

    #[test]
    fn a_ping_and_a_control_ping_go_out_once_an_interval() {
        let session = session(1, &settings());
        at(&session, 999);
        assert_eq!(heard(&session), []);
        at(&session, 1_000);
        assert_eq!(heard(&session), ping(1_000));
        at(&session, 1_900);
        assert_eq!(heard(&session), [], "the next one is due an interval after this one");
        session.heard(1_950);
        at(&session, 2_100);
        assert_eq!(heard(&session), ping(2_100));
        assert_eq!(session.closing(), None);
    }

    #[test]
    fn silence_of_two_intervals_closes_and_a_word_starts_them_again() {
        let session = session(1, &settings());
        at(&session, 2_000);
        assert_eq!(session.closing(), None);
        session.heard(2_000);
        at(&session, 4_000);
        assert_eq!(session.closing(), None);
        at(&session, 4_001);
        assert_eq!(session.closing(), Some(Close::NoHeartbeat.code()));
    }

    #[test]
    fn a_reader_that_takes_nothing_is_closed_although_it_speaks() {
        let session = session(1, &settings());
        session.push_control(wire::CONTROL_PING, 100);
        session.heard(5_100);
        at(&session, 5_100);
        assert_eq!(session.closing(), None);
        session.heard(5_101);
        at(&session, 5_101);
        assert_eq!(session.closing(), Some(Close::TooSlow.code()));
    }

    #[test]
    fn a_reader_that_takes_a_byte_now_and_then_is_not_stalled() {
        let session = session(1, &settings());
        session.push_control(wire::CONTROL_PING, 100);
        session.outbox().advance(1, 5_000);
        session.heard(10_000);
        at(&session, 10_000);
        assert_eq!(session.closing(), None);
    }

    #[test]
    fn a_reader_that_takes_one_byte_of_a_frame_now_and_then_is_closed_in_the_end() {
        let session = session(1, &settings());
        session.push_control(Bytes::from_static(&[0; 30]), 100);
        for now_ms in (1_000..=20_000).step_by(1_000) {
            session.outbox().advance(1, now_ms);
            session.heard(now_ms);
            at(&session, now_ms);
            assert_eq!(session.closing(), None, "after {now_ms} ms");
        }
        session.heard(20_101);
        at(&session, 20_101);
        assert_eq!(session.closing(), Some(Close::TooSlow.code()));
    }

    #[test]
    fn while_the_memory_for_pages_is_short_a_reader_may_not_sit_on_one() {
        let short = |session: &Session, mono_ms| {
            session.heard(mono_ms);
            session.sweep(&INTERVALS, Now { mono_ms, unix_ms: 0, pages_short: true }, &Pings::new(0));
            session.closing()
        };
        let (page, little) = (session(1, &settings()), session(1, &settings()));
        page.push_control(vec![0; PAGE_LIKE_BYTES + 1_001].into(), 0);
        little.push_control(vec![0; 1_000].into(), 0);
        for session in [&page, &little] {
            session.outbox().advance(1, 4_000);
            assert_eq!(short(session, 5_000), None);
        }
        page.outbox().advance(1, 5_000);
        assert_eq!(short(&page, 5_001), Some(Close::TooSlow.code()));
        assert_eq!(short(&little, 5_001), None, "it holds no page");
    }

    #[test]
    fn the_end_of_a_token_is_announced_once_and_again_after_a_renewal() {
        let session = session_until(1, 100_000, &settings());
        at_unix(&session, 39_999);
        assert_eq!(frames(&session), []);
        at_unix(&session, 40_000);
        assert_eq!(frames(&session), [frame::AuthExpiring { in_ms: 60_000 }.into()]);
        at_unix(&session, 90_000);
        assert_eq!(frames(&session), []);
        session.renew(200_000);
        at_unix(&session, 100_000);
        assert_eq!(frames(&session), []);
        assert_eq!(session.closing(), None, "the old token does not count any more");
        at_unix(&session, 150_000);
        assert_eq!(frames(&session), [frame::AuthExpiring { in_ms: 50_000 }.into()]);
    }

    #[test]
    fn the_end_of_a_token_closes() {
        let session = session_until(1, 100_000, &settings());
        at_unix(&session, 99_999);
        assert_eq!(session.closing(), None);
        at_unix(&session, 100_000);
        assert_eq!(session.closing(), Some(Close::TokenExpired.code()));
    }

    #[test]
    fn a_closing_session_is_sent_nothing_and_ended_after_the_linger() {
        let session = session_until(1, 100_000, &settings());
        session.close(Close::Draining, 10_000);
        let later = |mono_ms| {
            session.sweep(
                &INTERVALS,
                Now { mono_ms, unix_ms: 99_000, pages_short: false },
                &Pings::new(mono_ms),
            );
        };
        later(10_300);
        assert!(!session.is_ended(), "its peer may still read why");
        later(10_301);
        assert!(session.is_ended());
        let nothing: [ServerFrame; 0] = [];
        assert_eq!(frames(&session), nothing, "neither a ping nor a notice");
        assert_eq!(session.closing(), Some(Close::Draining.code()), "the first reason stays");
    }
}
