//! The one form of an emoji. Below the events, because events of earlier builds are read in it.

/// The most bytes of an emoji: the longest family sequences take 35.
pub const MAX_EMOJI_BYTES: usize = 64;

/// The canonical form of a text that is exactly one emoji grapheme: the fully qualified sequence of Unicode's emoji data.
/// Keyboards differ in where they put U+FE0F, so that the same heart comes as U+2764 or as U+2764 U+FE0F.
pub fn emoji(text: &str) -> Option<&'static str> {
    let emoji = (text.len() <= MAX_EMOJI_BYTES).then(|| emojis::get(text))??;
    Some(emoji.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emoji_are_one_grapheme() {
        for good in ["👍", "❤️", "👩‍👩‍👧‍👦", "🇩🇪", "👍🏽"] {
            assert_eq!(emoji(good), Some(good));
        }
        for bad in ["", "a", "👍👍", "👍 ", "1", "\u{FE0F}"] {
            assert_eq!(emoji(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_emoji_has_one_form_however_it_was_typed() {
        assert_eq!(emoji("\u{2764}"), Some("\u{2764}\u{FE0F}"));
        assert_eq!(emoji("\u{1F3F3}\u{200D}\u{1F308}"), Some("\u{1F3F3}\u{FE0F}\u{200D}\u{1F308}"));
        for known in emojis::iter() {
            assert_eq!(emoji(known.as_str()), Some(known.as_str()));
            let bare: String = known.as_str().chars().filter(|c| *c != '\u{FE0F}').collect();
            assert_eq!(emoji(&bare), Some(known.as_str()), "{bare:?}");
        }
    }
}
