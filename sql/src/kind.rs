//! The kinds of events, as statements name them.
//!
//! Statements are put together at compile time and can't call a function, so the lists below are literals. The
//! compiler compares them with the functions, which match every [`Kind`]: a new kind does not compile before somebody
//! has decided to which of the lists it belongs.

use shared::event::Kind;

/// The kinds that send a message: those are numbered, and history shows them.
macro_rules! messages {
    () => {
        "2"
    };
}

/// The kinds whose payload carries a text that the deletion of the message takes away.
macro_rules! texts {
    () => {
        "2, 3"
    };
}

/// The kinds that delete a message.
macro_rules! deletions {
    () => {
        "4"
    };
}

/// The kinds that say a chat's title or settings.
macro_rules! settings {
    () => {
        "1, 9, 10"
    };
}
/// The code of a stale event, which is no copy of its command: [`shared::fold::STALE`].
macro_rules! stale {
    () => {
        "'log.unavailable'"
    };
}
pub(crate) use {deletions, messages, settings, stale, texts};

/// Whether an event of this kind is a message: the fold numbers it, statements count it.
pub const fn sends_a_message(kind: Kind) -> bool {
    match kind {
        Kind::MessageSent => true,
        Kind::Noop
        | Kind::ChatCreated
        | Kind::MessageEdited
        | Kind::MessageDeleted
        | Kind::Reacted
        | Kind::MembersJoined
        | Kind::MemberLeft
        | Kind::RoleChanged
        | Kind::TitleChanged
        | Kind::SettingsChanged => false,
    }
}

const fn carries_text(kind: Kind) -> bool {
    match kind {
        Kind::MessageSent | Kind::MessageEdited => true,
        Kind::Noop
        | Kind::ChatCreated
        | Kind::MessageDeleted
        | Kind::Reacted
        | Kind::MembersJoined
        | Kind::MemberLeft
        | Kind::RoleChanged
        | Kind::TitleChanged
        | Kind::SettingsChanged => false,
    }
}

const fn deletes(kind: Kind) -> bool {
    match kind {
        Kind::MessageDeleted => true,
        Kind::Noop
        | Kind::ChatCreated
        | Kind::MessageSent
        | Kind::MessageEdited
        | Kind::Reacted
        | Kind::MembersJoined
        | Kind::MemberLeft
        | Kind::RoleChanged
        | Kind::TitleChanged
        | Kind::SettingsChanged => false,
    }
}

const fn sets_the_chat(kind: Kind) -> bool {
    match kind {
        Kind::ChatCreated | Kind::TitleChanged | Kind::SettingsChanged => true,
        Kind::Noop
        | Kind::MessageSent
        | Kind::MessageEdited
        | Kind::MessageDeleted
        | Kind::Reacted
        | Kind::MembersJoined
        | Kind::MemberLeft
        | Kind::RoleChanged => false,
    }
}

const _: () = {
    let mut at = 0;
    while at < Kind::ALL.len() {
        let kind = Kind::ALL[at];
        assert!(lists(messages!(), kind.number()) == sends_a_message(kind));
        assert!(lists(texts!(), kind.number()) == carries_text(kind));
        assert!(lists(deletions!(), kind.number()) == deletes(kind));
        assert!(lists(settings!(), kind.number()) == sets_the_chat(kind));
        at += 1;
    }
};

/// Whether a list such as `1, 9, 10` names the number.
const fn lists(text: &str, number: u8) -> bool {
    let bytes = text.as_bytes();
    let (mut at, mut read, mut found) = (0, 0, false);
    while at < bytes.len() {
        match bytes[at] {
            b',' => {
                found |= read == number;
                read = 0;
            }
            b' ' => {}
            digit => read = read * 10 + (digit - b'0'),
        }
        at += 1;
    }
    found || read == number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_event_is_known_by_its_code() {
        assert_eq!(stale!(), format!("'{}'", shared::fold::STALE.as_str()));
    }

    #[test]
    fn lists_name_whole_numbers() {
        for number in [1, 9, 10] {
            assert!(lists("1, 9, 10", number), "{number}");
        }
        for number in [0, 2, 90, 100] {
            assert!(!lists("1, 9, 10", number), "{number}");
        }
    }
}
