//! Hostile input: each bad frame is refused with its code, its field, and its uuid.

use proptest::{collection::vec, prelude::*};
use shared::{
    code::Code,
    codec::{
        Rejected, decode_client_json, decode_client_msgpack, decode_server_json, decode_server_msgpack,
        encode_client_json, encode_client_msgpack,
    },
    frame::{self, ClientFrame},
    id::Seq,
};

use crate::{
    samples::{UUID, chat},
    strategy,
};

const U: &str = "01972f6e-8a01-7c3d-9e5f-0123456789ab";

fn refusal(text: &str) -> Rejected {
    decode_client_json(text.as_bytes()).expect_err(text)
}

fn refused_msgpack(bytes: &[u8]) -> Rejected {
    decode_client_msgpack(bytes).expect_err("refused")
}

#[test]
fn what_is_no_json_is_malformed() {
    let deep = "[".repeat(60_000);
    let unclosed = "{\"type\":".repeat(5_000);
    for text in [
        "",
        " ",
        "{",
        "}",
        "hello",
        "{\"type\":\"Ping\",\"t\":1",
        "{'type':'Ping'}",
        "{\"type\":\"Ping\",\"t\":1}x",
        "{\"type\":\"Ping\",\"t\":1}{}",
        "{\"type\":\"Ping\",\"t\":01}",
        "{\"type\":\"Ping\",\"t\":NaN}",
        "{\"type\":\"Ping\",\"t\":1,}",
        "{type:\"Ping\"}",
        "\u{FEFF}{\"type\":\"Ping\",\"t\":1}",
        "[1,",
        "{1:2}",
        "{\"type\":\"Ping\",\"t\":\"\u{1}\"}",
        &deep,
        &unclosed,
    ] {
        let shown = text.get(..40).unwrap_or(text);
        let refusal = refusal(text);
        assert_eq!((refusal.code, refusal.uuid), (Code::FrameMalformed, None), "{shown}");
    }
    for bytes in [&b"\xFF"[..], b"{\"type\":\"Ping\",\"t\":\"\xC3\"}"] {
        assert_eq!(decode_client_json(bytes).map_err(|refused| refused.code), Err(Code::FrameMalformed));
    }
}

#[test]
fn json_of_the_wrong_shape_is_invalid() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for text in ["[]", "1", "null", "\"Ping\"", "true", "[1,2]", "-1.5e300", &deep] {
        let refusal = refusal(text);
        assert_eq!((refusal.code, refusal.field), (Code::CommandInvalid, None), "{text}");
    }
    for text in ["{}", r#"{"t":1}"#, r#"{"type":null}"#, r#"{"type":7}"#, r#"{"type":["Ping"]}"#] {
        let refusal = refusal(text);
        assert_eq!((refusal.code, refusal.field), (Code::CommandInvalid, Some("type")), "{text}");
    }
}

