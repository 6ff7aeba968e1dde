//! How a frame is declared: the traits that every frame has, and the macros that write struct, kind, type and fields
//! from one declaration for both encodings.

use crate::value::{Fault, Fields};

/// One frame type.
pub(crate) trait Frame: Sized {
    /// The first element of the MessagePack array.
    const KIND: u8;
    /// The `type` of the JSON object.
    const TYPE: &'static str;
    /// The names of the fields, in the order of the MessagePack array.
    const FIELDS: &'static [&'static str];

    fn put_json(&self, out: &mut Vec<u8>);
    fn put_msgpack(&self, out: &mut Vec<u8>);
    fn read(fields: &Fields<'_>) -> Result<Self, Fault>;
}

/// All frames of one direction.
pub(crate) trait FrameSet: Sized {
    /// The names of all fields of all frames.
    const FIELDS: &'static [&'static [&'static str]];

    /// `None`: there is no such kind.
    fn fields_of(kind: u8) -> Option<&'static [&'static str]>;
    fn read_type(name: &str, fields: &Fields<'_>) -> Option<Result<Self, Fault>>;
    fn read_kind(kind: u8, fields: &Fields<'_>) -> Option<Result<Self, Fault>>;
}

/// The contract's entry of one frame type, for documentation and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declared {
    pub kind: u8,
    pub name: &'static str,
    pub fields: &'static [&'static str],
}

pub(crate) const fn declared<F: Frame>() -> Declared {
    Declared { kind: F::KIND, name: F::TYPE, fields: F::FIELDS }
}

/// One frame. `or_empty` marks a list that is left out when it is empty.
macro_rules! frame {
    (
        $(#[$doc:meta])*
        $name:ident = $kind:literal, $type:literal {
            $($(#[$field_doc:meta])* $field:ident: $value:ty => $wire:literal $($or_empty:ident)?),* $(,)?
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $value,)*
        }

        impl $crate::frame::declare::Frame for $name {
            const KIND: u8 = $kind;
            const TYPE: &'static str = $type;
            const FIELDS: &'static [&'static str] = &[$($wire),*];

            fn put_json(&self, out: &mut Vec<u8>) {
                use $crate::value::{Value as _, sink::Json};
                out.extend_from_slice(concat!("{\"type\":\"", $type, "\"").as_bytes());
                $(
                    if !is_absent!(self.$field $($or_empty)?) {
                        out.extend_from_slice(concat!(",\"", $wire, "\":").as_bytes());
                        self.$field.put(&mut Json(out));
                    }
                )*
                out.push(b'}');
            }

            fn put_msgpack(&self, out: &mut Vec<u8>) {
                use $crate::value::{Sink as _, Value as _, sink::Msgpack};
                let present = [$(!is_absent!(self.$field $($or_empty)?)),*];
                let length = present.iter().rposition(|present| *present).map_or(0, |last| last + 1);
                let mut sink = Msgpack(out);
                sink.open_list(1 + length);
                sink.uint($kind);
                let mut places = 0..length;
                $(
                    if places.next().is_some() {
                        self.$field.put(&mut sink);
                    }
                )*
            }

            fn read(fields: &$crate::value::Fields<'_>) -> Result<Self, $crate::value::Fault> {
                Ok(Self { $($field: read_field!(fields, $wire $($or_empty)?)?),* })
            }
        }
    };
}

macro_rules! is_absent {
    ($self:ident.$field:ident) => {
        $self.$field.is_absent()
    };
    ($self:ident.$field:ident or_empty) => {
        $self.$field.is_empty()
    };
}

macro_rules! read_field {
    ($fields:ident, $wire:literal) => {
        $fields.get($wire)
    };
    ($fields:ident, $wire:literal or_empty) => {
        $fields.get_or_default($wire)
    };
}

/// All frames of one direction, as an enum.
macro_rules! frames {
    ($(#[$doc:meta])* $set:ident { $($variant:ident($frame:ty)),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $set {
            $($variant($frame),)*
        }

        impl $set {
            /// Every frame type of this direction.
            pub const DECLARED: &'static [$crate::frame::declare::Declared] =
                &[$($crate::frame::declare::declared::<$frame>()),*];

            /// The `type` on the wire.
            pub const fn type_name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => <$frame as $crate::frame::declare::Frame>::TYPE,)*
                }
            }

            pub(crate) fn put_json(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(frame) => $crate::frame::declare::Frame::put_json(frame, out),)*
                }
            }

            pub(crate) fn put_msgpack(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(frame) => $crate::frame::declare::Frame::put_msgpack(frame, out),)*
                }
            }
        }

        impl $crate::frame::declare::FrameSet for $set {
            const FIELDS: &'static [&'static [&'static str]] =
                &[$(<$frame as $crate::frame::declare::Frame>::FIELDS),*];

            fn fields_of(kind: u8) -> Option<&'static [&'static str]> {
                match kind {
                    $(<$frame as $crate::frame::declare::Frame>::KIND => {
                        Some(<$frame as $crate::frame::declare::Frame>::FIELDS)
                    })*
                    _ => None,
                }
            }

            fn read_type(
                name: &str,
                fields: &$crate::value::Fields<'_>,
            ) -> Option<Result<Self, $crate::value::Fault>> {
                match name {
                    $(<$frame as $crate::frame::declare::Frame>::TYPE => {
                        Some(<$frame as $crate::frame::declare::Frame>::read(fields).map(Self::$variant))
                    })*
                    _ => None,
                }
            }

            fn read_kind(
                kind: u8,
                fields: &$crate::value::Fields<'_>,
            ) -> Option<Result<Self, $crate::value::Fault>> {
                match kind {
                    $(<$frame as $crate::frame::declare::Frame>::KIND => {
                        Some(<$frame as $crate::frame::declare::Frame>::read(fields).map(Self::$variant))
                    })*
                    _ => None,
                }
            }
        }

        $(
            impl From<$frame> for $set {
                fn from(frame: $frame) -> Self {
                    Self::$variant(frame)
                }
            }
        )*
    };
}
