//! How a server is to run.

use std::path::PathBuf;

use super::password::Password;

/// How a server is to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A wish; another one is taken when it is in use, and [`super::Server::moved_from`] tells. None: any.
    pub port: Option<u16>,
    /// Where its output goes; by default into its folder.
    pub log: Option<PathBuf>,
    /// Data that need not survive the machine: no fsync.
    pub throwaway: bool,
    /// What its clients must know. None: whoever reaches it is let in, as in tests.
    pub password: Option<Password>,
    /// Further lines of nats.conf, or further command-line arguments of the others.
    pub extra: Vec<String>,
}

impl Options {
    #[must_use]
    pub fn throwaway() -> Self {
        Self { throwaway: true, ..Self::default() }
    }
}

/// Threads for one of several busy programs that share this machine: half its cores. More of them mostly wake each
/// other (on two cores, a quarter of all CPU).
#[must_use]
pub fn fair_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}
