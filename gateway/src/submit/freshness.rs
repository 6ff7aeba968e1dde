//! Which commands need no look-up of an earlier copy: those whose uuid is *fresh*.
//!
//! A uuid is fresh if every attempt to append it falls into the log's dedupe window. That is judged by the log's time and
//! by the marks of the log's entries (`shared::window`), and by no clock of a gateway or a client. Because a gateway
//! knows the log's time only by an estimate, more is asked for than the margins need. Invariants: nothing is fresh
//! - while this gateway's tail has not proven its position lately, or the log's time is not known;
//! - while the gateway's own clock and the log's disagree, so that one wrong clock alone makes nothing fresh;
//! - while an entry is newer than the estimate of the log's time allows, or the marks of the past are not loaded.
//!
//! A uuid that is not fresh costs a look-up, and no more than that. What is stored twice all the same, because an
//! attempt was held up for minutes or a server's clock was set, is void by the verdict on it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use shared::{
    id::UserId,
    window::{CLOCK_ERROR_MS, Window, uuid_time_ms},
};
use streams::read::Bounds;
use uuid::{NoContext, Timestamp, Uuid};

use super::COMMAND_DEADLINE;
use crate::{
    hub::Hub,
    infra::{
        clock::unix_ms,
        log_clock::{LogClock, Reading},
    },
};

/// Judges uuids; the estimate of the log's time.
pub(super) struct Freshness {
    hub: Arc<Hub>,
    /// The dedupe window that this gateway is set to. The stream's own counts if it is shorter.
    window: Window,
    clock: Mutex<LogClock>,
    /// Whether the gateway's clock and the log's disagree.
    is_off: AtomicBool,
}

/// Why a uuid is not fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// It names no time.
    NoTime,
    /// The gateway can't tell where the log is.
    Unproven,
    /// The log's time is not known.
    LogTime,
    /// The gateway's clock and the log's disagree.
    OwnClock,
    /// The marks of the past are not loaded.
    NoMarks,
    /// Its time is not near the log's, for a window as long as the log's.
    NotNear,
    /// Its user has a uuid that was ahead and is not earlier.
    Ahead,
}

impl Doubt {
    const fn label(self) -> &'static str {
        match self {
            Self::NoTime => "no_time",
            Self::Unproven => "position",
            Self::LogTime => "log_time",
            Self::OwnClock => "own_clock",
            Self::NoMarks => "no_marks",
            Self::NotNear => "not_near",
            Self::Ahead => "ahead",
        }
    }
}

/// What is known at the moment of a command.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// The estimate of the log's time.
    log_ms: Option<u64>,
    /// The gateway's own clock.
    own_ms: u64,
    /// The newest entry's stored time.
    newest_ms: u64,
    is_proven: bool,
    is_marked: Option<bool>,
    window: Window,
}

impl Freshness {
    pub(super) fn new(hub: Arc<Hub>, window: Window) -> Self {
        hub.set_window(window);
        Self { hub, window, clock: Mutex::default(), is_off: AtomicBool::new(false) }
    }

    /// Takes in what the log's leader said of the log. It was asked at `asked_ms` of the hub's clock.
    pub(super) fn read(&self, bounds: &Bounds, asked_ms: u64) {
        let own_ms = unix_ms();
        self.hub.set_window(Window { ms: bounds.window_ms.min(self.window.ms) });
        let Some(log_ms) = bounds.now_ms else { return };
        let answered_ms = self.hub.clock.now_ms();
        let reading = Reading { log_ms, last: bounds.last, asked_ms, answered_ms };
        self.clock.lock().read(reading, self.hub.position());
        // The leader read its clock at some time of the round trip.
        let since_ms = answered_ms.saturating_sub(asked_ms) / 2;
        self.compare(own_ms as i64 - log_ms.saturating_add(since_ms) as i64);
    }

    /// Tells an operator how far the gateway's clock is from the log's.
    fn compare(&self, skew_ms: i64) {
        self.hub.metrics.clock_skew.set(skew_ms as f64 / 1_000.0);
        let is_off = skew_ms.unsigned_abs() > CLOCK_ERROR_MS;
        match (self.is_off.swap(is_off, Ordering::Relaxed), is_off) {
            (false, true) => tracing::error!(
                skew_ms,
                "the clocks of this gateway and of the log disagree: every command is looked up before it is appended"
            ),
            (true, false) => tracing::info!(skew_ms, "the clocks of this gateway and of the log agree again"),
            (false, false) | (true, true) => {}
        }
    }

