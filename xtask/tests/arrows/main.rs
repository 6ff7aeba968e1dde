//! The rooms of every crate look one way. ARCHITECTURE.md lists them from the top down; here it is held against the
//! code: a room imports only rooms below it, and files do not name each other in a circle.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod rooms;
mod rules;
mod scan;
mod tree;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use rooms::Rooms;
use rules::Parents;
use tree::Tree;

/// Crates in which a file may name its parent: the parent holds a type, and its children are that type's methods.
const PARENTS_ARE_NAMED: [&str; 1] = ["gateway"];

/// As many rooms as can be kept in mind.
const MOST_ENTRIES: usize = 13;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The crates of the workspace and their roots. A program beside a library of several rooms counts by itself if it has
/// modules of its own.
fn crates() -> Vec<(String, PathBuf)> {
    let manifest = std::fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let members =
        manifest.lines().find_map(|line| line.strip_prefix("members = [")).expect("a list in one line");
    let members = members.split('"').skip(1).step_by(2);
    let mut crates: Vec<_> =
        members.map(|member| (member.to_owned(), workspace().join(member).join("src/lib.rs"))).collect();
    crates.push(("xtask/src/bin/xtask".to_owned(), workspace().join("xtask/src/bin/xtask/main.rs")));
    crates
}

fn listed() -> Vec<Rooms> {
    rooms::parse(&std::fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap()).unwrap()
}

#[test]
fn architecture_md_lists_the_rooms_of_every_crate() {
    let crates: BTreeSet<String> = crates().into_iter().map(|(name, _)| name).collect();
    let listed: BTreeSet<String> = listed().into_iter().map(|rooms| rooms.of).collect();
    assert_eq!(listed, crates);
}

#[test]
fn a_room_imports_only_rooms_below_it() {
    let listed = listed();
    let mut wrong = Vec::new();
    for (name, root) in crates() {
        let rooms = listed.iter().find(|rooms| rooms.of == name).unwrap();
        let against = rules::against_the_order(&Tree::read(&name, &root), &rooms.order);
        wrong.extend(against.into_iter().map(|line| format!("{name}: {line}")));
    }
    assert!(wrong.is_empty(), "the rooms are in ARCHITECTURE.md, from the top down:\n{}", wrong.join("\n"));
}

#[test]
fn files_do_not_name_each_other_in_a_circle() {
    let mut circles = Vec::new();
    for (name, root) in crates() {
        let parents =
            if PARENTS_ARE_NAMED.contains(&name.as_str()) { Parents::Named } else { Parents::NotNamed };
        let found = rules::circles(&Tree::read(&name, &root), parents);
        circles.extend(found.into_iter().map(|line| format!("{name}: {line}")));
    }
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn the_gateway_has_no_more_rooms_than_can_be_kept_in_mind() {
    let entries = std::fs::read_dir(workspace().join("gateway/src")).unwrap();
    // A room is a file and the folder of the same name.
    let rooms: BTreeSet<_> = entries.map(|entry| entry.unwrap().path().with_extension("")).collect();
    assert!(rooms.len() <= MOST_ENTRIES, "{rooms:?}");
}
