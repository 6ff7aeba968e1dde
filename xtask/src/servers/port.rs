//! Free ports, below the kernel's ephemeral range.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};
use rand::Rng as _;

/// Above the well-known ports, where daemons live.
const LOWEST: u16 = 10_000;
/// The kernel's default start of the ephemeral range.
const EPHEMERAL: u16 = 32_768;
/// With a few hundred ports in use out of 22,000, a second try is rare.
const TRIES: u32 = 200;

/// The wished port if it is free, else any.
pub fn choose(wish: Option<u16>) -> Result<u16> {
    if let Some(port) = wish.filter(|port| is_free(*port)) {
        return Ok(port);
    }
    let end = first_ephemeral();
    let mut rng = rand::rng();
    (0..TRIES)
        .map(|_| rng.random_range(LOWEST..end))
        .find(|port| is_free(*port))
        .context("no free port below the ephemeral range")
}

/// The first free port from `start` on.
pub fn first_free_from(start: u16) -> Result<u16> {
    (start..=u16::MAX).find(|port| is_free(*port)).with_context(|| format!("no free port from {start} on"))
}

/// Nobody listens there, on any address.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
        && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn first_ephemeral() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|text| text.parse().ok());
    first.filter(|first| *first > LOWEST + 1_000).unwrap_or(EPHEMERAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_wish_gives_another_port() {
        let free = choose(None).expect("a port");
        assert_eq!(choose(Some(free)).expect("a port"), free);
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, free)).expect("the free port");
        assert!(!is_free(free));
        assert_ne!(choose(Some(free)).expect("a port"), free);
        assert!(first_free_from(free).expect("a port") > free);
        drop(holder);
    }
}
