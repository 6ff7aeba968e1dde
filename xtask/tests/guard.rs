//! The guard ends what others have started for a run, once the run is gone, and nothing else.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use xtask::process::RUN_MARK;

/// What a killed run may leave, it may leave for so long.
const AFTERMATH: Duration = Duration::from_secs(5);

fn sleeper(mark: &str) -> Child {
    // Not a child of the guard, in a session of its own: only the mark can tell.
    Command::new("setsid").args(["sleep", "600"]).env(RUN_MARK, mark).spawn().expect("a process")
}

fn wait_ended(child: &mut Child) {
    let deadline = Instant::now() + AFTERMATH;
    while child.try_wait().expect("a look").is_none() {
        assert!(Instant::now() < deadline, "it still runs");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_end_of_a_run_is_the_end_of_what_bears_its_mark() {
    let run = format!("test-{:016x}", rand::random::<u64>());
    let mut guard = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["guard", &run])
        .env_remove(RUN_MARK)
        .stdin(Stdio::piped())
        .spawn()
        .expect("the guard");
    let (mut marked, mut other) = (sleeper(&run), sleeper("another-run"));

    std::thread::sleep(Duration::from_millis(300));
    assert!(marked.try_wait().expect("a look").is_none(), "the run lives, so does what it started");
    drop(guard.stdin.take());
    wait_ended(&mut marked);
    assert!(other.try_wait().expect("a look").is_none());
    wait_ended(&mut guard);
    other.kill().expect("a signal");
    other.wait().expect("an end");
}