/// A `SendMessage` with one field replaced, and the field at fault.
fn check(field: &'static str, value: &str) {
    let mut text = String::from(r#"{"type":"SendMessage""#);
    for (name, good) in [("uuid", format!("\"{U}\"")), ("chatId", "1".into()), ("body", "\"Hi\"".into())] {
        let value = if name == field { value } else { &good };
        if !value.is_empty() {
            text += &format!(",\"{name}\":{value}");
        }
    }
    if !["uuid", "chatId", "body"].contains(&field) {
        text += &format!(",\"{field}\":{value}");
    }
    text.push('}');
    let refusal = refusal(&text);
    assert_eq!((refusal.code, refusal.field), (Code::CommandInvalid, Some(field)), "{text}");
    let echoed = (field != "uuid").then_some(UUID);
    assert_eq!(refusal.uuid, echoed, "{text}: the uuid comes back");
}

#[test]
fn mistyped_missing_and_out_of_range_fields_are_invalid_and_the_uuid_comes_back() {
    for value in [
        "",
        "null",
        "0",
        "-1",
        "-0",
        "1.0",
        "1.5",
        "1e3",
        "9007199254740992",
        "18446744073709551616",
        "\"1\"",
        "true",
        "[1]",
        "{}",
        "123456789012345678901234567890123456789012345678901234567890",
    ] {
        check("chatId", value);
    }
    for value in ["", "null", "1", "[\"Hi\"]", "{}", "false", r#""\ud800""#, r#""\udc00x""#] {
        check("body", value);
    }
    for value in ["", "null", "7", "\"\"", "\"x\"", "\"client-generated-uuid-2\"", "[]", "{}"] {
        check("uuid", value);
    }
    for value in ["0", "-1", "\"4650\"", "1.5", "[]"] {
        check("replyTo", value);
    }
    for value in [
        "1",
        "{}",
        "\"x\"",
        "[1]",
        "[null]",
        "[{}]",
        "[[9,0,1]]",
        r#"[{"userId":0,"start":0,"length":1}]"#,
        r#"[{"userId":9,"start":-1,"length":1}]"#,
        r#"[{"userId":9,"start":0,"length":4294967296}]"#,
        r#"[{"userId":9,"start":0}]"#,
        r#"[{"userId":9,"userId":9,"start":0,"length":1}]"#,
    ] {
        check("mentions", value);
    }
}

#[test]
fn null_is_absent_where_a_field_is_optional() {
    let text = format!(
        r#"{{"type":"SendMessage","uuid":"{U}","chatId":1,"body":"Hi","replyTo":null,"mentions":null}}"#
    );
    let frame = decode_client_json(text.as_bytes()).unwrap().unwrap();
    assert_eq!(frame.uuid(), Some(UUID));
    assert!(
        matches!(frame, ClientFrame::SendMessage(send) if send.reply_to.is_none() && send.mentions.is_empty())
    );
}

#[test]
fn a_field_that_stands_twice_is_invalid() {
    let twice = format!(r#"{{"type":"Typing","uuid":"{U}","chatId":1,"chatId":1}}"#);
    let refusal = refusal(&twice);
    assert_eq!(
        (refusal.code, refusal.field, refusal.uuid),
        (Code::CommandInvalid, Some("chatId"), Some(UUID))
    );
    let uuids = format!(r#"{{"type":"Typing","uuid":"{U}","chatId":1,"uuid":"{U}"}}"#);
    let refusal = decode_client_json(uuids.as_bytes()).unwrap_err();
    assert_eq!((refusal.field, refusal.uuid), (Some("uuid"), None));
    let escaped = r#"{"type":"Ping","\u0074ype":"Ping","t":1}"#;
    assert_eq!(decode_client_json(escaped.as_bytes()).unwrap_err().field, Some("type"));
}

#[test]
fn escapes_are_read() {
    let text = format!(
        r#"{{"\u0074ype":"Send\u004Dessage","uuid":"{U}","chatId":1,"body":"\ud83d\ude00\n\u0000"}}"#
    );
    let Ok(Some(ClientFrame::SendMessage(send))) = decode_client_json(text.as_bytes()) else {
        panic!("{text}")
    };
    assert_eq!(send.body, "😀\n\0");
}

#[test]
fn commands_on_nothing_are_out_of_range() {
    for (field, text) in [
        ("seq", r#"{"type":"Read","chatId":1,"seq":0}"#),
        ("before", r#"{"type":"Fetch","uuid":"U","chatId":1,"before":0}"#),
        ("seq", r#"{"type":"React","uuid":"U","chatId":1,"seq":0,"emoji":"👍","on":true}"#),
        ("state", r#"{"type":"SetPresence","state":"offline"}"#),
        ("state", r#"{"type":"SetPresence","state":"Away"}"#),
        ("on", r#"{"type":"React","uuid":"U","chatId":1,"seq":1,"emoji":"👍","on":1}"#),
        ("userIds", r#"{"type":"WatchPresence","userIds":[1,0]}"#),
        ("userIds", r#"{"type":"WatchPresence","userIds":7}"#),
        ("limit", r#"{"type":"Fetch","uuid":"U","chatId":1,"limit":-1}"#),
        ("t", r#"{"type":"Ping"}"#),
        ("uuid", r#"{"type":"Typing","chatId":1,"uuid":"no"}"#),
    ] {
        let refusal = refusal(&text.replace("\"U\"", &format!("\"{U}\"")));
        assert_eq!((refusal.code, refusal.field), (Code::CommandInvalid, Some(field)), "{text}");
    }
    let from_start = format!(r#"{{"type":"Fetch","uuid":"{U}","chatId":1,"after":0}}"#);
    assert!(matches!(
        decode_client_json(from_start.as_bytes()),
        Ok(Some(ClientFrame::Fetch(fetch))) if fetch.after == Some(Seq::ZERO)
    ));
}

#[test]
fn a_refusal_says_nothing_of_what_was_sent() {
    let text = format!(r#"{{"type":"Auth","uuid":"{U}","token":["secret"]}}"#);
    let refusal = refusal(&text);
    assert_eq!(refusal.to_string(), "command.invalid: `token` must be a text");
    assert!(!format!("{refusal:?}").contains("secret"));
}

#[test]
fn what_is_no_msgpack_is_malformed() {
    for bytes in [
        &b""[..],
        b"\xC1",
        b"\x92",
        b"\x92\x0F",
        b"\x92\x0F\x01\x01",
        b"\xDD\xFF\xFF\xFF\xFF\x0F",
        b"\xDF\xFF\xFF\xFF\xFF",
        b"\x92\x0F\xC1",
        b"\x92\x0F\xA2\xC3\x28",
        b"\x92\x0F\xDB\xFF\xFF\xFF\xFFx",
        b"\x92\x0F\xC6\xFF\xFF\xFF\xFF",
        b"\x92\x0F\xC9\xFF\xFF\xFF\xFF\x01",
        b"\x92\x0F\xCF\x00",
        &[0x91; 60_000],
    ] {
        let refused = refused_msgpack(bytes);
        assert_eq!((refused.code, refused.uuid), (Code::FrameMalformed, None), "{:?}", bytes.get(..9));
    }
}

#[test]
fn msgpack_of_the_wrong_shape_is_invalid() {
    let nested = [&[0x91; 30_000][..], &[0xC0]].concat();
    for bytes in [
        &[0x90][..],
        &[0xC0],
        &[0x07],
        &[0x81, 0xA1, b't', 0x01],
        &[0x92, 0xA4, b'P', b'i', b'n', b'g', 1],
        &nested,
    ] {
        assert_eq!(refused_msgpack(bytes).code, Code::CommandInvalid, "{:?}", bytes.get(..9));
    }
    for (field, bytes) in [
        ("t", &[0x91, 15][..]),
        ("t", &[0x92, 15, 0xC0]),
        ("t", &[0x92, 15, 0xFF]),
        ("t", &[0x92, 15, 0xCA, 0, 0, 0, 0]),
        ("t", &[0x92, 15, 0xCB, 0x7F, 0xF8, 0, 0, 0, 0, 0, 0]),
        ("t", &[0x92, 15, 0xC4, 1, 1]),
        ("t", &[0x92, 15, 0xD4, 1, 1]),
        ("uuid", &[0x92, 38, 0xC4, 1, 1]),
        ("userIds", &[0x92, 40, 0x91, 0x00]),
        ("chatId", &[0x92, 39, 0x00]),
    ] {
        let refused = refused_msgpack(bytes);
        assert_eq!((refused.code, refused.field), (Code::CommandInvalid, Some(field)), "{bytes:?}");
    }
}

#[test]
fn msgpack_errors_echo_the_uuid_too() {
    let send = frame::DeleteMessage { uuid: UUID, chat_id: chat(1), seq: Seq(2) };
    let mut bytes = Vec::new();
    encode_client_msgpack(&send.into(), &mut bytes);
    *bytes.last_mut().unwrap() = 0xC3;
    let refused = refused_msgpack(&bytes);
    assert_eq!((refused.code, refused.field, refused.uuid), (Code::CommandInvalid, Some("seq"), Some(UUID)));
}

/// Whatever the bytes: no panic, and only the two codes.
fn survives(bytes: &[u8]) -> Result<(), TestCaseError> {
    let outcomes = [
        decode_client_json(bytes).err(),
        decode_client_msgpack(bytes).err(),
        decode_server_json(bytes).err(),
        decode_server_msgpack(bytes).err(),
    ];
    for refused in outcomes.into_iter().flatten() {
        prop_assert!(matches!(refused.code, Code::FrameMalformed | Code::CommandInvalid));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..300)) {
        survives(&bytes)?;
    }

    #[test]
    fn arbitrary_arrays_with_a_kind(kind in 0..50_u8, bytes in vec(any::<u8>(), 0..100), length in 0..15_u8) {
        survives(&[&[0x90 | length, kind], bytes.as_slice()].concat())?;
    }

    #[test]
    fn damaged_frames(
        frame in strategy::client(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (mut text, mut binary) = (Vec::new(), Vec::new());
        encode_client_json(&frame, &mut text);
        encode_client_msgpack(&frame, &mut binary);
        for (at, byte) in damage {
            let (in_text, in_binary) = (at.index(text.len()), at.index(binary.len()));
            text[in_text] = byte;
            binary[in_binary] = byte;
            survives(&text)?;
            survives(&binary)?;
        }
    }

    #[test]
    fn cut_frames_are_malformed(frame in strategy::client(), cut in any::<prop::sample::Index>()) {
        let (mut text, mut binary) = (Vec::new(), Vec::new());
        encode_client_json(&frame, &mut text);
        encode_client_msgpack(&frame, &mut binary);
        text.truncate(cut.index(text.len()));
        binary.truncate(cut.index(binary.len()));
        prop_assert_eq!(decode_client_json(&text).map_err(|refused| refused.code), Err(Code::FrameMalformed));
        prop_assert_eq!(decode_client_msgpack(&binary).map_err(|refused| refused.code), Err(Code::FrameMalformed));
    }

    #[test]
    fn the_uuid_comes_back_whatever_else_is_wrong(frame in strategy::client(), junk in "[^\"\\\\\\x00-\\x1f]{0,9}") {
        let Some(uuid) = frame.uuid() else { return Ok(()) };
        let mut text = Vec::new();
        encode_client_json(&frame, &mut text);
        let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text).unwrap();
        for (name, value) in &mut object {
            if name != "type" && name != "uuid" {
                *value = serde_json::json!([{ "junk": junk }]);
            }
        }
        let refused = decode_client_json(&serde_json::to_vec(&object).unwrap()).unwrap_err();
        prop_assert_eq!((refused.code, refused.uuid), (Code::CommandInvalid, Some(uuid)));
    }
}
