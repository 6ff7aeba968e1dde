//! Clients that send what does nothing: every kind of frame uses up some allowance, and a flood of any kind is closed.

use crate::support::{
    cluster::{Build, SOON},
    raw::{Frame, Raw, frame, text},
    wait::{secs, until},
};

/// RFC 6455, 5.2: opcodes, with FIN where the frame ends its message.
const FIRST_FRAGMENT: u8 = 0x01;
const FRAGMENT: u8 = 0x00;
const LAST_FRAGMENT: u8 = 0x80;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

const FLOODING: Option<u16> = Some(4429);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_that_ask_for_nothing_are_closed() {
    let mut cluster = Build::new("floods").start().await;
    let account = cluster.accounts(1).await.remove(0);
    let chat = cluster.group(&[&account]).await;
    let live = async || {
        let query = format!("token={}", account.access_token);
        let mut raw = Raw::open(&cluster.urls[0], &query, &[]).await;
        raw.expect("Live", SOON).await;
        raw
    };
    let mut fragments = frame(FIRST_FRAGMENT, b"");
    fragments.extend(frame(FRAGMENT, b"").repeat(100_000));
    let floods = [
        ("control pings", frame(PING, b"").repeat(500)),
        ("control pongs", frame(PONG, b"").repeat(500)),
        ("unknown types", text(br#"{"type":"FromTheFuture"}"#).repeat(500)),
        ("pings", text(br#"{"type":"Ping","t":1}"#).repeat(500)),
        ("pongs", text(br#"{"type":"Pong","t":1}"#).repeat(500)),
        ("empty fragments", fragments),
    ];
    for (what, flood) in floods {
        let mut raw = live().await;
        // The gateway may close before it has read all of it.
        raw.try_send(&flood).await;
        let frames = raw.frames(secs(5)).await;
        let closed = frames.iter().find_map(Frame::close_code);
        assert_eq!(closed, FLOODING, "{what}: {} frames", frames.len());
        assert!(frames.len() < 400, "{what}: {} answers", frames.len());
    }

    // A few of each kind, and a message in many fragments, are nobody's fault.
    let mut raw = live().await;
    for _ in 0..5 {
        for bytes in [frame(PING, b"x"), frame(PONG, b""), text(br#"{"type":"FromTheFuture"}"#)] {
            raw.send(&bytes).await;
        }
    }
    let uuid = uuid::Uuid::now_v7();
    let body = "x".repeat(16_000);
    let message = format!(r#"{{"type":"SendMessage","uuid":"{uuid}","chatId":{chat},"body":"{body}"}}"#);
    let mut parts = message.as_bytes().chunks(100).map(<[u8]>::to_vec);
    raw.send(&frame(FIRST_FRAGMENT, &parts.next().unwrap())).await;
    for part in parts {
        raw.send(&frame(FRAGMENT, &part)).await;
    }
    raw.send(&frame(LAST_FRAGMENT, b"")).await;
    raw.expect("Ack", SOON).await;
    until("nobody is left", SOON, async || {
        cluster.anonymous(0).get("/metrics").await.unwrap().text.contains("gateway_ws_connections 1\n")
    })
    .await;
}
