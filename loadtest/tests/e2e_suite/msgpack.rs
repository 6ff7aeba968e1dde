//! The same session in MessagePack: every frame is an array of kind and fields with uuids as bytes, live or in a page.

use loadtest::client::socket::{Received, Socket};
use rmpv::Value;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::support::cluster::{Build, SOON, send};

const WELCOME: u64 = 1;
const MESSAGE: u64 = 2;
const EVENT: u64 = 3;
const ACK: u64 = 4;
const ERROR: u64 = 5;
const LIVE: u64 = 6;
const PAGE: u64 = 8;
const PONG: u64 = 16;
const SEND_MESSAGE: u64 = 32;
const FETCH: u64 = 38;
const PING: u64 = 15;

/// The next frame of a kind, as its array.
async fn expect(socket: &mut Socket, kind: u64) -> Vec<Value> {
    tokio::time::timeout(SOON, async {
        loop {
            match socket.next().await {
                Received::Binary(bytes) => {
                    let mut rest = bytes.as_slice();
                    let frame = rmpv::decode::read_value(&mut rest).unwrap();
                    assert!(rest.is_empty(), "trailing bytes after {frame}");
                    let Value::Array(fields) = frame else { panic!("no array: {frame}") };
                    if fields[0] == Value::from(kind) {
                        return fields;
                    }
                }
                other => panic!("{other:?} in a MessagePack session"),
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("no frame of kind {kind}"))
}

async fn say(socket: &mut Socket, fields: Vec<Value>) {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &Value::Array(fields)).unwrap();
    socket.send_raw(Message::binary(bytes)).await.unwrap();
}

fn bin(uuid: Uuid) -> Value {
    Value::Binary(uuid.as_bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_in_messagepack() {
    let mut cluster = Build::new("msgpack").start().await;
    let accounts = cluster.accounts(2).await;
    let (alice, bob) = (&accounts[0], &accounts[1]);
    let mut packed = cluster.connect(0, alice).with("enc", "msgpack").open().await.unwrap();
    let welcome = expect(&mut packed, WELCOME).await;
    assert_eq!((&welcome[1], &welcome[3]), (&Value::from(1), &Value::from(alice.user_id)), "{welcome:?}");
    let live = expect(&mut packed, LIVE).await;
    assert_eq!(live[2], Value::from(0), "{live:?}");
    let chat = cluster.group(&[alice, bob]).await;
    let created = expect(&mut packed, EVENT).await;
    assert_eq!((&created[1], &created[4]), (&Value::from(chat), &Value::from("chatCreated")), "{created:?}");
    let data = created[7].as_map().expect("nested objects are maps");
    assert!(data.iter().any(|(key, value)| key == &Value::from("memberCount") && *value == Value::from(2)));

    let (mut json_session, _) = cluster.live(0, bob).await;
    let uuid = Uuid::now_v7();
    say(&mut packed, vec![SEND_MESSAGE.into(), bin(uuid), chat.into(), "packed".into()]).await;
    let ack = expect(&mut packed, ACK).await;
    assert_eq!((&ack[1], &ack[2], &ack[5]), (&bin(uuid), &Value::from(chat), &Value::from(false)), "{ack:?}");
    let message = json_session.expect("Message", SOON).await.unwrap();
    assert_eq!((&message["uuid"], &message["body"]), (&json!(uuid), &json!("packed")));
    let seq = send(&mut json_session, chat, "from JSON").await;
    loop {
        let message = expect(&mut packed, MESSAGE).await;
        if message[2] == Value::from(seq) {
            assert_eq!((&message[5], &message[6]), (&Value::from(bob.user_id), &Value::from("from JSON")));
            assert!(matches!(&message[4], Value::Binary(uuid) if uuid.len() == 16));
            break;
        }
    }

    // A newer peer's longer array, an unknown kind, and a text frame in between.
    let longer = Uuid::now_v7();
    let future = vec![
        SEND_MESSAGE.into(),
        bin(longer),
        chat.into(),
        "longer".into(),
        Value::Nil,
        Value::Nil,
        7.into(),
    ];
    say(&mut packed, vec![99.into(), "from the future".into()]).await;
    say(&mut packed, future).await;
    assert_eq!(expect(&mut packed, ACK).await[1], bin(longer));
    packed.say(&json!({"type": "Ping", "t": 5})).await.unwrap();
    assert_eq!(expect(&mut packed, PONG).await[1], Value::from(5));
    say(&mut packed, vec![PING.into(), 6.into()]).await;
    assert_eq!(expect(&mut packed, PONG).await[1], Value::from(6));

    let fetch = Uuid::now_v7();
    say(&mut packed, vec![FETCH.into(), bin(fetch), chat.into(), 0.into(), 2.into()]).await;
    let page = expect(&mut packed, PAGE).await;
    let events = page[3].as_array().unwrap();
    assert_eq!((events.len(), &page[4]), (2, &Value::from(true)), "{page:?}");

    let wrong = Uuid::now_v7();
    say(&mut packed, vec![SEND_MESSAGE.into(), bin(wrong), "no id".into(), "x".into()]).await;
    let error = expect(&mut packed, ERROR).await;
    assert_eq!((&error[1], &error[2]), (&bin(wrong), &Value::from("command.invalid")), "{error:?}");
}
