//! What arrows must not do: lead from a room to one above it, or in a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Arrow, ModulePath, Tree};

/// What is wrong with the order of the rooms, one line each: rooms that are not listed, or listed and not there, and
/// arrows that lead up. The root stands above all rooms.
pub(crate) fn against_the_order(tree: &Tree, order: &[String]) -> Vec<String> {
    let rooms = tree.rooms();
    let unlisted = rooms.iter().filter(|room| order.iter().all(|listed| listed != *room));
    let missing = order.iter().filter(|listed| !rooms.contains(&listed.as_str()));
    let mut wrong: Vec<String> = unlisted
        .map(|room| format!("the room {room} is not listed"))
        .chain(missing.map(|room| format!("the room {room} is listed and does not exist")))
        .collect();
    let height = |module: &ModulePath| {
        module.first().and_then(|room| order.iter().position(|listed| listed == room).map(|depth| depth + 1))
    };
    for arrow in tree.arrows() {
        let (from, to) = (arrow.from.first(), arrow.to.first());
        // The root has no height, and is above all: `None` is less than any depth.
        if from != to && height(&arrow.from) > height(&arrow.to) {
            let name = |room: Option<&String>| room.map_or("the root", String::as_str).to_owned();
            wrong.push(format!("{}: from {} up to {}", arrow.place, name(from), name(to)));
        }
    }
    wrong
}

/// Whether a file may name one that it is a part of, such as `hub/cut.rs` the `Hub` of `hub.rs`, although that one uses
/// its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parents {
    Named,
    NotNamed,
}

/// Circles of files, one line each: the places where each file names the next.
pub(crate) fn circles(tree: &Tree, parents: Parents) -> Vec<String> {
    let arrows = tree.arrows();
    let mut next: BTreeMap<&ModulePath, BTreeMap<&ModulePath, &Arrow>> = BTreeMap::new();
    for arrow in &arrows {
        if parents == Parents::NotNamed || !arrow.from.starts_with(&arrow.to) {
            next.entry(&arrow.from).or_default().entry(&arrow.to).or_insert(arrow);
        }
    }
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for start in next.keys() {
        if seen.contains(start) {
            continue;
        }
        if let Some(circle) = circle_through(start, &next) {
            seen.extend(circle.iter().map(|arrow| &arrow.from));
            found.push(circle.iter().map(|arrow| arrow.place.as_str()).collect::<Vec<_>>().join(" -> "));
        }
    }
    found
}

/// The shortest way from a module back to itself.
fn circle_through<'a>(
    start: &'a ModulePath,
    next: &BTreeMap<&'a ModulePath, BTreeMap<&'a ModulePath, &'a Arrow>>,
) -> Option<Vec<&'a Arrow>> {
    let mut reached: BTreeMap<&ModulePath, Vec<&Arrow>> = BTreeMap::new();
    let mut edge = vec![(start, Vec::new())];
    while !edge.is_empty() {
        let mut further = Vec::new();
        for (module, way) in edge {
            for (to, arrow) in next.get(module).into_iter().flatten() {
                let way: Vec<&Arrow> = way.iter().copied().chain([*arrow]).collect();
                if *to == start {
                    return Some(way);
                }
                if reached.insert(to, way.clone()).is_none() {
                    further.push((*to, way));
                }
            }
        }
        edge = further;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{super::tree::tests::tree, *};

    fn order(rooms: &[&str]) -> Vec<String> {
        rooms.iter().map(|room| (*room).to_owned()).collect()
    }

    #[test]
    fn an_arrow_that_leads_up_is_found() {
        let house = tree(&[
            ("", "mod attic; mod cellar;"),
            ("attic", "use crate::cellar::Coal;"),
            ("cellar", "mod shelf;"),
            ("cellar::shelf", "fn f() { let _ = crate::attic::window(); }"),
        ]);
        let wrong = against_the_order(&house, &order(&["attic", "cellar"]));
        assert_eq!(wrong, ["cellar/shelf.rs:1 crate::attic::window: from cellar up to attic"]);
        let wrong = against_the_order(&house, &order(&["cellar", "attic"]));
        assert_eq!(wrong, ["attic.rs:1 crate::cellar::Coal: from attic up to cellar"]);
    }

    #[test]
    fn the_root_is_above_all() {
        let house = tree(&[("", "mod a; pub struct Roof; fn f() { a::b() }"), ("a", "use crate::Roof;")]);
        assert_eq!(against_the_order(&house, &order(&["a"])), ["a.rs:1 crate::Roof: from a up to the root"]);
    }

    #[test]
    fn a_list_has_every_room_and_no_other() {
        let house = tree(&[("", "mod a; mod b;"), ("a", ""), ("b", "")]);
        let wrong = against_the_order(&house, &order(&["c", "a"]));
        assert_eq!(wrong, ["the room b is not listed", "the room c is listed and does not exist"]);
    }

    #[test]
    fn a_circle_of_files_is_found_once() {
        let house = tree(&[
            ("", "mod room;"),
            ("room", "mod a; mod b; mod c; mod d;"),
            ("room::a", "use super::b::B;"),
            ("room::b", "use crate::room::c::C;"),
            ("room::c", "use super::a::A;"),
            ("room::d", "use super::a::A;"),
        ]);
        let circle = "room/a.rs:1 super::b::B -> room/b.rs:1 crate::room::c::C -> room/c.rs:1 super::a::A";
        assert_eq!(circles(&house, Parents::Named), [circle]);
    }

    #[test]
    fn a_part_may_name_its_whole_only_where_that_is_allowed() {
        let house =
            tree(&[("", "mod a;"), ("a", "mod b; struct A(b::B);"), ("a::b", "use super::A; impl A {}")]);
        assert_eq!(circles(&house, Parents::NotNamed), ["a.rs:1 b::B -> a/b.rs:1 super::A"]);
        assert!(circles(&house, Parents::Named).is_empty());
    }
}
