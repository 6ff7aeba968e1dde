//! What a text looks like: whether it shows anything, stays on its line, and leaves the direction of writing as it was.
//!
//! The properties of characters are Unicode's.

use icu_properties::{
    CodePointSetData,
    props::{DefaultIgnorableCodePoint, WhiteSpace},
};

/// An empty Braille cell: a symbol by its category, and yet a blank.
const BRAILLE_BLANK: char = '\u{2800}';
/// An unbalanced nesting deeper than this is none that a person wrote; Unicode's own bound is 125.
const MAX_DEPTH: usize = 32;

/// Whether a character leaves ink: it is no space, no control, and nothing that renderers skip.
pub(super) fn is_visible(c: char) -> bool {
    // Nearly all texts begin with a letter of these.
    if c.is_ascii() {
        return c.is_ascii_graphic();
    }
    let skipped = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let space = CodePointSetData::new::<WhiteSpace>();
    !(c == BRAILLE_BLANK || c.is_control() || skipped.contains(c) || space.contains(c) || is_direction(c))
}

/// Whether a character is a control, or begins a new line or paragraph.
pub(super) fn breaks_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The controls of the direction of writing, which show nothing.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Whether every embedding, override and isolate is closed by its own end, in the order of nesting, and nothing else is
/// closed.
pub(super) fn is_balanced(text: &str) -> bool {
    const POP_EMBEDDING: char = '\u{202C}';
    const POP_ISOLATE: char = '\u{2069}';
    let mut open = Vec::new();
    for c in text.chars() {
        match c {
            '\u{202A}' | '\u{202B}' | '\u{202D}' | '\u{202E}' => open.push(POP_EMBEDDING),
            '\u{2066}' | '\u{2067}' | '\u{2068}' => open.push(POP_ISOLATE),
            POP_EMBEDDING | POP_ISOLATE if open.pop() != Some(c) => return false,
            _ => {}
        }
        if open.len() > MAX_DEPTH {
            return false;
        }
    }
    open.is_empty()
}
