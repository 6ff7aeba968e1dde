//! The cost of the most frequent frames: written and read, in both encodings.

use divan::{Bencher, black_box, counter::BytesCount};
use shared::{
    codec,
    event::{Event, Fact, Head, MessageSent},
    frame::{Ack, ClientFrame, Cursor, Message, SendMessage, ServerFrame, delivered},
    id::{ChatId, Seq, UserId},
};
use uuid::Uuid;

fn main() {
    divan::main();
}

const UUID: Uuid = Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0001);
const BODY: &str = "See you at the station at half past six, platform 4. I'll bring the \"good\" coffee ☕";

fn chat_id() -> ChatId {
    ChatId::new(4_711).expect("in range")
}

fn user_id() -> UserId {
    UserId::new(7).expect("in range")
}

fn event() -> Event {
    let sent = MessageSent { body: BODY.into(), reply_to: None, mentions: Vec::new() };
    Event {
        actor: user_id(),
        device: "web:3f2a".into(),
        uuid: UUID,
        fact: Fact::MessageSent(sent),
        unique_as_of: None,
    }
}

const FRAMES: [&str; 3] = ["Message", "Ack", "Cursor"];

fn server_frame(name: &str) -> ServerFrame {
    let (uuid, chat_id, seq, ts) = (UUID, chat_id(), Seq(90_210), 1_764_000_000_000);
    match name {
        "Ack" => Ack { uuid, chat_id, seq, ts, dup: false }.into(),
        "Cursor" => Cursor { cursor: "A".repeat(50) }.into(),
        _ => {
            let (body, mentions) = (BODY.into(), Vec::new());
            Message {
                chat_id,
                seq,
                prev: Seq(90_107),
                uuid,
                from: user_id(),
                body,
                ts,
                reply_to: None,
                mentions,
            }
            .into()
        }
    }
}

fn send() -> ClientFrame {
    SendMessage { uuid: UUID, chat_id: chat_id(), body: BODY.into(), reply_to: None, mentions: Vec::new() }
        .into()
}

fn encode(bencher: Bencher, frame: &ServerFrame, encode: fn(&ServerFrame, &mut Vec<u8>)) {
    let mut out = Vec::with_capacity(1_024);
    bencher.bench_local(|| {
        out.clear();
        encode(black_box(frame), &mut out);
        out.len()
    });
}

#[divan::bench(args = FRAMES)]
fn encode_json(bencher: Bencher, name: &str) {
    encode(bencher, &server_frame(name), codec::encode_json);
}

#[divan::bench(args = FRAMES)]
fn encode_msgpack(bencher: Bencher, name: &str) {
    encode(bencher, &server_frame(name), codec::encode_msgpack);
}

#[divan::bench]
fn decode_json_send(bencher: Bencher) {
    let mut bytes = Vec::new();
    codec::encode_client_json(&send(), &mut bytes);
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .bench_local(|| codec::decode_client_json(black_box(&bytes)));
}

#[divan::bench]
fn decode_msgpack_send(bencher: Bencher) {
    let mut bytes = Vec::new();
    codec::encode_client_msgpack(&send(), &mut bytes);
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .bench_local(|| codec::decode_client_msgpack(black_box(&bytes)));
}

#[divan::bench]
fn refuse_json_send(bencher: Bencher) {
    let bytes = format!(r#"{{"type":"SendMessage","uuid":"{UUID}","chatId":"1","body":"Hi"}}"#);
    bencher.bench_local(|| codec::decode_client_json(black_box(bytes.as_bytes())));
}

#[divan::bench]
fn event_encode(bencher: Bencher) {
    let event = event();
    bencher.bench_local(|| black_box(&event).encode());
}

#[divan::bench]
fn event_decode(bencher: Bencher) {
    let bytes = event().encode();
    bencher.bench_local(|| Event::decode(black_box(&bytes)));
}

#[divan::bench]
fn event_head(bencher: Bencher) {
    let bytes = event().encode();
    bencher.bench_local(|| Head::read(black_box(&bytes)).is_ok());
}

#[divan::bench]
fn log_bytes_to_json_frame(bencher: Bencher) {
    let bytes = event().encode();
    let mut out = Vec::with_capacity(1_024);
    bencher.bench_local(|| {
        out.clear();
        if let Ok(event) = Event::decode(black_box(&bytes)) {
            codec::encode_json(&delivered(chat_id(), Seq(2), Seq(1), 3, &event, false), &mut out);
        }
        out.len()
    });
}
