//! The workspace's own binaries, as tests run them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow, ensure};

/// The folder of the binaries, built before the suite.
pub const BIN_DIR: &str = "MT_TEST_BIN_DIR";

/// The dev build of a binary of the workspace. Built now, unless `cargo xtask test` has built everything.
pub fn binary(name: &str) -> Result<PathBuf> {
    static BUILT: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    if let Some(dir) = std::env::var_os(BIN_DIR) {
        return Ok(PathBuf::from(dir).join(name));
    }
    let mut built = BUILT.lock().map_err(|_| anyhow!("an earlier build panicked"))?;
    let built = built.get_or_insert_default();
    if let Some(path) = built.get(name) {
        return Ok(path.clone());
    }
    let path = build(name)?;
    built.insert(name.to_owned(), path.clone());
    Ok(path)
}

fn build(name: &str) -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = crate::process::command("cargo")
        .args(["build", "--quiet", "--package", name, "--bin", name])
        .current_dir(&workspace)
        .output()
        .context("running cargo")?;
    ensure!(output.status.success(), "building {name}:\n{}", String::from_utf8_lossy(&output.stderr));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    Ok(target.canonicalize()?.join("debug").join(name))
}
