//! Names of streams and subjects: the one place where they are built and parsed, always from typed ids.
//!
//! A prefix isolates installations (and tests) that share a NATS server. Invariant: whatever [`Layout`] builds, it
//! parses back, and text from a client never reaches a subject.

use std::{fmt, sync::Arc};

use shared::id::{ChatId, UserId};

/// How many partitions new chats are spread over, from which chat id on. Append-only: a line that was once released
/// decides for ever where its chats live.
const PARTITIONINGS: &[(u64, u16)] = &[(1, 1)];

/// One of the logs that chats are spread over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(u16);

impl Partition {
    /// The first partition, and the only one while `PARTITIONINGS` has one line.
    pub const FIRST: Self = Self(0);

    /// The number, as it stands in subjects and in Postgres.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// As Postgres stores it.
    pub fn as_i16(self) -> i16 {
        i16::try_from(self.0).unwrap_or(i16::MAX)
    }

    /// Where a chat lives: it never moves.
    pub fn of(chat: ChatId) -> Self {
        partition_of(PARTITIONINGS, chat)
    }

    /// Every partition that holds or may get chats.
    pub fn all() -> impl Iterator<Item = Self> {
        let count = PARTITIONINGS.iter().map(|(_, count)| *count).max().unwrap_or(1);
        (0..count).map(Self)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn partition_of(partitionings: &[(u64, u16)], chat: ChatId) -> Partition {
    let line = partitionings.iter().rev().find(|(from, _)| *from <= chat.get());
    let count = line.map_or(1, |(_, count)| u64::from(*count).max(1));
    // The remainder is below a u16.
    Partition((chat.get() % count) as u16)
}

/// The prefix holds something else than `[a-z0-9_]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no prefix: only a-z, 0-9 and _ are allowed")]
pub struct InvalidPrefix(pub String);

/// The names of one installation.
#[derive(Debug, Clone)]
pub struct Layout {
    prefix: Arc<str>,
}

impl Layout {
    /// # Errors
    /// [`InvalidPrefix`] if the prefix is not `[a-z0-9_]*`.
    pub fn new(prefix: &str) -> Result<Self, InvalidPrefix> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if prefix.chars().all(allowed) {
            Ok(Self { prefix: prefix.into() })
        } else {
            Err(InvalidPrefix(prefix.to_owned()))
        }
    }

    /// The log of a partition: `CHAT_0`.
    pub fn chat_stream(&self, partition: Partition) -> String {
        format!("{}CHAT_{partition}", self.upper())
    }

    /// All subjects of a partition: `chat.0.*`.
    pub fn chat_filter(&self, partition: Partition) -> String {
        format!("{}chat.{partition}.*", self.prefix)
    }

    /// One exact subject per chat, the kind is in the payload: `chat.0.42`.
    pub fn chat_subject(&self, partition: Partition, chat: ChatId) -> String {
        format!("{}chat.{partition}.{chat}", self.prefix)
    }

    /// The subject of no chat, for appends that only prove that the log takes writes: `chat.0.0`.
    pub fn noop_subject(&self, partition: Partition) -> String {
        format!("{}chat.{partition}.0", self.prefix)
    }

    /// The inverse of [`Layout::chat_subject`]; no chat for [`Layout::noop_subject`].
    pub fn parse_chat(&self, subject: &str) -> Option<(Partition, Option<ChatId>)> {
        let rest = subject.strip_prefix(&*self.prefix)?.strip_prefix("chat.")?;
        let (partition, chat) = rest.split_once('.')?;
        let partition = Partition(decimal(partition.as_bytes())?.try_into().ok()?);
        match decimal(chat.as_bytes())? {
            0 => Some((partition, None)),
            chat => Some((partition, Some(ChatId::new(chat).ok()?))),
        }
    }

    /// The transport of read marks.
    pub fn read_stream(&self) -> String {
        format!("{}READ", self.upper())
    }

    /// All subjects of the read stream: `read.*`.
    pub fn read_filter(&self) -> String {
        format!("{}read.*", self.prefix)
    }

    /// Where a user's read marks go: `read.7`.
    pub fn read_subject(&self, user: UserId) -> String {
        format!("{}read.{user}", self.prefix)
    }

    /// The inverse of [`Layout::read_subject`].
    pub fn parse_read(&self, subject: &str) -> Option<UserId> {
        let user = subject.strip_prefix(&*self.prefix)?.strip_prefix("read.")?;
        UserId::new(decimal(user.as_bytes())?).ok()
    }

    /// Where signals of a kind go: `sig.watermark`.
    pub fn signal_subject(&self, name: &'static str) -> String {
        format!("{}sig.{name}", self.prefix)
    }

    fn upper(&self) -> String {
        self.prefix.to_ascii_uppercase()
    }
}

/// A plain decimal number as this module writes it: digits only, no leading zero.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(id: u64) -> ChatId {
        ChatId::new(id).unwrap()
    }

    #[test]
    fn names_carry_the_prefix() {
        let layout = Layout::new("t1_").unwrap();
        assert_eq!(layout.chat_stream(Partition::FIRST), "T1_CHAT_0");
        assert_eq!(layout.chat_subject(Partition::FIRST, chat(42)), "t1_chat.0.42");
        assert_eq!(layout.noop_subject(Partition::FIRST), "t1_chat.0.0");
        assert_eq!(layout.read_stream(), "T1_READ");
        assert_eq!(layout.read_subject(UserId::new(7).unwrap()), "t1_read.7");
        assert_eq!(Layout::new("").unwrap().chat_stream(Partition::FIRST), "CHAT_0");
    }

    #[test]
    fn prefixes_hold_no_syntax() {
        for bad in ["T", "a.b", "a*", "a ", ">", "a-b", "ä"] {
            assert!(Layout::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_built_parses_back() {
        for prefix in ["", "t1_"] {
            let layout = Layout::new(prefix).unwrap();
            for id in [1, 42, shared::id::MAX_ID] {
                let parsed = layout.parse_chat(&layout.chat_subject(Partition(3), chat(id)));
                assert_eq!(parsed, Some((Partition(3), Some(chat(id)))));
                let user = UserId::new(id).unwrap();
                assert_eq!(layout.parse_read(&layout.read_subject(user)), Some(user));
            }
            assert_eq!(layout.parse_chat(&layout.noop_subject(Partition(1))), Some((Partition(1), None)));
        }
    }

    #[test]
    fn foreign_subjects_are_refused() {
        let layout = Layout::new("t1_").unwrap();
        for subject in
            ["chat.0.1", "t1_chat.0", "t1_chat.0.x", "t1_chat.0.01", "t1_chat.0.1.2", "t1_chat.70000.1", ""]
        {
            assert_eq!(layout.parse_chat(subject), None, "{subject}");
        }
        assert_eq!(layout.parse_read("t1_read.0"), None);
    }

    #[test]
    fn a_chat_never_moves_when_partitions_are_added() {
        let before: &[(u64, u16)] = &[(1, 1)];
        let after: &[(u64, u16)] = &[(1, 1), (1000, 4)];
        for id in 1..1000 {
            assert_eq!(partition_of(before, chat(id)), partition_of(after, chat(id)));
        }
        let spread: std::collections::HashSet<_> =
            (1000..1010).map(|id| partition_of(after, chat(id))).collect();
        assert_eq!(spread.len(), 4);
    }
}
