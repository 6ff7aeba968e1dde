//! The descriptors of the process: how many connections of clients they allow.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept from clients: connections to the servers, the log's, operators' and their answers, and what is just being closed.
const RESERVED: u64 = 256;

/// Raises the limit as far as this process may, and returns how many descriptors clients can have.
pub(super) fn for_clients() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of descriptors stays as it is");
    }
    let limit = if raised.is_ok() { maximum } else { current };
    let clients = limit.map_or(u64::MAX, |limit| limit.saturating_sub(RESERVED).max(limit / 2));
    usize::try_from(clients).unwrap_or(usize::MAX)
}
