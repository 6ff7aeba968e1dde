//! The k6 script stays a script: it parses, and where its types are installed (`npm ci` in loadtest/k6) they fit.

use std::{path::Path, process::Command};

fn run(program: &str, args: &[&str]) -> Option<(bool, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("k6");
    let output = Command::new(program).args(args).current_dir(folder).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn the_script_parses() {
    let Some((parses, text)) = run("node", &["--check", "direct.js"]) else {
        return eprintln!("not checked: there is no node here");
    };
    assert!(parses, "{text}");
}

#[test]
fn the_types_fit() {
    let Some((fit, text)) = run("node_modules/.bin/tsc", &[]) else {
        return eprintln!("not checked: run `npm ci` in loadtest/k6");
    };
    assert!(fit, "{text}");
}
