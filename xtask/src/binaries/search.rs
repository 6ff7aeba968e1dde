//! Looks for programs on this machine and asks them for their version.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Major and minor; nothing here depends on more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The first of `names` in PATH.
pub(super) fn in_path(names: &[&str]) -> Option<PathBuf> {
    candidates(names, &[]).into_iter().next()
}

/// Every program of one of the names, in PATH first, then in `folders`. Links stay as they are: Debian's
/// redis-server is a link to a program that goes by its own name.
pub(super) fn candidates(names: &[&str], folders: &[PathBuf]) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    in_path
        .iter()
        .chain(folders)
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .filter(|file| file.is_file())
        .collect()
}

/// `<root>/<number>/<leaf>`, the highest number first.
pub(super) fn numbered_folders(root: &Path, leaf: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut numbers: Vec<u32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.into_iter().map(|number| root.join(number.to_string()).join(leaf)).collect()
}

/// What `<program> --version` says.
pub(super) fn version(program: &Path) -> Option<Version> {
    let output = Command::new(program).arg("--version").output().ok()?;
    output.status.success().then(|| parse(&String::from_utf8_lossy(&output.stdout))).flatten()
}

/// The first `<number>.<number>` of the text, whatever stands around it.
fn parse(text: &str) -> Option<Version> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
        let mut parts = word.split('.');
        Some(Version(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_the_servers_print_them() {
        for (text, version) in [
            ("nats-server: v2.15.1", Some(Version(2, 15))),
            ("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)", Some(Version(15, 14))),
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64", Some(Version(7, 0))),
            ("Valkey server v=9.1.2 sha=00000000:1 malloc=libc", Some(Version(9, 1))),
            ("no version", None),
        ] {
            assert_eq!(parse(text), version, "{text}");
        }
    }
}
