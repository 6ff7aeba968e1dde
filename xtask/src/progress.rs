//! Says what goes on, on stderr, with the time since the start: nobody should have to guess whether it hangs.

use std::io::Write as _;
use std::sync::LazyLock;
use std::time::Instant;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// One line of progress.
pub fn step(text: impl AsRef<str>) {
    // A terminal that was closed is no reason to panic in the middle of a shutdown, as `eprintln!` would.
    writeln!(std::io::stderr(), "[{:6.1}s] {}", START.elapsed().as_secs_f32(), text.as_ref()).ok();
}
