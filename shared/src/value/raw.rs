//! Reading values: a value as it stands on the wire, the fields of a frame or object, and the types that fields hold.

use std::borrow::Cow;

use smallvec::SmallVec;
use uuid::Uuid;

use super::{
    json::{self, NoObject},
    msgpack,
    sink::Sink,
};
use crate::id::{MAX_ID, client_uuid};

/// One well-formed value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Raw<'a> {
    Json(&'a str),
    Msgpack(&'a [u8]),
}

const NIL: u8 = 0xC0;

impl<'a> Raw<'a> {
    fn is_nil(self) -> bool {
        match self {
            Self::Json(raw) => raw == "null",
            Self::Msgpack(raw) => raw == [NIL],
        }
    }

    /// An integer from 0 to [`MAX_ID`]: no sign, no fraction, no exponent.
    pub(crate) fn uint(self) -> Option<u64> {
        let number = match self {
            Self::Json(raw) if raw.bytes().all(|byte| byte.is_ascii_digit()) => raw.parse().ok()?,
            Self::Json(_) => return None,
            Self::Msgpack(mut raw) => rmp::decode::read_int(&mut raw).ok()?,
        };
        (number <= MAX_ID).then_some(number)
    }

    pub(crate) fn boolean(self) -> Option<bool> {
        match self {
            Self::Json("true") => Some(true),
            Self::Json("false") => Some(false),
            Self::Json(_) => None,
            Self::Msgpack(mut raw) => rmp::decode::read_bool(&mut raw).ok(),
        }
    }

    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Json(raw) => json::text(raw),
            Self::Msgpack(raw) => rmp::decode::read_str_from_slice(raw).ok().map(|(text, _)| text.into()),
        }
    }

    /// Text in JSON, 16 bytes in MessagePack.
    pub(crate) fn uuid(self) -> Option<Uuid> {
        match self {
            Self::Json(raw) => client_uuid(&json::text(raw)?),
            Self::Msgpack(mut raw) => {
                rmp::decode::read_bin_len(&mut raw).ok()?;
                Uuid::from_slice(raw).ok()
            }
        }
    }

    pub(crate) fn list<T: Value>(self) -> Option<Vec<T>> {
        match self {
            Self::Json(raw) => json::elements(raw)?.into_iter().map(|raw| T::get(Raw::Json(raw))).collect(),
            Self::Msgpack(raw) => msgpack::elements(raw)?.map(|raw| T::get(Raw::Msgpack(raw))).collect(),
        }
    }

    /// The known fields of an object; `None` if the value is no object or a field stands twice.
    pub(crate) fn object(self, names: &'static [&'static [&'static str]]) -> Option<Fields<'a>> {
        match self {
            Self::Json(raw) => {
                let (fields, duplicate) = Fields::of_json(raw, names).ok()?;
                duplicate.is_none().then_some(fields)
            }
            Self::Msgpack(raw) => {
                let mut fields = Fields::default();
                msgpack::object(raw, names, |name, raw| fields.insert(name, Raw::Msgpack(raw)))?;
                Some(fields)
            }
        }
    }
}

/// A Rust type that can stand in a field, in both encodings.
pub(crate) trait Value: Sized {
    /// The expectation that an error states, such as "true or false".
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

/// The known fields of one frame or object, as they stand on the wire.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a>(SmallVec<[(&'static str, Raw<'a>); 8]>);

impl<'a> Fields<'a> {
    /// The known fields of a JSON object, and one that stands twice.
    pub(crate) fn of_json(
        text: &'a str,
        names: &'static [&'static [&'static str]],
    ) -> Result<(Self, Option<&'static str>), NoObject> {
        let mut fields = Self::default();
        let duplicate = json::object(text, names, |name, raw| fields.insert(name, Raw::Json(raw)))?;
        Ok((fields, duplicate))
    }

    /// The fields of an array, by their place.
    pub(crate) fn in_order(names: &'static [&'static str], raws: impl Iterator<Item = Raw<'a>>) -> Self {
        Self(names.iter().copied().zip(raws).collect())
    }

    /// Returns whether the name was new; a second value of a name is ignored.
    fn insert(&mut self, name: &'static str, raw: Raw<'a>) -> bool {
        let new = self.raw(name).is_none();
        if new {
            self.0.push((name, raw));
        }
        new
    }

    fn raw(&self, name: &str) -> Option<Raw<'a>> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, raw)| *raw)
    }

    /// The field's value; nil and null mean that it is absent.
    pub(crate) fn get<T: Value>(&self, name: &'static str) -> Result<T, Fault> {
        self.get_as(name, T::EXPECTED, T::absent(), T::get)
    }

    /// The field's value, or the type's default if it is absent.
    pub(crate) fn get_or_default<T: Value + Default>(&self, name: &'static str) -> Result<T, Fault> {
        self.get_as(name, T::EXPECTED, Some(T::default()), T::get)
    }

    /// [`Fields::get`] for a value whose meaning depends on another field.
    pub(crate) fn get_as<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        absent: Option<T>,
        get: impl FnOnce(Raw<'a>) -> Option<T>,
    ) -> Result<T, Fault> {
        let raw = self.raw(name).filter(|raw| !raw.is_nil());
        let missing = raw.is_none();
        raw.map_or(absent, get).ok_or(Fault { field: name, missing, expected })
    }
}

/// A field is missing or holds a wrong value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) field: &'static str,
    pub(crate) missing: bool,
    pub(crate) expected: &'static str,
}
