//! When a device is told its cursor.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/http.rs"]
mod support;

use std::time::Duration;

use serde_json::json;
use support::{User, World};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use uuid::Uuid;

/// Longer than what lies between two cursors that travel with events. An event is rare by the time that has passed:
/// there is nothing else to wait for.
const RARE: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(10);

/// A device's bytes, one read of the socket at a time.
struct Wire(TcpStream);

impl Wire {
    async fn open(world: &World, user: &User, cursor: &str) -> Self {
        let host = world.urls[0].trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).await.unwrap();
        let request = format!(
            "GET /v1/ws?token={}{cursor} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            user.token
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        Self(stream)
    }

    /// What the read says that brings a frame of this type.
    async fn read_until(&mut self, wanted: &str) -> String {
        let wanted = format!(r#""type":"{wanted}""#);
        loop {
            let mut buffer = vec![0; 65_536];
            let length = timeout(PATIENCE, self.0.read(&mut buffer)).await.unwrap().unwrap();
            assert!(length > 0, "closed before {wanted}");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.contains(&wanted) {
                return text;
            }
        }
    }
}

#[tokio::test]
async fn a_rare_event_brings_its_cursor_along() {
    let world = World::start("cursor", 1, &[]).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let chat = ada.client.post("/v1/chats", json!({ "type": 1, "memberIds": [bob.id] })).await.ok(201);
    let messages = format!("/v1/chats/{}/messages", chat["id"]);
    let mut device = Wire::open(&world, &bob, "").await;
    device.read_until("Live").await;
    for body in ["one", "two"] {
        sleep(RARE).await;
        ada.client.post(&messages, json!({ "uuid": Uuid::now_v7(), "body": body })).await.ok(201);
        let read = device.read_until("Message").await;
        assert!(read.contains(body), "{read}");
        let (_, cursor) = read.split_once(r#"{"type":"Cursor","cursor":""#).expect("in the same write");
        let (cursor, _) = cursor.split_once('"').unwrap();
        // It covers the message beside it.
        let mut back = Wire::open(&world, &bob, &format!("&cursor={cursor}")).await;
        assert!(back.read_until("Live").await.contains(r#""replayed":0"#));
    }
}
