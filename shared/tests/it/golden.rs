//! Fixture files: bytes that were written once and are never changed.

use std::{fs, path::PathBuf};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// The fixture's bytes. With `MT_WRITE_FIXTURES` set, a missing one is first written; an existing one never is.
pub(crate) fn read(name: &str, fresh: &[u8]) -> Vec<u8> {
    let path = path(name);
    if !path.exists() && std::env::var_os("MT_WRITE_FIXTURES").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, fresh).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}; MT_WRITE_FIXTURES=1 writes new fixtures"))
}

/// The names of all fixtures in a folder.
pub(crate) fn names(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path(folder))
        .unwrap()
        .map(|entry| format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap()))
        .collect();
    names.sort();
    names
}
