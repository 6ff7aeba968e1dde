//! Naps: a worker of the runtime that ran out of work sleeps a little before it waits for events.
//!
//! The log delivers an event every fraction of a millisecond under load. Each would wake a worker that has just gone to
//! sleep, and that costs the kernel more than the event costs us, here, in NATS and in every client on this machine.
//! A network card moderates interrupts for the same reason. A worker that naps handles together what came meanwhile.
//!
//! Owns: the runtime of a service whose workers nap, and the two policies that say when: [`WhileBusy`] for the gateway,
//! [`Rest`] for the projector. Never: naps on a thread that is not a worker; a policy is not asked by the thread that
//! called `block_on`, nor by those of `spawn_blocking`.
//!
//! A worker that naps polls neither its timers nor its sockets. All rests on tokio calling `on_thread_park` on a worker
//! that has no task left to run, before that worker waits; `nap/tests.rs` fails if a version of tokio does not.

mod rest;
#[cfg(test)]
mod tests;
mod while_busy;

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};

pub use rest::Rest;
pub use while_busy::{WhileBusy, Work};

/// Says when a worker naps, and for how long.
pub trait Nap: Send + Sync + 'static {
    /// The worker of this thread has run out of work. Returns how long it naps; zero: not at all.
    fn length(&self) -> Duration;

    /// The worker of this thread has napped for `time`.
    fn napped(&self, _time: Duration) {}
}

/// A runtime whose workers nap as `policy` says.
///
/// # Errors
/// If threads can't be started.
pub fn runtime(policy: Arc<impl Nap>) -> io::Result<Runtime> {
    builder(policy).build()
}

fn builder(policy: Arc<impl Nap>) -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.enable_all().on_thread_park(move || {
        let nap = policy.length();
        if !nap.is_zero() {
            let began = Instant::now();
            thread::sleep(nap);
            policy.napped(began.elapsed());
        }
    });
    builder
}
