//! What one source file imports, found without a parser of Rust: `mod` items, `use` items, and every other path that
//! begins in the crate. Comments, literals and items of `#[cfg(test)]` count for nothing.

/// What a file says about modules.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// `mod name;`, but those of tests.
    pub(crate) children: Vec<String>,
    pub(crate) uses: Vec<Use>,
    /// Paths outside of `use`, such as `crate::hub::Hub::new`.
    pub(crate) paths: Vec<Named>,
}

/// A path as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

/// One name that a `use` brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) path: Named,
    /// The name here; none for `*`.
    pub(crate) name: Option<String>,
    pub(crate) public: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Word(String),
    Symbol(char),
}

#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    line: usize,
}

pub(crate) fn scan(source: &str) -> Scan {
    let tokens = without_tests(&tokens(source));
    let mut scan = Scan::default();
    let mut at = 0;
    while at < tokens.len() {
        let next = match word(&tokens, at) {
            Some("mod") if symbol(&tokens, at + 2) == Some(';') => {
                scan.children.extend(word(&tokens, at + 1).map(str::to_owned));
                at + 2
            }
            // `use<'a>` is a bound.
            Some("use") if symbol(&tokens, at + 1) != Some('<') => {
                let public =
                    at > 0 && (word(&tokens, at - 1) == Some("pub") || symbol(&tokens, at - 1) == Some(')'));
                use_tree(&tokens, at + 1, &[], public, &mut scan.uses)
            }
            Some(_) if !continues(&tokens, at) => {
                let (path, next) = path(&tokens, at);
                if path.segments.len() > 1 {
                    scan.paths.push(path);
                }
                next
            }
            _ => at + 1,
        };
        at = next.max(at + 1);
    }
    scan
}

fn word(tokens: &[Token], at: usize) -> Option<&str> {
    match &tokens.get(at)?.kind {
        Kind::Word(word) => Some(word),
        Kind::Symbol(_) => None,
    }
}

fn symbol(tokens: &[Token], at: usize) -> Option<char> {
    match tokens.get(at)?.kind {
        Kind::Symbol(symbol) => Some(symbol),
        Kind::Word(_) => None,
    }
}

fn is_separator(tokens: &[Token], at: usize) -> bool {
    symbol(tokens, at) == Some(':') && symbol(tokens, at + 1) == Some(':')
}

/// Whether the word is a field, a method, or not the first of its path.
fn continues(tokens: &[Token], at: usize) -> bool {
    at > 0 && (symbol(tokens, at - 1) == Some('.') || at > 1 && is_separator(tokens, at - 2))
}

/// The path that begins here, and the place after it.
fn path(tokens: &[Token], begin: usize) -> (Named, usize) {
    let mut segments = Vec::new();
    let mut at = begin;
    while let Some(segment) = word(tokens, at) {
        segments.push(segment.to_owned());
        at += 1;
        if !is_separator(tokens, at) || word(tokens, at + 2).is_none() {
            break;
        }
        at += 2;
    }
    (Named { segments, line: tokens.get(begin).map_or(0, |token| token.line) }, at)
}

/// Reads one tree of a `use`, and returns the place after it.
fn use_tree(tokens: &[Token], begin: usize, prefix: &[String], public: bool, uses: &mut Vec<Use>) -> usize {
    let mut at = begin;
    let external = is_separator(tokens, at);
    if external {
        at += 2;
    }
    let (named, mut at) = path(tokens, at);
    let mut segments = prefix.to_vec();
    if external {
        segments.push(EXTERNAL.to_owned());
    }
    segments.extend(named.segments);
    let line = named.line;
    if is_separator(tokens, at) {
        at += 2;
    }
    if symbol(tokens, at) == Some('{') {
        at += 1;
        while symbol(tokens, at) != Some('}') && at < tokens.len() {
            at = use_tree(tokens, at, &segments, public, uses).max(at + 1);
            if symbol(tokens, at) == Some(',') {
                at += 1;
            }
        }
        return at + 1;
    }
    if symbol(tokens, at) == Some('*') {
        uses.push(Use { path: Named { segments, line }, name: None, public });
        return at + 1;
    }
    // `a::{self}` names `a`.
    if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
        segments.pop();
    }
    let mut name = segments.last().cloned();
    if word(tokens, at) == Some("as") {
        name = word(tokens, at + 1).map(str::to_owned);
        at += 2;
    }
    uses.push(Use { path: Named { segments, line }, name, public });
    at
}

