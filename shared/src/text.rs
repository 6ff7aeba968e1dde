//! The rules for the texts that users write: bodies, emoji, titles, names, device labels.

use crate::event::Mention;

/// The most bytes of UTF-8 in a message's body: a page of text; longer things are files.
pub const MAX_BODY_BYTES: usize = 16_384;
/// The most bytes of an emoji: the longest family sequences take 35.
pub const MAX_EMOJI_BYTES: usize = 64;
/// The most mentions in one message: a bound on the event, well above any use.
pub const MAX_MENTIONS: usize = 100;
/// The most characters of a title or display name: one line on a phone.
pub const MAX_NAME_CHARS: usize = 128;
/// The most characters of the kind in a device label: one word.
const MAX_DEVICE_KIND_CHARS: usize = 16;
/// The most characters of the id in a device label: room for a uuid or a hash in hexadecimal digits.
const MAX_DEVICE_ID_CHARS: usize = 64;

/// Checks a body and makes it storable: U+0000, which Postgres cannot hold, becomes U+FFFD. `None`: blank or
/// too long.
pub fn body(text: &str) -> Option<String> {
    if text.trim().is_empty() || text.len() > MAX_BODY_BYTES {
        return None;
    }
    let stored = text.replace('\0', "\u{FFFD}");
    (stored.len() <= MAX_BODY_BYTES).then_some(stored)
}

/// Whether the text is exactly one emoji grapheme.
pub fn is_emoji(text: &str) -> bool {
    text.len() <= MAX_EMOJI_BYTES && emojis::get(text).is_some()
}

/// A title or display name: trimmed, not blank, no control characters, bounded.
pub fn name(text: &str) -> Option<String> {
    let trimmed = text.trim();
    let fits = !trimmed.is_empty() && trimmed.chars().count() <= MAX_NAME_CHARS;
    (fits && !trimmed.chars().any(char::is_control)).then(|| trimmed.to_owned())
}

/// Whether every mention lies inside the body (UTF-16 units) and none is empty.
pub fn mentions_fit(body: &str, mentions: &[Mention]) -> bool {
    let units = body.encode_utf16().count() as u64;
    mentions.len() <= MAX_MENTIONS
        && mentions.iter().all(|m| m.length > 0 && u64::from(m.start) + u64::from(m.length) <= units)
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
        assert!(body(&"x".repeat(MAX_BODY_BYTES)).is_some());
        assert_eq!(body(&"x".repeat(MAX_BODY_BYTES + 1)), None);
    }

    #[test]
    fn emoji_are_one_grapheme() {
        for good in ["👍", "❤️", "👩‍👩‍👧‍👦", "🇩🇪", "👍🏽"] {
            assert!(is_emoji(good), "{good}");
        }
        for bad in ["", "a", "👍👍", "👍 ", "1"] {
            assert!(!is_emoji(bad), "{bad:?}");
        }
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
    }
}
