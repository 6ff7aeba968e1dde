//! Work that must not run on the caller's thread.

/// Runs `work` on a thread of its own: the blocking Postgres client must not be used on a runtime's thread, and tests
/// call from there.
pub fn off_runtime<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
