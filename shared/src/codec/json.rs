//! Reading JSON in one pass: an object becomes its known fields' raw texts, checked for syntax only.
//!
//! serde_json skips values without recursion, so nesting costs no stack.

use std::fmt;

use serde::{
    Deserializer as _,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};

use super::raw::{Fields, Raw};

/// An object's known fields; `duplicate` is a field that stands twice.
pub(super) struct Object<'a> {
    pub(super) fields: Fields<'a>,
    pub(super) duplicate: Option<&'static str>,
}

/// Why a text is no object.
pub(super) enum NoObject {
    /// It is not JSON.
    Syntax,
    /// It is another JSON value.
    Shape,
}

/// The object's fields that stand in `names`.
pub(super) fn object<'a>(
    text: &'a str,
    names: &'static [&'static [&'static str]],
) -> Result<Object<'a>, NoObject> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read =
        deserializer.deserialize_map(Collect(names)).and_then(|object| deserializer.end().map(|()| object));
    read.map_err(|error| match error.classify() {
        Category::Data if serde_json::from_str::<IgnoredAny>(text).is_ok() => NoObject::Shape,
        _ => NoObject::Syntax,
    })
}

/// The array's elements.
pub(super) fn elements(text: &str) -> Option<Vec<&str>> {
    let raws: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    Some(raws.into_iter().map(RawValue::get).collect())
}

/// The text between the quotes, without a copy if nothing is escaped. The syntax has been checked.
pub(super) fn text(raw: &str) -> Option<std::borrow::Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok() } else { Some(inner.into()) }
}

struct Collect(&'static [&'static [&'static str]]);

impl<'de> Visitor<'de> for Collect {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object { fields: Fields::default(), duplicate: None };
        while let Some(name) = map.next_key_seed(Known(self.0))? {
            let raw = map.next_value::<&RawValue>()?.get();
            if let Some(name) = name
                && !object.fields.insert(name, Raw::Json(raw))
            {
                object.duplicate = Some(name);
            }
        }
        Ok(object)
    }
}

/// A key, as the known name that it is.
struct Known(&'static [&'static [&'static str]]);

impl<'de> DeserializeSeed<'de> for Known {
    type Value = Option<&'static str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Known {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        if key == "type" {
            return Ok(Some("type"));
        }
        Ok(self.0.iter().flat_map(|names| names.iter()).copied().find(|name| *name == key))
    }
}
