//! A timer that wakes the poll with the kernel's resolution. `epoll_wait` itself counts in milliseconds, and a whole
//! delivery takes about one.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

const NS_PER_S: u64 = 1_000_000_000;

#[derive(Debug)]
pub(super) struct Timer {
    fd: OwnedFd,
}

impl Timer {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { fd })
    }

    /// Wakes the poll once, after that time. Setting it anew also forgets an expiry that nobody looked at.
    pub(super) fn set(&self, after_ns: u64) -> io::Result<()> {
        // Zero would switch it off.
        let after_ns = after_ns.max(1);
        let it_value =
            Timespec { tv_sec: (after_ns / NS_PER_S) as i64, tv_nsec: (after_ns % NS_PER_S) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}
