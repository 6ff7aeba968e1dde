//! The documentation names everything that is on the wire.

use std::{fs, path::PathBuf};

use shared::{
    code::Code,
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
