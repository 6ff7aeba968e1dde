//! `.env.example` lists what the services take, no more and no less.

use std::process::Command;

#[test]
fn env_example_is_what_help_says() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_xtask")).args(["settings", "--check"]).output().expect("xtask");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
