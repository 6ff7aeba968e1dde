//! The rules for the texts that users write: bodies, emoji, titles, names, device labels.

mod display;

use self::display::{breaks_line, is_balanced, is_visible};
pub use crate::emoji::{MAX_EMOJI_BYTES, emoji};
use crate::event::Mention;

/// The most bytes of UTF-8 in a message's body: a page of text; longer things are files.
pub const MAX_BODY_BYTES: usize = 16_384;
/// The most mentions in one message: a bound on the event, well above any use.
pub const MAX_MENTIONS: usize = 100;
/// The most characters of a title or display name: one line on a phone.
pub const MAX_NAME_CHARS: usize = 128;
/// The most characters of the kind in a device label: one word.
const MAX_DEVICE_KIND_CHARS: usize = 16;
/// The most characters of the id in a device label: room for a uuid or a hash in hexadecimal digits.
const MAX_DEVICE_ID_CHARS: usize = 64;

/// Checks a body and makes it storable: U+0000, which Postgres cannot hold, becomes U+FFFD. `None`: too long, or blank:
/// a body of invisible characters alone shows nothing.
pub fn body(text: &str) -> Option<String> {
    if text.len() > MAX_BODY_BYTES {
        return None;
    }
    let stored = text.replace('\0', "\u{FFFD}");
    (stored.len() <= MAX_BODY_BYTES && stored.chars().any(is_visible)).then_some(stored)
}

/// A title or display name: one trimmed line, not blank, without control characters, bounded. It ends in the direction
/// of writing in which it began, so that it cannot turn the text around it.
pub fn name(text: &str) -> Option<String> {
    let trimmed = text.trim();
    let fits = trimmed.chars().count() <= MAX_NAME_CHARS
        && trimmed.chars().any(is_visible)
        && !trimmed.chars().any(breaks_line)
        && is_balanced(trimmed);
    fits.then(|| trimmed.to_owned())
}

/// Whether every mention lies inside the body (UTF-16 units), none is empty, and none cuts a character in two.
pub fn mentions_fit(body: &str, mentions: &[Mention]) -> bool {
    if mentions.len() > MAX_MENTIONS || mentions.iter().any(|mention| mention.length == 0) {
        return false;
    }
    let ends = |m: &Mention| [u64::from(m.start), u64::from(m.start) + u64::from(m.length)];
    let mut wanted: Vec<u64> = mentions.iter().flat_map(ends).collect();
    wanted.sort_unstable();
    let mut wanted = wanted.into_iter().peekable();
    let mut boundary = 0;
    for units in body.chars().map(char::len_utf16).chain([0]) {
        while wanted.next_if_eq(&boundary).is_some() {}
        boundary += units as u64;
    }
    wanted.peek().is_none()
}

/// Whether the text is a device label: `[a-z]{1,16}(:[A-Za-z0-9_-]{1,64})?`.
pub fn is_device(text: &str) -> bool {
    let (kind, id) = text.split_once(':').map_or((text, None), |(kind, id)| (kind, Some(id)));
    let kind_fits =
        (1..=MAX_DEVICE_KIND_CHARS).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_lowercase());
    let fits = |id: &str| {
        (1..=MAX_DEVICE_ID_CHARS).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    kind_fits && id.is_none_or(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        assert_eq!(body("Hi"), Some("Hi".to_owned()));
        assert_eq!(body("  kept  verbatim "), Some("  kept  verbatim ".to_owned()));
        assert_eq!(body("a\0b"), Some("a\u{FFFD}b".to_owned()));
        assert_eq!(body(" \n\t "), None);
        assert_eq!(body("\u{200B}\u{2060} \u{3164}\u{2800}\u{FEFF}"), None);
        assert_eq!(body("\u{202E}\u{200F}"), None);
        assert_eq!(body("\0"), Some("\u{FFFD}".to_owned()));
        assert_eq!(body("\u{200B}a"), Some("\u{200B}a".to_owned()));
        assert!(body(&"x".repeat(MAX_BODY_BYTES)).is_some());
        assert_eq!(body(&"x".repeat(MAX_BODY_BYTES + 1)), None);
    }

    #[test]
    fn names_are_one_visible_line_that_turns_nothing_around() {
        let shown = "\u{202B}שלום\u{202C}";
        for good in [
            "Ada",
            " Ada ",
            "א\u{200F}ב",
            "👩\u{200D}👩\u{200D}👧",
            "می\u{200C}خواهم",
            shown,
            "\u{2067}a\u{2069}",
        ] {
            assert_eq!(name(good), Some(good.trim().to_owned()), "{good:?}");
        }
        let bad = [
            "",
            "  ",
            "\u{200B}",
            "\u{3164}",
            "\u{2800}\u{2800}",
            "\u{115F}\u{E0020}",
            "a\nb",
            "a\u{2028}b",
            "a\0b",
            "\u{202E}evil",
            "a\u{202B}b",
            "\u{2067}a",
            "a\u{2069}",
            "a\u{202C}",
            "\u{2067}a\u{202C}",
            "\u{202B}a\u{2069}",
        ];
        for bad in bad {
            assert_eq!(name(bad), None, "{bad:?}");
        }
        assert!(name(&"ä".repeat(MAX_NAME_CHARS)).is_some());
        assert_eq!(name(&"a".repeat(MAX_NAME_CHARS + 1)), None);
    }

    #[test]
    fn device_labels() {
        for good in ["web", "web:3f2a", "a:A_-9"] {
            assert!(is_device(good), "{good}");
        }
        for bad in ["", "Web", "web:", ":x", "web:a:b", "web:ä", "abcdefghijklmnopq"] {
            assert!(!is_device(bad), "{bad:?}");
        }
    }

    #[test]
    fn mentions_count_utf16_units() {
        let user_id = crate::id::UserId::new(1).unwrap();
        let mention = |start, length| [Mention { user_id, start, length }];
        assert!(mentions_fit("😀a", &mention(2, 1)));
        assert!(!mentions_fit("😀a", &mention(3, 1)));
        assert!(!mentions_fit("abc", &mention(0, 0)));
        assert!(mentions_fit("abc", &mention(0, 3)));
        assert!(!mentions_fit("abc", &mention(4, 1)));
        assert!(!mentions_fit("abc", &mention(u32::MAX, u32::MAX)));
        assert!(mentions_fit("😀ab", &mention(0, 2)));
    }

    #[test]
    fn a_mention_cuts_no_character() {
        let user_id = crate::id::UserId::new(1).unwrap();
        let fits = |start, length| mentions_fit("😀ab", &[Mention { user_id, start, length }]);
        assert!(!fits(1, 2), "begins inside the emoji");
        assert!(!fits(0, 1), "ends inside the emoji");
        assert!(fits(2, 2));
    }
}
