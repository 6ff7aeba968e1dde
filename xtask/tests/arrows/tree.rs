//! The modules of one crate, and which of them names which: paths are followed through re-exports to the file that
//! has the name.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::scan::{Named, Scan, scan};

/// A module's path from the root of its crate. The root is empty; a `main.rs` beside a `lib.rs` is `main`.
pub(crate) type ModulePath = Vec<String>;

/// All files of a crate.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The crate's name in paths.
    name: String,
    modules: BTreeMap<ModulePath, Module>,
}

#[derive(Debug)]
struct Module {
    file: PathBuf,
    scan: Scan,
}

/// One file names another of its crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrow {
    pub(crate) from: ModulePath,
    pub(crate) to: ModulePath,
    /// Where, for whoever has to open it: "hub/cut.rs:12 crate::feed::Epochs".
    pub(crate) place: String,
}

/// More re-exports in a row than this are a circle of names.
const RE_EXPORTS: usize = 16;

impl Tree {
    /// Reads the crate whose root is `root`. A `main.rs` beside it belongs to the same tree.
    pub(crate) fn read(name: &str, root: &Path) -> Self {
        let source = root.parent().expect("a folder");
        let mut tree = Self { name: name.replace('-', "_"), modules: BTreeMap::new() };
        tree.add(Vec::new(), root, source);
        let main = source.join("main.rs");
        if main != root && main.exists() {
            tree.add(vec![MAIN.to_owned()], &main, source);
        }
        tree
    }

    fn add(&mut self, path: ModulePath, file: &Path, source: &Path) {
        let text =
            std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let shown = file.strip_prefix(source).unwrap_or(file).to_owned();
        self.insert(path.clone(), shown, &text);
        let folder = path.iter().fold(source.to_owned(), |folder, segment| folder.join(segment));
        for child in self.modules[&path].scan.children.clone() {
            let mut path = path.clone();
            path.push(child.clone());
            self.add(path, &folder.join(child).with_extension("rs"), source);
        }
    }

    fn insert(&mut self, path: ModulePath, file: PathBuf, text: &str) {
        self.modules.insert(path, Module { file, scan: scan(text) });
    }

    /// The names of the rooms: what stands directly in the root.
    pub(crate) fn rooms(&self) -> Vec<&str> {
        self.modules.keys().filter(|path| path.len() == 1).map(|path| path[0].as_str()).collect()
    }

    pub(crate) fn file(&self, path: &ModulePath) -> String {
        self.modules[path].file.display().to_string()
    }

    /// Every place where a file names another. That a module offers what its own children have is not among them:
    /// its `mod` and `pub use` lines.
    pub(crate) fn arrows(&self) -> Vec<Arrow> {
        let mut arrows = Vec::new();
        for (from, module) in &self.modules {
            let uses = module.scan.uses.iter().map(|used| (&used.path, used.public));
            for (named, public) in uses.chain(module.scan.paths.iter().map(|path| (path, false))) {
                let Some(to) = self.absolute(from, named).map(|path| self.owner(&path)) else { continue };
                let offers = public && to.starts_with(from);
                if to != *from && !offers {
                    let place =
                        format!("{}:{} {}", module.file.display(), named.line, named.segments.join("::"));
                    arrows.push(Arrow { from: from.clone(), to, place });
                }
            }
        }
        arrows
    }

    /// The path from the root, of one that is written in this module; none if it leads out of the crate.
    fn absolute(&self, from: &ModulePath, named: &Named) -> Option<ModulePath> {
        let (first, rest) = named.segments.split_first()?;
        let base: ModulePath = match first.as_str() {
            "crate" => from.iter().take_while(|segment| *segment == MAIN).cloned().collect(),
            "self" => from.clone(),
            "super" => from.split_last()?.1.to_vec(),
            name if self.modules[from].scan.children.iter().any(|child| child == name) => {
                from.iter().cloned().chain([name.to_owned()]).collect()
            }
            name if *name == self.name => Vec::new(),
            _ => return None,
        };
        let mut path = base;
        for segment in rest {
            match segment.as_str() {
                "super" => drop(path.pop()?),
                segment => path.push(segment.to_owned()),
            }
        }
        Some(path)
    }

    /// The module in whose file stands what a path names.
    fn owner(&self, path: &ModulePath) -> ModulePath {
        self.follow(path, RE_EXPORTS)
    }

    fn follow(&self, path: &[String], left: usize) -> ModulePath {
        let inside = (0..=path.len()).rev().find(|length| self.modules.contains_key(&path[..*length]));
        let (module, rest) = path.split_at(inside.unwrap_or(0));
        let module = module.to_vec();
        let Some((name, rest)) = rest.split_first() else { return module };
        let brought = self.modules[&module].scan.uses.iter().find(|used| used.name.as_ref() == Some(name));
        let Some(target) = brought.and_then(|used| self.absolute(&module, &used.path)) else { return module };
        match left.checked_sub(1) {
            Some(left) => {
                let target: ModulePath = target.into_iter().chain(rest.iter().cloned()).collect();
                self.follow(&target, left)
            }
            None => module,
        }
    }
}

/// The room of a program whose crate is also a library.
pub(crate) const MAIN: &str = "main";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A crate of these files: path of the module, text.
    pub(crate) fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree { name: "house".to_owned(), modules: BTreeMap::new() };
        for (path, text) in files {
            let path: ModulePath =
                path.split("::").filter(|segment| !segment.is_empty()).map(Into::into).collect();
            let file = if path.is_empty() {
                "lib.rs".into()
            } else {
                PathBuf::from(path.join("/")).with_extension("rs")
            };
            tree.insert(path, file, text);
        }
        tree
    }

    fn shown(tree: &Tree) -> Vec<String> {
        tree.arrows()
            .iter()
            .map(|arrow| format!("{} > {}", tree.file(&arrow.from), tree.file(&arrow.to)))
            .collect()
    }

    #[test]
    fn an_arrow_leads_to_the_file_that_has_the_name() {
        let tree = tree(&[
            ("", "mod a; mod b; pub use a::deep::Thing;"),
            ("a", "mod deep; pub use deep::Thing as Renamed;"),
            ("a::deep", "pub struct Thing; fn f() { super::super::b::g() }"),
            ("b", "use crate::a::Renamed; pub fn g(_: crate::Thing) { std::mem::drop(1) }"),
        ]);
        assert_eq!(shown(&tree), ["a/deep.rs > b.rs", "b.rs > a/deep.rs", "b.rs > a/deep.rs"]);
    }

    #[test]
    fn a_module_that_uses_its_child_has_an_arrow_to_it_and_one_that_offers_it_has_none() {
        let offers = tree(&[("", "mod a;"), ("a", "mod b; pub(crate) use b::C;"), ("a::b", "pub struct C;")]);
        assert!(shown(&offers).is_empty());
        let uses = tree(&[("", "mod a;"), ("a", "mod b; fn f() { b::c() }"), ("a::b", "use super::D;")]);
        assert_eq!(shown(&uses), ["a.rs > a/b.rs", "a/b.rs > a.rs"]);
    }

    #[test]
    fn a_program_names_its_library_by_the_name_of_the_crate() {
        let tree = tree(&[("", "pub mod a;"), ("a", ""), ("main", "use house::a; fn main() { a::run() }")]);
        assert_eq!(shown(&tree), ["main.rs > a.rs"]);
    }
}
