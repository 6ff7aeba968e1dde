//! Child processes that do not outlive their parent, however it dies.
//!
//! The kernel's parent-death signal (`setpriv --pdeathsig`) is sent when the *thread* that forked ends, and a test's
//! thread ends long before its process. So every child is spawned by one thread that lives as long as the process.
//! Each child leads a process group of its own: Ctrl-C in a terminal reaches the parent alone, which then stops the
//! children in the right order.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// How often a wait looks again: short against every start-up time, cheap against a core.
pub(crate) const POLL: Duration = Duration::from_millis(5);
/// A child that ignores its death signal for so long is killed.
const DROP_GRACE: Duration = Duration::from_secs(5);
/// Marks every descendant of one run, so that a guard can find those that lost their parent.
pub const RUN_MARK: &str = "MT_XTASK_RUN";

static MARK: OnceLock<String> = OnceLock::new();

/// Gives all children from now on this value of [`RUN_MARK`].
pub fn mark_children(run: String) {
    // A second mark would orphan the children of the first, so the first one stays.
    MARK.get_or_init(|| run);
}

/// A command that carries the run's mark. Every process of a run is begun with it.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some(mark) = MARK.get() {
        command.env(RUN_MARK, mark);
    }
    command
}

/// The user that a child runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

/// What to start, and how.
#[derive(Clone, Debug)]
pub struct Launch {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub user: Option<User>,
    /// Sent by the kernel when the parent dies, and by us on drop.
    pub death_signal: Signal,
    /// Gets stdout and stderr, appended.
    pub log: PathBuf,
}

impl Launch {
    pub fn new(program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            user: None,
            death_signal: Signal::KILL,
            log: log.into(),
        }
    }

    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn env(mut self, env: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env.extend(env);
        self
    }

    fn command(&self) -> Result<Command> {
        let mut command = command("setpriv");
        command.arg(format!("--pdeathsig={}", signal_name(self.death_signal)));
        if let Some(User { uid, gid }) = self.user {
            command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
        }
        let log = open_log(&self.log)?;
        let errors = log.try_clone().context("duplicating the log's handle")?;
        command
            .arg("--")
            .arg(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0);
        Ok(command)
    }
}

/// A running child. Dropped, it gets its death signal and is waited for.
#[derive(Debug)]
pub struct Child {
    inner: std::process::Child,
    death_signal: Signal,
    exit: Option<ExitStatus>,
}

impl Child {
    pub fn spawn(launch: &Launch) -> Result<Self> {
        let inner = spawn_from_keeper(launch.command()?)
            .with_context(|| format!("starting {} with setpriv (util-linux)", launch.program.display()))?;
        Ok(Self { inner, death_signal: launch.death_signal, exit: None })
    }

    pub fn pid(&self) -> u32 {
        self.inner.id()
    }

    /// Sends a signal. To a child that has ended already it does nothing.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.exited()?.is_some() {
            return Ok(());
        }
        // `exited` has just seen that it is not reaped yet, so the pid is still this child's.
        let pid = Pid::from_child(&self.inner);
        kill_process(pid, signal).with_context(|| format!("signalling process {}", self.pid()))
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        if self.exit.is_none() {
            self.exit = self.inner.try_wait().context("looking after a child")?;
        }
        Ok(self.exit)
    }

    /// Waits for its end, for a time.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(POLL);
        }
    }

    /// SIGKILL, and its end.
    pub fn kill9(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.exit = Some(self.inner.wait().context("waiting for a killed child")?);
        Ok(())
    }

    /// SIGKILL to it and to its children, and the end of them all.
    pub fn kill9_family(&mut self) -> Result<()> {
        // Stopped, it can't have another one between our look and its end.
        self.signal(Signal::STOP)?;
        let children = children_of(self.pid());
        self.kill9()?;
        let deadline = Instant::now() + DROP_GRACE;
        for pid in children {
            if let Some(child) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // Most end by themselves when they miss their parent.
                kill_process(child, Signal::KILL).ok();
            }
            while parent_of(pid).is_some() && Instant::now() < deadline {
                thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// Asks it to end with `signal`, and kills it when it has not after `grace`. True: it ended by itself.
    pub fn stop(&mut self, signal: Signal, grace: Duration) -> Result<bool> {
        // A stopped process would take the signal only when it goes on.
        self.signal(Signal::CONT)?;
        self.signal(signal)?;
        if self.wait(grace)?.is_some() {
            return Ok(true);
        }
        self.kill9()?;
        Ok(false)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Err(error) = self.stop(self.death_signal, DROP_GRACE) {
            eprintln!("a child process may be left: {error:#}");
        }
    }
}

/// The children of a process that live. A zombie waits for its parent alone.
pub fn children_of(pid: u32) -> Vec<u32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .filter(|process| parent_of(*process) == Some(pid))
        .collect()
}

/// The parent of a process, if that lives.
pub fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    (fields.next()? != "Z").then_some(())?;
    fields.next()?.parse().ok()
}

fn signal_name(signal: Signal) -> &'static str {
    // Only what the servers here die of; the rest of the table would be dead code.
    if signal == Signal::QUIT { "QUIT" } else { "KILL" }
}

fn open_log(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))
}

type Job = (Command, SyncSender<io::Result<std::process::Child>>);

/// Spawns from the thread that never ends.
fn spawn_from_keeper(command: Command) -> Result<std::process::Child> {
    static KEEPER: OnceLock<SyncSender<Job>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (jobs, inbox) = sync_channel::<Job>(1);
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                // The asker can only be gone with its whole thread, and then nobody wants the child.
                reply.send(command.spawn()).ok();
            }
        });
        jobs
    });
    let (reply, answer) = sync_channel(1);
    keeper.send((command, reply)).map_err(|_| anyhow!("the spawning thread is gone"))?;
    Ok(answer.recv().context("the spawning thread is gone")??)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(log: &str) -> Launch {
        let log = std::env::temp_dir().join(format!("xtask-{}-{log}", std::process::id()));
        Launch::new("sleep", log).args(["600"])
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it_and_dies_with_its_handle() {
        let launch = sleeper("thread");
        let mut child = thread::scope(|scope| scope.spawn(|| Child::spawn(&launch)).join())
            .expect("no panic")
            .expect("a child");
        assert_eq!(child.wait(Duration::from_millis(200)).expect("a look"), None);
        let proc = PathBuf::from(format!("/proc/{}", child.pid()));
        assert!(proc.exists());
        drop(child);
        assert!(!proc.exists());
        std::fs::remove_file(&launch.log).expect("its log");
    }

    #[test]
    fn stop_reports_whether_it_was_needed_to_kill() {
        let launch = sleeper("stop");
        let mut child = Child::spawn(&launch).expect("a child");
        child.signal(Signal::STOP).expect("a signal");
        assert!(child.stop(Signal::TERM, Duration::from_secs(5)).expect("an end"));
        std::fs::remove_file(&launch.log).expect("its log");
    }
}
