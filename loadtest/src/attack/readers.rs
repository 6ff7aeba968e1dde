//! Attackers who ask for much and read nothing.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};
use uuid::Uuid;

use super::field::Field;
use crate::{
    client::{
        http::Api,
        socket::{Connect, Socket, source_of},
    },
    provision::Account,
};

/// The sessions that a user may have.
const SESSIONS: usize = 20;
/// Fetch frames on each of them.
const FETCHES: usize = 60;
/// Requests for history, each on a connection of its own.
const REQUESTS: usize = 40;
/// The text that takes most room in JSON: each byte becomes six. As many as a frame carries.
const WORST: char = '\u{1}';
const WORST_CHARS: usize = 10_000;
const MESSAGES: usize = 200;
/// A reader's own buffer is as small as the kernel allows.
const RECEIVE_BUFFER: u32 = 2_048;
/// The users whose sockets never read, 20 each, and what is said in their group.
const SLOW_USERS: usize = 50;
const BODY: usize = 1_024;
/// Within the rate of one session.
const BETWEEN: Duration = Duration::from_millis(55);
const PATIENCE: Duration = Duration::from_secs(20);

/// A user with a chat full of the worst text.
async fn worst_chat(field: &Field, name: &str) -> Result<(Account, u64)> {
    let account = field.accounts(1, name).await?.remove(0);
    let api = field.api.with_token(&account.access_token);
    let chat = api.create_group(&[account.user_id], name).await?;
    let mut socket = live(field, &account, 0, None).await?;
    let text = WORST.to_string().repeat(WORST_CHARS);
    for _ in 0..MESSAGES {
        say(&mut socket, chat, &text).await?;
        tokio::time::sleep(BETWEEN).await;
    }
    Ok((account, chat))
}

async fn live(field: &Field, account: &Account, n: usize, receive_buffer: Option<u32>) -> Result<Socket> {
    let connect = Connect::new(field.url(), &account.access_token).with("device", &format!("web:{n}"));
    let mut socket = Connect { source: Some(source_of(n)), receive_buffer, ..connect }.open().await?;
    socket.expect("Live", PATIENCE).await?;
    Ok(socket)
}

async fn say(socket: &mut Socket, chat: u64, body: &str) -> Result<()> {
    let uuid = Uuid::now_v7().to_string();
    socket.say(&json!({"type": "SendMessage", "uuid": uuid, "chatId": chat, "body": body})).await?;
    socket.until(PATIENCE, |frame| frame["uuid"] == uuid.as_str() && frame["type"] == "Ack").await.map(drop)
}

pub(super) async fn pages(field: &Field) -> Result<String> {
    let (account, chat) = worst_chat(field, "pages").await?;
    let mut sockets = Vec::new();
    let mut asked = 0;
    for n in 0..SESSIONS {
        let Ok(mut socket) = live(field, &account, n, Some(RECEIVE_BUFFER)).await else { continue };
        for _ in 0..FETCHES {
            let fetch =
                json!({"type": "Fetch", "uuid": Uuid::now_v7(), "chatId": chat, "after": 0, "limit": 200});
            if socket.feed(fetch.to_string()).await.is_err() {
                break;
            }
            asked += 1;
        }
        // A gateway that reads no more of a session stops the attacker here.
        drop(tokio::time::timeout(Duration::from_secs(1), socket.flush()).await);
        sockets.push(socket);
    }
    tokio::time::sleep(field.long).await;
    Ok(format!("{asked} Fetch frames on {} sessions, none read", sockets.len()))
}

pub(super) async fn histories(field: &Field) -> Result<String> {
    let (account, chat) = worst_chat(field, "histories").await?;
    let mut connections = Vec::new();
    for n in 0..REQUESTS {
        let mut stream = connect(field.url(), n).await?;
        let request = format!(
            "GET /v1/chats/{chat}/messages?limit=200 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
            account.access_token
        );
        if stream.write_all(request.as_bytes()).await.is_ok() {
            connections.push(stream);
        }
    }
    tokio::time::sleep(field.long).await;
    Ok(format!("{} requests for history, none read", connections.len()))
}

/// A connection whose receive buffer is small.
async fn connect(url: &str, n: usize) -> Result<TcpStream> {
    let address: SocketAddr =
        url.trim_start_matches("http://").trim_end_matches('/').parse().context("an address")?;
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(SocketAddr::new(source_of(n), 0))?;
    Ok(socket.connect(address).await?)
}

pub(super) async fn slow(field: &Field) -> Result<String> {
    let accounts = field.accounts(SLOW_USERS, "slow").await?;
    let ids: Vec<u64> = accounts.iter().map(|account| account.user_id).collect();
    let owner = Api::with_token(&field.api, &accounts[0].access_token);
    let chat = owner.create_group(&ids, "slow").await?;
    let mut speaker = live(field, &accounts[0], 0, None).await?;
    let mut sockets = Vec::new();
    for (user, account) in accounts.iter().enumerate().skip(1) {
        for session in 0..SESSIONS {
            let n = user * SESSIONS + session;
            if let Ok(socket) = live(field, account, n, Some(RECEIVE_BUFFER)).await {
                sockets.push(socket);
            }
        }
    }
    let text = "x".repeat(BODY);
    let until = tokio::time::Instant::now() + field.long;
    let mut said = 0;
    while tokio::time::Instant::now() < until {
        say(&mut speaker, chat, &text).await?;
        said += 1;
        tokio::time::sleep(BETWEEN).await;
    }
    Ok(format!("{} sockets that never read, {said} messages to each", sockets.len()))
}
