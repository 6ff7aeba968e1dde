//! The rooms of each crate, from the top down, as ARCHITECTURE.md shows them: fenced blocks whose first line is
//! "rooms" and the crate's name. A line holds one room or several, separated by commas, then a colon and what they are.

/// The rooms of one crate, highest first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rooms {
    pub(crate) of: String,
    pub(crate) order: Vec<String>,
}

/// All blocks of a document.
///
/// # Errors
/// In words: a line without a description, a room that stands twice, a block without an end.
pub(crate) fn parse(document: &str) -> Result<Vec<Rooms>, String> {
    let mut all = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(of) = line.strip_prefix("```rooms ") else { continue };
        let mut order: Vec<String> = Vec::new();
        loop {
            let line = lines.next().ok_or_else(|| format!("the rooms of {of} have no end"))?;
            if line == "```" {
                break;
            }
            let (names, what) = line
                .split_once(": ")
                .ok_or_else(|| format!("rooms of {of}: \"{line}\" says not what it is"))?;
            if what.trim().is_empty() {
                return Err(format!("rooms of {of}: \"{line}\" says not what it is"));
            }
            for name in names.split(',').map(str::trim) {
                if order.iter().any(|other| other == name) {
                    return Err(format!("rooms of {of}: {name} stands twice"));
                }
                order.push(name.to_owned());
            }
        }
        all.push(Rooms { of: of.trim().to_owned(), order });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_stand_in_their_order() {
        let text = "# A\n```rooms one\nmain: starts\nb, a: two of a kind\n```\n```\nx: y\n```\n```rooms two\nc: d\n```\n";
        let rooms = parse(text).expect("two blocks");
        assert_eq!(rooms.len(), 2);
        assert_eq!(rooms[0], Rooms { of: "one".into(), order: vec!["main".into(), "b".into(), "a".into()] });
        assert_eq!(rooms[1], Rooms { of: "two".into(), order: vec!["c".into()] });
    }

    #[test]
    fn a_block_that_cannot_be_read_is_refused() {
        for text in [
            "```rooms a\nb: c\n",
            "```rooms a\nb\n```\n",
            "```rooms a\nb: \n```\n",
            "```rooms a\nb, c: d\nb: e\n```\n",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
