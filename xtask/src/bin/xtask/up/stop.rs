//! The user's wish to stop, which ends whatever runs at the moment.

use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// Between two looks at what runs.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// Set by Ctrl-C and SIGTERM.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn on_signals() -> Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // The second one ends the program at once; the guard and the kernel end the rest. In this order: the
            // first signal finds the flag down.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        Ok(Self(stop))
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs a command to its end, or ends it when the user does.
pub(crate) fn run_until(command: &mut Command, stop: &Stop) -> Result<()> {
    let child = command.spawn().with_context(|| format!("running {command:?}"))?;
    wait_until(child, stop, || ()).with_context(|| format!("{command:?}"))
}

/// Waits for the end of a process, or ends it when the user does. Calls `look` again and again meanwhile.
pub(crate) fn wait_until(mut child: Child, stop: &Stop, mut look: impl FnMut()) -> Result<()> {
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "it ended with {status}");
            return Ok(());
        }
        if stop.is_set() {
            child.kill()?;
            child.wait()?;
            bail!("stopped");
        }
        look();
        thread::sleep(LOOK);
    }
}
