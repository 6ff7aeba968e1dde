//! Reading a session's durable events.

use loadtest::client::socket::{Connect, Socket};
use serde_json::{Value, json};

use super::cluster::SOON;

/// Reads durable frames until `count` of them came; control frames are passed over.
pub(crate) async fn durable(socket: &mut Socket, count: usize) -> Vec<Value> {
    let mut frames = Vec::new();
    while frames.len() < count {
        let is_durable = |frame: &Value| matches!(frame["type"].as_str(), Some("Message" | "Event"));
        frames.push(socket.until(SOON, is_durable).await.unwrap());
    }
    frames
}

/// Nothing durable comes although the gateway answers: a `Pong` overtakes nothing.
pub(crate) async fn no_durable(socket: &mut Socket) {
    socket.say(&json!({"type": "Ping", "t": 77})).await.unwrap();
    let frame = socket
        .until(SOON, |frame| matches!(frame["type"].as_str(), Some("Message" | "Event" | "Pong")))
        .await
        .unwrap();
    assert_eq!(frame["type"], "Pong", "{frame}");
}

/// What a session gets between `Welcome` and `Live`.
pub(crate) async fn replay(connect: &Connect) -> (bool, Vec<Value>, Value, Socket) {
    let mut socket = connect.open().await.unwrap();
    let welcome = socket.frame(SOON).await.unwrap();
    assert_eq!(welcome["type"], "Welcome", "{welcome}");
    let mut events = Vec::new();
    loop {
        let frame = socket.frame(SOON).await.unwrap();
        match frame["type"].as_str() {
            Some("Message" | "Event") => events.push(frame),
            Some("Live") => return (welcome["resumed"] == true, events, frame, socket),
            _ => {}
        }
    }
}

pub(crate) fn seqs(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}
