//! What can stand in a field, in both encodings at once.

use std::borrow::Cow;

use uuid::Uuid;

use super::{raw::Raw, sink::Sink};
use crate::{
    event::{History, LeaveReason, MemberRole, Mention},
    id::{ChatId, MAX_ID, Seq, UserId},
    permission::{ChatType, Role},
};

pub(crate) trait Value: Sized {
    /// What must stand in the field, for the reader of an error.
    const EXPECTED: &'static str;

    fn put(&self, sink: &mut impl Sink);
    fn get(raw: Raw<'_>) -> Option<Self>;

    /// Whether the field is left out.
    fn is_absent(&self) -> bool {
        false
    }

    /// The value of a field that was left out; `None` if it must not be.
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: Value> Value for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn put(&self, sink: &mut impl Sink) {
        match self {
            Some(value) => value.put(sink),
            None => sink.nil(),
        }
    }

    fn get(raw: Raw<'_>) -> Option<Self> {
        T::get(raw).map(Some)
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Value> Value for Vec<T> {
    const EXPECTED: &'static str = "an array of the right elements";

    fn put(&self, sink: &mut impl Sink) {
        sink.open_list(self.len());
        for value in self {
            sink.element();
            value.put(sink);
        }
        sink.close_list();
    }

    fn get(raw: Raw<'_>) -> Option<Self> {
        raw.list()
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

    fn put(&self, sink: &mut impl Sink) {
        sink.boolean(*self);
    }

    fn get(raw: Raw<'_>) -> Option<Self> {
        raw.boolean()
    }
}

impl Value for Uuid {
    const EXPECTED: &'static str = "a uuid";

    fn put(&self, sink: &mut impl Sink) {
        sink.uuid(*self);
    }

    fn get(raw: Raw<'_>) -> Option<Self> {
        raw.uuid()
    }
}

impl Value for String {
    const EXPECTED: &'static str = "a text";

    fn put(&self, sink: &mut impl Sink) {
        sink.text(self);
    }

    fn get(raw: Raw<'_>) -> Option<Self> {
        raw.text().map(Cow::into_owned)
    }
}

impl Value for Cow<'static, str> {
    const EXPECTED: &'static str = "a text";

    fn put(&self, sink: &mut impl Sink) {
        sink.text(self);
    }

    fn get(raw: Raw<'_>) -> Option<Self> {
        raw.text().map(|text| Cow::Owned(text.into_owned()))
    }
}

/// Integers: how to make one, and how to get its number.
macro_rules! integer {
    ($type:ty, $expected:literal, $from:expr, $number:expr) => {
        impl Value for $type {
            const EXPECTED: &'static str = $expected;

            fn put(&self, sink: &mut impl Sink) {
                let number: fn($type) -> u64 = $number;
                sink.uint(number(*self));
            }

            fn get(raw: Raw<'_>) -> Option<Self> {
                let from: fn(u64) -> Option<Self> = $from;
                from(raw.uint()?)
            }
        }
    };
}

integer!(u64, "an integer from 0 to 2^53-1", Some, |number| number);
integer!(u32, "an integer from 0 to 2^32-1", |number| number.try_into().ok(), u64::from);
integer!(UserId, "an integer from 1 to 2^53-1", |number| Self::new(number).ok(), UserId::get);
integer!(ChatId, "an integer from 1 to 2^53-1", |number| Self::new(number).ok(), ChatId::get);
integer!(Seq, "an integer from 0 to 2^53-1", |number| (number <= MAX_ID).then_some(Self(number)), Seq::get);
integer!(
    ChatType,
    "1 (direct) or 2 (group)",
    |number| number.try_into().ok().and_then(Self::from_number),
    |chat_type| chat_type.number().into()
);

/// Closed sets of words, with `as_str` and `parse`.
macro_rules! word {
    ($type:ty, $expected:literal) => {
        impl $crate::codec::value::Value for $type {
            const EXPECTED: &'static str = $expected;

            fn put(&self, sink: &mut impl $crate::codec::sink::Sink) {
                sink.text(self.as_str());
            }

            fn get(raw: $crate::codec::raw::Raw<'_>) -> Option<Self> {
                Self::parse(&raw.text()?)
            }
        }
    };
}
pub(crate) use word;

word!(Role, "owner, admin or member");
word!(History, "all or join");
word!(LeaveReason, "left or removed");

/// Objects inside frames: the same names in both encodings, every field always there.
macro_rules! object {
    ($type:ty { $($field:ident => $name:literal),* $(,)? }) => {
        impl $crate::codec::value::Value for $type {
            const EXPECTED: &'static str = concat!("an object of", $(" ", $name),*);

            fn put(&self, sink: &mut impl $crate::codec::sink::Sink) {
                sink.open_object([$($name),*].len());
                $(
                    sink.key($name, concat!("\"", $name, "\":"));
                    $crate::codec::value::Value::put(&self.$field, sink);
                )*
                sink.close_object();
            }

            fn get(raw: $crate::codec::raw::Raw<'_>) -> Option<Self> {
                let fields = raw.object(&[&[$($name),*]])?;
                Some(Self { $($field: fields.get($name).ok()?),* })
            }
        }
    };
}
pub(crate) use object;

object!(Mention { user_id => "userId", start => "start", length => "length" });
object!(MemberRole { user_id => "userId", role => "role" });