    /// Whether the log's dedupe window covers every attempt with this uuid of the user's.
    pub(super) fn is_fresh(&self, actor: UserId, uuid: Uuid) -> bool {
        let Err(doubt) = self.judge(actor, uuid) else { return true };
        self.hub.metrics.looked_up_total.get_or_create(&vec![("reason", doubt.label())]).inc();
        false
    }

    fn judge(&self, actor: UserId, uuid: Uuid) -> Result<(), Doubt> {
        let made_ms = uuid_time_ms(uuid).ok_or(Doubt::NoTime)?;
        let log_ms = self.log_ms();
        // Asked for after the estimate: its entries are the newer ones.
        let standing = self.hub.standing(actor, made_ms);
        let moment = Moment {
            log_ms,
            own_ms: unix_ms(),
            newest_ms: standing.newest_ms,
            is_proven: self.hub.is_proven(),
            is_marked: standing.is_marked,
            window: standing.window,
        };
        moment.judge(made_ms)
    }

    /// A uuid of this moment of the log; one without a time while that is not known.
    pub(super) fn new_uuid(&self) -> Uuid {
        let Some(log_ms) = self.log_ms() else { return Uuid::new_v4() };
        let nanos = (log_ms % 1_000) as u32 * 1_000_000;
        Uuid::new_v7(Timestamp::from_unix(NoContext, log_ms / 1_000, nanos))
    }

    /// The log's time, if it is known.
    fn log_ms(&self) -> Option<u64> {
        self.clock.lock().now(self.hub.position(), self.hub.clock.now_ms())
    }
}

impl Moment {
    fn judge(&self, made_ms: u64) -> Result<(), Doubt> {
        if !self.is_proven {
            return Err(Doubt::Unproven);
        }
        let log_ms = self.log_ms.ok_or(Doubt::LogTime)?;
        if self.newest_ms > log_ms.saturating_add(CLOCK_ERROR_MS) {
            return Err(Doubt::LogTime);
        }
        if self.own_ms.abs_diff(log_ms) > CLOCK_ERROR_MS {
            return Err(Doubt::OwnClock);
        }
        if made_ms.abs_diff(log_ms) >= self.window.fresh_ms(COMMAND_DEADLINE.as_millis() as u64) {
            return Err(Doubt::NotNear);
        }
        match self.is_marked {
            None => Err(Doubt::NoMarks),
            Some(true) => Err(Doubt::Ahead),
            Some(false) => Ok(()),
        }
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn moment() -> Moment {
        Moment {
            log_ms: Some(NOW),
            own_ms: NOW,
            newest_ms: NOW,
            is_proven: true,
            is_marked: Some(false),
            window: Window { ms: 120_000 },
        }
    }

    #[test]
    fn a_uuid_is_fresh_if_its_time_is_near_the_logs_time() {
        for made_ms in [NOW - 44_999, NOW, NOW + 44_999] {
            assert_eq!(moment().judge(made_ms), Ok(()));
        }
        for made_ms in [0, NOW - 45_000, NOW + 45_000, (1 << 48) - 1] {
            assert_eq!(moment().judge(made_ms), Err(Doubt::NotNear));
        }
    }

    #[test]
    fn nothing_is_fresh_while_anything_that_it_rests_on_is_in_doubt() {
        let doubts = [
            (Moment { is_proven: false, ..moment() }, Doubt::Unproven),
            (Moment { log_ms: None, ..moment() }, Doubt::LogTime),
            (Moment { newest_ms: NOW + 5_001, ..moment() }, Doubt::LogTime),
            (Moment { own_ms: NOW + 5_001, ..moment() }, Doubt::OwnClock),
            (Moment { own_ms: NOW - 5_001, ..moment() }, Doubt::OwnClock),
            (Moment { window: Window { ms: 75_000 }, ..moment() }, Doubt::NotNear),
            (Moment { is_marked: None, ..moment() }, Doubt::NoMarks),
            (Moment { is_marked: Some(true), ..moment() }, Doubt::Ahead),
        ];
        for (moment, doubt) in doubts {
            assert_eq!(moment.judge(NOW), Err(doubt), "{moment:?}");
        }
        let borders = [
            Moment { own_ms: NOW + 5_000, ..moment() },
            Moment { own_ms: NOW - 5_000, ..moment() },
            Moment { newest_ms: NOW + 5_000, ..moment() },
            // An idle log.
            Moment { newest_ms: 0, ..moment() },
        ];
        for moment in borders {
            assert_eq!(moment.judge(NOW), Ok(()), "{moment:?}");
        }
    }
}
