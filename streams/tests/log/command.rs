use std::process::{Command, Output};

use crate::server::Server;

fn streams(server: &Server, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_streams"))
        .args(arguments)
        .env("MT_NATS_URL", server.url())
        .env("MT_STREAM_PREFIX", "t1_")
        .output()
        .unwrap()
}

#[test]
fn apply_makes_check_content() {
    let server = Server::start();
    let before = streams(&server, &["check"]);
    assert!(!before.status.success());
    assert!(String::from_utf8_lossy(&before.stdout).contains("T1_CHAT_0: is missing"));
    for _ in 0..2 {
        let applied = streams(&server, &["apply"]);
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    }
    assert!(streams(&server, &["check"]).status.success());
    let drifted = streams(&server, &["--duplicate-window-ms", "1000", "check"]);
    assert!(!drifted.status.success());
    assert!(String::from_utf8_lossy(&drifted.stdout).contains("duplicate_window"));
}