/// The first segment of a path that begins with `::`.
pub(crate) const EXTERNAL: &str = "::";

/// Cuts out each item that follows `#[cfg(test)]`.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if is_test_attribute(tokens, at) {
            at = after_item(tokens, at);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

fn is_test_attribute(tokens: &[Token], at: usize) -> bool {
    symbol(tokens, at) == Some('#')
        && symbol(tokens, at + 1) == Some('[')
        && word(tokens, at + 2) == Some("cfg")
        && symbol(tokens, at + 3) == Some('(')
        && word(tokens, at + 4) == Some("test")
        && symbol(tokens, at + 5) == Some(')')
}

/// Items that end with `;` whatever braces they contain.
const STATEMENTS: [&str; 5] = ["use", "const", "static", "type", "let"];

fn after_item(tokens: &[Token], begin: usize) -> usize {
    let mut at = begin;
    while symbol(tokens, at) == Some('#') {
        at = after_group(tokens, at + 1);
    }
    let mut statement = false;
    while at < tokens.len() {
        match &tokens[at].kind {
            Kind::Word(word) if STATEMENTS.contains(&word.as_str()) => statement = true,
            // `const fn` has a body.
            Kind::Word(word) if word == "fn" => statement = false,
            Kind::Symbol(';') => return at + 1,
            Kind::Symbol('{') if !statement => return after_group(tokens, at),
            Kind::Symbol('{' | '(' | '[') => {
                at = after_group(tokens, at);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    at
}

/// The place after the bracket that closes the one here.
fn after_group(tokens: &[Token], begin: usize) -> usize {
    let mut depth = 0_usize;
    for at in begin..tokens.len() {
        match symbol(tokens, at) {
            Some('{' | '(' | '[') => depth += 1,
            Some('}' | ')' | ']') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// Words and symbols, without comments, literals and lifetimes.
fn tokens(source: &str) -> Vec<Token> {
    let text: Vec<char> = source.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < text.len() {
        let end = match text[at] {
            '/' if text.get(at + 1) == Some(&'/') => find(&text, at, |at| text[at] == '\n'),
            '/' if text.get(at + 1) == Some(&'*') => block_comment(&text, at),
            '"' => string(&text, at),
            '\'' => character(&text, at),
            first if first.is_alphanumeric() || first == '_' => {
                let end = find(&text, at, |at| !text[at].is_alphanumeric() && text[at] != '_');
                let word: String = text[at..end].iter().collect();
                match literal(&text, &word, end) {
                    Some(end) => end,
                    None => {
                        tokens.push(Token { kind: Kind::Word(word), line });
                        end
                    }
                }
            }
            symbol => {
                if !symbol.is_whitespace() {
                    tokens.push(Token { kind: Kind::Symbol(symbol), line });
                }
                at + 1
            }
        };
        line += text[at..end].iter().filter(|character| **character == '\n').count();
        at = end;
    }
    tokens
}

fn find(text: &[char], from: usize, found: impl Fn(usize) -> bool) -> usize {
    (from..text.len()).find(|at| found(*at)).unwrap_or(text.len())
}

fn block_comment(text: &[char], begin: usize) -> usize {
    let (mut at, mut depth) = (begin, 0_usize);
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            ('/', Some('*')) => (at, depth) = (at + 2, depth + 1),
            ('*', Some('/')) if depth == 1 => return at + 2,
            ('*', Some('/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at
}

/// The end of a string that begins with this quotation mark.
fn string(text: &[char], begin: usize) -> usize {
    let mut at = begin + 1;
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// The end of a character, or of the tick of a lifetime.
fn character(text: &[char], begin: usize) -> usize {
    match (text.get(begin + 1), text.get(begin + 2)) {
        (Some('\\'), _) => (find(text, begin + 3, |at| text[at] == '\'') + 1).min(text.len()),
        (_, Some('\'')) => begin + 3,
        _ => begin + 1,
    }
}

/// The end of a literal whose prefix is this word: `r"…"`, `br#"…"#`, `b'…'`.
fn literal(text: &[char], prefix: &str, end: usize) -> Option<usize> {
    if !matches!(prefix, "r" | "b" | "c" | "br" | "cr") {
        return None;
    }
    let quote = find(text, end, |at| text[at] != '#');
    let hashes = quote - end;
    match text.get(quote)? {
        '\'' if prefix == "b" => Some(character(text, quote)),
        '"' if prefix.ends_with('r') => {
            let closes =
                |at: usize| text[at] == '"' && (1..=hashes).all(|after| text.get(at + after) == Some(&'#'));
            Some((find(text, quote + 1, closes) + 1 + hashes).min(text.len()))
        }
        '"' => Some(string(text, quote)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &str) -> Vec<String> {
        scan(source).paths.iter().map(|path| path.segments.join("::")).collect()
    }

    fn uses(source: &str) -> Vec<String> {
        let shown = |used: &Use| {
            let public = if used.public { "pub " } else { "" };
            let name = used.name.as_deref().unwrap_or("*");
            format!("{public}{} = {name}", used.path.segments.join("::"))
        };
        scan(source).uses.iter().map(shown).collect()
    }

    #[test]
    fn a_use_brings_each_of_its_names() {
        assert_eq!(uses("use crate::hub::Hub;"), ["crate::hub::Hub = Hub"]);
        assert_eq!(
            uses("pub(crate) use crate::{a::{self, B as C}, d::*,};\nuse ::tokio::net;\npub use e::F;"),
            [
                "pub crate::a = a",
                "pub crate::a::B = C",
                "pub crate::d = *",
                "::::tokio::net = net",
                "pub e::F = F"
            ],
        );
        assert_eq!(scan("\n\nuse super::{\n    a,\n    b};").uses[1].path.line, 5);
        assert!(uses("fn f<'a>() -> impl Sized + use<'a> { g() }").is_empty());
    }

    #[test]
    fn a_path_in_an_expression_is_seen() {
        assert_eq!(
            paths("fn f(x: &crate::hub::Hub) { super::g::<u8>(self::h::I); x.y }"),
            ["crate::hub::Hub", "super::g", "self::h::I"]
        );
        assert_eq!(paths("$crate::id::new()"), ["crate::id::new"]);
    }

    #[test]
    fn comments_and_literals_name_nothing() {
        let source = r####"
            //! [`crate::a`]
            /* crate::b /* nested */ crate::c */
            const A: &str = "crate::d \" crate::e";
            const B: &str = r#"crate::f " crate::g"#;
            const C: [char; 3] = ['"', '\'', '\u{1F600}'];
            const D: u8 = b'"';
            fn f<'a>(x: &'a str) -> &'a str { crate::seen(x) }
        "####;
        assert_eq!(paths(source), ["crate::seen"]);
    }

    #[test]
    fn what_is_for_tests_only_does_not_count() {
        let source = "
            mod a;
            #[cfg(test)]
            mod tests;
            #[cfg(test)]
            use crate::{b, c};
            #[cfg(test)]
            #[allow(dead_code, reason = \"x\")]
            pub(crate) fn helper(x: [u8; 3]) -> crate::d::E { crate::f::g() }
            #[cfg(test)]
            const H: crate::i::J = crate::i::J { k: 1 };
            #[cfg(test)]
            mod more { use crate::l; }
            use crate::m;
        ";
        let scan = scan(source);
        assert_eq!(scan.children, ["a"]);
        assert_eq!(uses(source), ["crate::m = m"]);
        assert!(scan.paths.is_empty(), "{:?}", scan.paths);
    }
}
