//! The documentation names everything that is on the wire.

use std::{fs, path::PathBuf};

use shared::{
    code::Code,
    codec::{decode_client_json, decode_server_json},
    frame::{ClientFrame, Declared, EventData, ServerFrame},
};

fn document(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_code_is_explained_with_its_status() {
    let errors = document("errors.md");
    for code in Code::ALL {
        let row = format!("| `{code}` | {} |", code.status());
        assert!(errors.contains(&row), "no row begins with: {row}");
    }
}

#[test]
fn no_code_is_explained_that_does_not_exist() {
    let errors = document("errors.md");
    for row in errors.lines().filter_map(|line| line.strip_prefix("| `")) {
        let code = row.split('`').next().unwrap();
        assert!(Code::ALL.iter().any(|known| known.as_str() == code), "{code}");
    }
}

#[test]
fn every_frame_has_its_line_in_the_table() {
    let protocol = document("protocol.md");
    let both = [("S", ServerFrame::DECLARED), ("C", ClientFrame::DECLARED)];
    for (side, Declared { kind, name, fields }) in
        both.iter().flat_map(|(side, all)| all.iter().map(move |d| (side, d)))
    {
        let fields: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
        let heartbeat = ["Ping", "Pong"].contains(name);
        let side = if heartbeat {
            "both"
        } else if *side == "S" {
            "server"
        } else {
            "client"
        };
        let row = format!("| {kind} | `{name}` | {side} | {} |", fields.join(", "));
        let plain = protocol.replace("?", "");
        assert!(plain.contains(&row), "no row: {row}");
    }
    for kind in EventData::KINDS {
        assert!(protocol.contains(&format!("| `{kind}` |")), "{kind}");
    }
}

/// The frames in the document's JSON blocks; a line that begins with a space goes on with the one before.
fn examples(protocol: &str) -> Vec<String> {
    let blocks = protocol.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next());
    let joined = blocks.map(|block| block.replace("\n ", " ")).collect::<String>();
    joined.lines().filter(|line| line.starts_with('{')).map(str::to_owned).collect()
}

#[test]
fn every_example_is_a_frame_and_every_frame_has_one() {
    let protocol = document("protocol.md");
    let (mut server, mut client) = (Vec::new(), Vec::new());
    for example in examples(&protocol) {
        let from_server = decode_server_json(example.as_bytes()).ok().flatten();
        let from_client = decode_client_json(example.as_bytes()).ok().flatten();
        assert!(from_server.is_some() || from_client.is_some(), "{example}");
        server.extend(from_server.map(|frame| frame.type_name()));
        client.extend(from_client.map(|frame| frame.type_name()));
    }
    assert!(ServerFrame::DECLARED.iter().all(|frame| server.contains(&frame.name)), "{server:?}");
    assert!(ClientFrame::DECLARED.iter().all(|frame| client.contains(&frame.name)), "{client:?}");
}
