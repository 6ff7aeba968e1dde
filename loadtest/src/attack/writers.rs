//! Attackers who send what should cost the gateway nothing.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use super::field::Field;
use crate::client::socket::{Connect, Socket, source_of};

/// Sockets that send at once.
const SENDERS: usize = 10;
/// Frames between two looks at the clock.
const BURST: usize = 64;
const REFUSED: usize = 300;
/// Members of a group: as many ids as a body holds.
const MEMBERS: usize = 3_500;
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn ignored(field: &Field) -> Result<String> {
    let account = field.accounts(1, "ignored").await?.remove(0);
    let until = Instant::now() + field.long;
    let mut sending = tokio::task::JoinSet::new();
    for n in 0..SENDERS {
        let connect = Connect::new(field.url(), &account.access_token).with("device", &format!("web:{n}"));
        let mut socket = Connect { source: Some(source_of(n)), ..connect }.open().await?;
        socket.expect("Live", PATIENCE).await?;
        sending.spawn(send_ignored(socket, until));
    }
    let sent = sending.join_all().await;
    let closed = sent.iter().filter(|(_, closed)| *closed).count();
    let frames: u64 = sent.iter().map(|(frames, _)| frames).sum();
    Ok(format!("{frames} pings and unknown frames on {SENDERS} sessions, {closed} of them closed"))
}

/// How many frames went out, and whether the gateway ended it.
async fn send_ignored(mut socket: Socket, until: Instant) -> (u64, bool) {
    let mut sent = 0;
    while Instant::now() < until {
        for n in 0..BURST {
            let frame = if n % 2 == 0 {
                Message::Ping(Vec::new().into())
            } else {
                Message::text(r#"{"type":"Nothing"}"#)
            };
            if !matches!(timeout(PATIENCE, socket.send_raw(frame)).await, Ok(Ok(()))) {
                return (sent, true);
            }
            sent += 1;
        }
    }
    // The gateway may have closed long ago: what is sent after that is thrown away.
    let closed = socket.closed(Duration::from_secs(2)).await;
    (sent, matches!(closed, Ok(Some(_))))
}

pub(super) async fn groups(field: &Field) -> Result<String> {
    let accounts = field.accounts(MEMBERS, "crowd").await?;
    let members: Vec<u64> = accounts.iter().map(|account| account.user_id).collect();
    let api = field.api.with_token(&accounts[0].access_token);
    let group = json!({"type": 2, "memberIds": members});
    let (mut created, mut refused) = (0, 0);
    let until = Instant::now() + field.long;
    while Instant::now() < until {
        if api.post("/v1/chats", &group).await?.status.is_success() {
            created += 1;
        } else {
            refused += 1;
        }
    }
    Ok(format!("{created} groups of {MEMBERS} members, {refused} refused"))
}

pub(super) async fn early(field: &Field) -> Result<String> {
    let account = field.accounts(1, "early").await?.remove(0);
    let watch = json!({"type": "WatchPresence", "userIds": [account.user_id]}).to_string();
    let mut refused = 0;
    for _ in 0..REFUSED {
        // The version is one that the gateway does not speak.
        if upgrade(field.url(), &format!("v=2&token={}", account.access_token), watch.as_bytes()).await? {
            refused += 1;
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(format!("{refused} refused upgrades with a command in the same segment"))
}

/// Asks for an upgrade with a frame behind it, and goes away once the gateway closes. Whether it did.
async fn upgrade(url: &str, query: &str, frame: &[u8]) -> Result<bool> {
    let address: SocketAddr =
        url.trim_start_matches("http://").trim_end_matches('/').parse().context("an address")?;
    let mut stream = TcpStream::connect(address).await?;
    let mut bytes = format!(
        "GET /v1/ws?{query} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes();
    let short = u8::try_from(frame.len()).ok().filter(|length| *length < 126).context("a short frame")?;
    bytes.extend([0x81, 0x80 | short, 0, 0, 0, 0]);
    bytes.extend_from_slice(frame);
    stream.write_all(&bytes).await?;
    let mut answer = Vec::new();
    let closed = async {
        while !has_close(&answer) {
            if stream.read_buf(&mut answer).await? == 0 {
                break;
            }
        }
        std::io::Result::Ok(())
    };
    let told = timeout(PATIENCE, closed).await;
    Ok(matches!(told, Ok(Ok(()))))
}

/// Whether the head of an answer is followed by a close frame.
fn has_close(answer: &[u8]) -> bool {
    const CLOSE: u8 = 0x88;
    answer.windows(4).position(|end| end == b"\r\n\r\n").is_some_and(|head| answer[head..].contains(&CLOSE))
}
