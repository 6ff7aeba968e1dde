//! Frames: golden bytes, round trips, and the agreement of the two encodings.

use proptest::prelude::*;
use shared::{
    codec::{
        decode_client_json, decode_client_msgpack, decode_server_json, decode_server_msgpack,
        encode_client_json, encode_client_msgpack, encode_json, encode_msgpack,
    },
    event::{Event, Fact, MessageEdited, MessageSent},
    frame::{self, ClientFrame, EventData, ServerFrame, delivered},
    id::{EXAMPLE_UUID, MAX_ID, Seq, client_uuid},
};

use crate::{
    golden,
    samples::{self, UUID, chat, user},
    strategy,
};

fn bytes<F>(frame: &F, encode: fn(&F, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = b"kept".to_vec();
    encode(frame, &mut out);
    assert!(out.starts_with(b"kept"), "encoding appends");
    out.split_off(4)
}

fn json(frame: &ServerFrame) -> String {
    String::from_utf8(bytes(frame, encode_json)).unwrap()
}

#[test]
fn golden_server_frames() {
    for (name, frame) in samples::server() {
        let (text, binary) = (bytes(&frame, encode_json), bytes(&frame, encode_msgpack));
        let golden_text = golden::read(&format!("frames/server/{name}.json"), &text);
        let golden_binary = golden::read(&format!("frames/server/{name}.msgpack"), &binary);
        assert_eq!(golden_text, text, "{name}");
        assert_eq!(golden_binary, binary, "{name}");
        assert_eq!(decode_server_json(&golden_text).unwrap(), Some(frame.clone()), "{name}");
        assert_eq!(decode_server_msgpack(&golden_binary).unwrap(), Some(frame), "{name}");
    }
}

#[test]
fn golden_client_frames() {
    for (name, frame) in samples::client() {
        let (text, binary) = (bytes(&frame, encode_client_json), bytes(&frame, encode_client_msgpack));
        let golden_text = golden::read(&format!("frames/client/{name}.json"), &text);
        let golden_binary = golden::read(&format!("frames/client/{name}.msgpack"), &binary);
        assert_eq!(golden_text, text, "{name}");
        assert_eq!(golden_binary, binary, "{name}");
        assert_eq!(decode_client_json(&golden_text).unwrap(), Some(frame.clone()), "{name}");
        assert_eq!(decode_client_msgpack(&golden_binary).unwrap(), Some(frame), "{name}");
    }
}

#[test]
fn every_type_has_a_fixture_and_kinds_are_those_of_the_contract() {
    let table = |declared: &[frame::Declared]| -> Vec<(u8, &'static str)> {
        let mut table: Vec<_> = declared.iter().map(|frame| (frame.kind, frame.name)).collect();
        table.sort_unstable();
        table
    };
    let server = [
        "Welcome",
        "Message",
        "Event",
        "Ack",
        "Error",
        "Live",
        "Cursor",
        "Page",
        "Receipts",
        "Presence",
        "Typing",
        "Lagging",
        "Drain",
        "AuthExpiring",
        "Ping",
        "Pong",
        "Reset",
        "AuthOk",
    ];
    let client = [
        "SendMessage",
        "EditMessage",
        "DeleteMessage",
        "React",
        "Read",
        "Delivered",
        "Fetch",
        "Typing",
        "WatchPresence",
        "SetPresence",
        "Auth",
    ];
    assert_eq!(table(ServerFrame::DECLARED), (1..).zip(server).collect::<Vec<_>>());
    let heartbeat = [(15, "Ping"), (16, "Pong")].into_iter();
    assert_eq!(table(ClientFrame::DECLARED), heartbeat.chain((32..).zip(client)).collect::<Vec<_>>());
    for name in server {
        assert!(samples::server().iter().any(|(_, frame)| frame.type_name() == name), "{name}");
    }
    for name in client {
        assert!(samples::client().iter().any(|(_, frame)| frame.type_name() == name), "{name}");
    }
}

#[test]
fn the_published_example_works_verbatim() {
    let example =
        r#"{"type":"SendMessage","uuid":"client-generated-uuid","chatId":1,"body":"Hello, World!"}"#;
    let Ok(Some(ClientFrame::SendMessage(send))) = decode_client_json(example.as_bytes()) else {
        panic!("the example is refused")
    };
    assert_eq!((send.uuid, send.chat_id, send.body.as_str()), (EXAMPLE_UUID, chat(1), "Hello, World!"));
    assert_eq!(EXAMPLE_UUID.get_version_num(), 8);
    assert_eq!(EXAMPLE_UUID.get_variant(), uuid::Variant::RFC4122);
    assert_eq!(EXAMPLE_UUID.to_string(), "6d696e69-7467-8000-8000-636c69656e74");
}

#[test]
fn uuids_in_any_case_and_nothing_else() {
    let text = UUID.to_string();
    for good in [text.clone(), text.to_uppercase(), UUID.simple().to_string()] {
        assert_eq!(client_uuid(&good), Some(UUID), "{good}");
    }
    for bad in
        ["", "1", "client-generated-uuid ", "Client-Generated-Uuid", &text[1..], &format!("{{{text}}}")]
    {
        assert_eq!(client_uuid(bad), None, "{bad}");
    }
    assert_eq!(client_uuid(&format!("urn:uuid:{text}")), None);
}

#[test]
fn json_as_the_contract_shows_it() {
    let ack = frame::Ack { uuid: UUID, chat_id: chat(1), seq: Seq(4_711), ts: 5, dup: false };
    assert_eq!(
        json(&ack.into()),
        format!(r#"{{"type":"Ack","uuid":"{UUID}","chatId":1,"seq":4711,"ts":5,"dup":false}}"#)
    );
    let deleted = EventData::Deleted(frame::Deleted { seq: Seq(4_711) });
    let event =
        frame::Event { chat_id: chat(1), seq: Seq(2), prev: Seq(1), from: user(7), ts: 0, data: deleted };
    assert_eq!(
        json(&event.into()),
        r#"{"type":"Event","chatId":1,"seq":2,"prev":1,"kind":"deleted","from":7,"ts":0,"data":{"seq":4711}}"#
    );
}

#[test]
fn msgpack_leaves_trailing_absent_fields_out_and_writes_inner_ones_as_nil() {
    let error = frame::Error {
        uuid: None,
        code: "c".into(),
        temporary: false,
        retry_after_ms: 0,
        message: "m".into(),
        trace_id: None,
    };
    let expected = [0x96, 5, 0xC0, 0xA1, b'c', 0xC2, 0, 0xA1, b'm'];
    assert_eq!(bytes(&error.into(), encode_msgpack), expected);
    assert_eq!(bytes(&frame::Ping { t: 1 }.into(), encode_msgpack), [0x92, 15, 1]);
}

#[test]
fn frames_of_newer_peers_are_understood() {
    let longer = [&[0x95, 15, 1][..], b"\xA3new\x91\x01\xC0"].concat();
    assert_eq!(decode_client_msgpack(&longer), Ok(Some(frame::Ping { t: 1 }.into())));
    let more = br#"{"t":1,"new":[{"deep":[1]}],"type":"Ping"}"#;
    assert_eq!(decode_client_json(more), Ok(Some(frame::Ping { t: 1 }.into())));
    for unknown in [&br#"{"type":"Dance","chatId":"x"}"#[..], br#"{"type":"Welcome"}"#] {
        assert_eq!(decode_client_json(unknown), Ok(None));
    }
    for unknown in [&[0x92, 43, 1][..], &[0x91, 1], &[0x91, 0xCD, 0x01, 0x20]] {
        assert_eq!(decode_client_msgpack(unknown), Ok(None), "{unknown:?}");
    }
}

#[test]
fn a_deleted_message_is_delivered_without_its_content() {
    let (_, full) = samples::events().into_iter().find(|(name, _)| *name == "message-sent-full").unwrap();
    let (_, edit) = samples::events().into_iter().find(|(name, _)| *name == "message-edited").unwrap();
    let deliver = |event: &Event, deleted| delivered(chat(1), Seq(2), Seq(1), 3, event, deleted);
    let ServerFrame::Message(message) = deliver(&full, true) else { panic!("a message") };
    assert_eq!((message.body.as_str(), message.mentions.len(), message.reply_to), ("", 0, Some(Seq(4_650))));
    let ServerFrame::Event(frame::Event { data: EventData::Edited(edited), .. }) = deliver(&edit, true)
    else {
        panic!("an edit")
    };
    assert_eq!((edited.body.as_str(), edited.mentions.len()), ("", 0));
    let ServerFrame::Message(message) = deliver(&full, false) else { panic!("a message") };
    let Fact::MessageSent(MessageSent { body, mentions, .. }) = full.fact else { panic!("a message") };
    assert_eq!((message.body, message.mentions), (body, mentions));
    let ServerFrame::Event(frame::Event { data: EventData::Edited(edited), .. }) = deliver(&edit, false)
    else {
        panic!("an edit")
    };
    let Fact::MessageEdited(MessageEdited { body, .. }) = edit.fact else { panic!("an edit") };
    assert_eq!(edited.body, body);
}

#[test]
fn a_created_chat_names_its_first_hundred_members() {
    let (_, mut event) =
        samples::events().into_iter().find(|(name, _)| *name == "chat-created-group").unwrap();
    let Fact::ChatCreated(created) = &mut event.fact else { panic!("a creation") };
    let member = created.members[0];
    created.members =
        (1..=250).rev().map(|id| shared::event::MemberRole { user_id: user(id), ..member }).collect();
    let ServerFrame::Event(frame::Event { data: EventData::ChatCreated(data), .. }) =
        delivered(chat(1), Seq(1), Seq::ZERO, 0, &event, false)
    else {
        panic!("a creation")
    };
    assert_eq!(data.member_count, 250);
    assert_eq!(data.member_ids, (1..=100).map(user).collect::<Vec<_>>());
}

#[test]
fn integers_of_any_width_are_read_from_msgpack() {
    for wide in
        [&[0x92, 15, 1][..], &[0x92, 0xCC, 15, 0xCD, 0, 1], &[0x92, 0xD0, 15, 0xD3, 0, 0, 0, 0, 0, 0, 0, 1]]
    {
        assert_eq!(decode_client_msgpack(wide), Ok(Some(frame::Ping { t: 1 }.into())), "{wide:?}");
    }
    let largest = [&[0x92, 15, 0xCF][..], &MAX_ID.to_be_bytes()].concat();
    assert_eq!(decode_client_msgpack(&largest), Ok(Some(frame::Ping { t: MAX_ID }.into())));
    let beyond = [&[0x92, 15, 0xCF][..], &(MAX_ID + 1).to_be_bytes()].concat();
    assert!(decode_client_msgpack(&beyond).is_err());
}

proptest! {
    #[test]
    fn server_frames_round_trip_and_the_encodings_agree(frame in strategy::server()) {
        let from_json = decode_server_json(&bytes(&frame, encode_json)).unwrap();
        let from_msgpack = decode_server_msgpack(&bytes(&frame, encode_msgpack)).unwrap();
        prop_assert_eq!(&from_json, &Some(frame));
        prop_assert_eq!(from_json, from_msgpack);
    }

    #[test]
    fn client_frames_round_trip_and_the_encodings_agree(frame in strategy::client()) {
        let from_json = decode_client_json(&bytes(&frame, encode_client_json)).unwrap();
        let from_msgpack = decode_client_msgpack(&bytes(&frame, encode_client_msgpack)).unwrap();
        prop_assert_eq!(&from_json, &Some(frame));
        prop_assert_eq!(from_json, from_msgpack);
    }

    #[test]
    fn the_json_is_that_of_any_other_reader(frame in strategy::server()) {
        let text = bytes(&frame, encode_json);
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        prop_assert_eq!(value["type"].as_str(), Some(frame.type_name()));
        let spaced = serde_json::to_vec_pretty(&value).unwrap();
        prop_assert_eq!(decode_server_json(&spaced).unwrap(), Some(frame));
    }
}
