//! Attackers without an account.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::field::{Field, SOCKETS};
use crate::client::http::Api;

/// The one address of all connections. It has 28,000 ports.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 8, 8));
const ADDRESSES: u8 = 72;
/// Each address tries as often as it may: five times a minute.
const TRY_EVERY: Duration = Duration::from_secs(12);

pub(super) async fn connections(field: &Field) -> Result<String> {
    let address: SocketAddr =
        field.url().trim_start_matches("http://").trim_end_matches('/').parse().context("an address")?;
    let mut open = Vec::new();
    let until = Instant::now() + field.long;
    while open.len() < SOCKETS && Instant::now() < until {
        let Ok(Ok(stream)) = timeout(Duration::from_secs(1), connect(address)).await else { break };
        open.push(stream);
    }
    tokio::time::sleep(until.saturating_duration_since(Instant::now())).await;
    let alive = open.iter().filter(|stream| is_open(stream)).count();
    Ok(format!("{} connections of one address, {alive} still open at the end", open.len()))
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(ADDRESS, 0))?;
    socket.connect(address).await
}

/// Whether the gateway has not closed it.
fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

pub(super) async fn logins(field: &Field) -> Result<String> {
    let until = Instant::now() + field.long;
    let mut trying = tokio::task::JoinSet::new();
    for n in 0..ADDRESSES {
        let api = Api::from(IpAddr::V4(Ipv4Addr::new(127, 0, 7, n + 1)), field.url())?;
        trying.spawn(async move {
            let (mut checked, mut refused) = (0, 0);
            let login = json!({"email": format!("nobody{n}@example.org"), "password": "wrong"});
            while Instant::now() < until {
                let begun = Instant::now();
                match api.post("/v1/auth/login", &login).await {
                    Ok(reply) if reply.status == 401 => checked += 1,
                    Ok(_) | Err(_) => refused += 1,
                }
                tokio::time::sleep(TRY_EVERY.saturating_sub(begun.elapsed())).await;
            }
            (checked, refused)
        });
    }
    let tried = trying.join_all().await;
    let (checked, refused) = tried.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    Ok(format!("{checked} wrong passwords checked from {ADDRESSES} addresses, {refused} tries refused"))
}
