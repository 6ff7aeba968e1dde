//! One value in two encodings: each type says once how it is written and read, for JSON and MessagePack.
//!
//! This file holds the plain types (numbers, texts, lists) and the macros by which rooms above add their own.
//! [`sink`] writes, [`raw`] reads on top of [`json`] and [`msgpack`]. A value never allocates for nesting and never
//! panics on hostile bytes. Frames are unknown here.

pub(crate) mod json;
pub(crate) mod msgpack;
pub(crate) mod raw;
pub(crate) mod sink;

use std::borrow::Cow;

use uuid::Uuid;

pub(crate) use self::{
    raw::{Fault, Fields, Raw, Value},
    sink::Sink,
};

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

/// Integers: how to make one from its number, and how to get its number.
macro_rules! integer {
    ($type:ty, $expected:literal, $from:expr, $number:expr) => {
        impl $crate::value::Value for $type {
            const EXPECTED: &'static str = $expected;

            fn put(&self, sink: &mut impl $crate::value::Sink) {
                let number: fn($type) -> u64 = $number;
                sink.uint(number(*self));
            }

            fn get(raw: $crate::value::Raw<'_>) -> Option<Self> {
                let from: fn(u64) -> Option<Self> = $from;
                from(raw.uint()?)
            }
        }
    };
}
pub(crate) use integer;

integer!(u64, "an integer from 0 to 2^53-1", Some, |number| number);
integer!(u32, "an integer from 0 to 2^32-1", |number| number.try_into().ok(), u64::from);

/// Closed sets of words: enums with `as_str` and `parse`.
macro_rules! word {
    ($type:ty, $expected:literal) => {
        impl $crate::value::Value for $type {
            const EXPECTED: &'static str = $expected;

            fn put(&self, sink: &mut impl $crate::value::Sink) {
                sink.text(self.as_str());
            }

            fn get(raw: $crate::value::Raw<'_>) -> Option<Self> {
                Self::parse(&raw.text()?)
            }
        }
    };
}
pub(crate) use word;

/// Objects: the same names in both encodings, every field always present.
macro_rules! object {
    ($type:ty { $($field:ident => $name:literal),* $(,)? }) => {
        impl $crate::value::Value for $type {
            const EXPECTED: &'static str = concat!("an object of", $(" ", $name),*);

            fn put(&self, sink: &mut impl $crate::value::Sink) {
                sink.open_object([$($name),*].len());
                $(
                    sink.key($name, concat!("\"", $name, "\":"));
                    $crate::value::Value::put(&self.$field, sink);
                )*
                sink.close_object();
            }

            fn get(raw: $crate::value::Raw<'_>) -> Option<Self> {
                let fields = raw.object(&[&[$($name),*]])?;
                Some(Self { $($field: fields.get($name).ok()?),* })
            }
        }
    };
}
pub(crate) use object;
