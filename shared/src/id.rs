//! Typed ids and positions.
//!
//! Invariant: every [`UserId`] and [`ChatId`] is in `1..=2^53-1`, so that JavaScript's numbers hold it exactly.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The largest integer that an IEEE 754 double holds exactly, hence the largest id on the wire.
pub const MAX_ID: u64 = (1 << 53) - 1;

/// The number is not an id: zero, or above [`MAX_ID`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no id: ids are integers from 1 to 2^53-1")]
pub struct InvalidId(pub u64);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// # Errors
            /// [`InvalidId`] for zero and for numbers above [`MAX_ID`].
            pub const fn new(id: u64) -> Result<Self, InvalidId> {
                if id == 0 || id > MAX_ID { Err(InvalidId(id)) } else { Ok(Self(id)) }
            }

            pub const fn get(self) -> u64 {
                self.0
            }

            /// As Postgres stores it.
            pub const fn as_i64(self) -> i64 {
                self.0 as i64
            }
        }

        impl TryFrom<u64> for $name {
            type Error = InvalidId;
            fn try_from(id: u64) -> Result<Self, InvalidId> {
                Self::new(id)
            }
        }

        impl TryFrom<i64> for $name {
            type Error = InvalidId;
            fn try_from(id: i64) -> Result<Self, InvalidId> {
                Self::new(u64::try_from(id).unwrap_or(0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::new(u64::deserialize(d)?).map_err(serde::de::Error::custom)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text.parse().unwrap_or(0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A user account.
    UserId
}
id! {
    /// A chat, direct or group.
    ChatId
}

/// A JetStream sequence: the place of an event in its partition of the log. 0 is "before the first".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first event.
    pub const ZERO: Self = Self(0);

    pub const fn get(self) -> u64 {
        self.0
    }

    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// As Postgres stores it.
    pub const fn as_i64(self) -> i64 {
        self.0 as i64
    }
}

impl From<i64> for Seq {
    /// Postgres holds sequences as non-negative `bigint`.
    fn from(seq: i64) -> Self {
        Self(seq.max(0) as u64)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of one stored event: a hash of its message id and its time. After the log lost its tail, another event
/// may get the same sequence; their identities differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub u64);

impl EventId {
    /// From the `Nats-Msg-Id` and the time at which JetStream stored the event, in nanoseconds.
    pub fn of(message_id: &str, stored_ns: u64) -> Self {
        Self(xxh3_64_with_seed(message_id.as_bytes(), stored_ns))
    }

    /// As Postgres stores it: the same 64 bits.
    pub const fn as_i64(self) -> i64 {
        self.0 as i64
    }

    pub const fn from_i64(bits: i64) -> Self {
        Self(bits as u64)
    }
}

/// A position in one partition that proves itself: the sequence and the identity of the event there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub seq: Seq,
    pub id: EventId,
}

/// The idempotency key of a command as the log's `Nats-Msg-Id`.
pub fn message_id(actor: UserId, chat: ChatId, uuid: Uuid) -> String {
    format!("{actor}-{chat}-{}", uuid.simple())
}

/// The text in the place of a uuid in the first published example. The example must work verbatim, so the text
/// stands for [`EXAMPLE_UUID`].
pub const EXAMPLE_UUID_TEXT: &str = "client-generated-uuid";
/// The uuid of [`EXAMPLE_UUID_TEXT`]. Its version is 8, so that no generator makes it; its bytes spell "minitg" and
/// "client".
pub const EXAMPLE_UUID: Uuid = Uuid::from_u128(0x6d69_6e69_7467_8000_8000_636c_6965_6e74);

/// A client's uuid: 8-4-4-4-12 or 32 hexadecimal digits in any case, or the example's text.
pub fn client_uuid(text: &str) -> Option<Uuid> {
    match text.len() {
        32 | 36 => Uuid::try_parse(text).ok(),
        _ => (text == EXAMPLE_UUID_TEXT).then_some(EXAMPLE_UUID),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_positive_and_exact_in_a_double() {
        assert_eq!(UserId::new(0), Err(InvalidId(0)));
        assert_eq!(UserId::new(MAX_ID + 1), Err(InvalidId(MAX_ID + 1)));
        assert_eq!(UserId::new(MAX_ID).map(UserId::get), Ok(MAX_ID));
        assert!(serde_json::from_str::<ChatId>("0").is_err());
        assert!(serde_json::from_str::<ChatId>("-1").is_err());
        assert!(serde_json::from_str::<ChatId>("1.5").is_err());
        assert!("x".parse::<ChatId>().is_err());
    }

    #[test]
    fn an_event_id_tells_same_command_stored_twice() {
        assert_ne!(EventId::of("7-1-a", 1), EventId::of("7-1-a", 2));
        assert_ne!(EventId::of("7-1-a", 1), EventId::of("7-1-b", 1));
    }
}
