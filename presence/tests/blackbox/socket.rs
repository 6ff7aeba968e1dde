//! A client's socket: frames in, frames out, and waiting for one.

use std::{collections::VecDeque, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// Generous: dev builds, two cores, other tests.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Read but not asked for yet.
    frames: VecDeque<Value>,
    pub(crate) user: u64,
}

impl Socket {
    /// Connects and waits for `Live`.
    pub(crate) async fn open(url: &str) -> Self {
        let (stream, _) = connect_async(url).await.unwrap();
        let mut socket = Self { stream, frames: VecDeque::new(), user: 0 };
        let welcome = socket.wait("Welcome", |frame| frame["type"] == "Welcome").await;
        socket.user = welcome["userId"].as_u64().unwrap();
        socket.wait("Live", |frame| frame["type"] == "Live").await;
        socket
    }

    pub(crate) async fn send(&mut self, frame: Value) {
        self.stream.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The first frame that fits. Frames before it are skipped over but stay.
    pub(crate) async fn wait(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.frames.iter().position(&fits) {
            return self.frames.remove(at).unwrap();
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let Some(frame) = self.next(end).await else {
                panic!("user {} waits for {what}; it got {:?}", self.user, self.frames);
            };
            if fits(&frame) {
                return frame;
            }
            self.frames.push_back(frame);
        }
    }

    /// The next change of a user's presence.
    pub(crate) async fn presence_of(&mut self, user: u64) -> Value {
        self.wait("Presence", |frame| frame["type"] == "Presence" && frame["userId"] == user).await
    }

    /// Waits until the user is in this state; the states before it do not matter.
    pub(crate) async fn until(&mut self, user: u64, state: &str) -> Value {
        loop {
            let presence = self.presence_of(user).await;
            if presence["state"] == state {
                return presence;
            }
        }
    }

    /// All that comes within this time and has not been asked for.
    pub(crate) async fn drain(&mut self, time: Duration) -> Vec<Value> {
        let end = Instant::now() + time;
        while let Some(frame) = self.next(end).await {
            self.frames.push_back(frame);
        }
        self.frames.drain(..).collect()
    }

    /// Everything that the server had sent when it got this has arrived.
    pub(crate) async fn round_trip(&mut self) {
        self.send(serde_json::json!({ "type": "Ping", "t": 77 })).await;
        self.wait("Pong", |frame| frame["type"] == "Pong" && frame["t"] == 77).await;
    }

    async fn next(&mut self, end: Instant) -> Option<Value> {
        loop {
            match timeout_at(end, self.stream.next()).await.ok()? {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).ok(),
                Some(Ok(_)) => {}
                ended => panic!("user {}'s socket ended: {ended:?}", self.user),
            }
        }
    }

    /// Goes without a word.
    pub(crate) fn cut(self) {
        drop(self);
    }
}
