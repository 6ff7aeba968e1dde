//! JSON as raw texts: an object is split into the texts of its known fields, an array into those of its elements.
//!
//! One pass checks the syntax and leaves the values unread. serde_json skips values without recursion, so nesting
//! costs no stack.

use std::fmt;

use serde::{
    Deserializer as _,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};

/// Why a text is no object.
pub(crate) enum NoObject {
    /// The text is not JSON.
    Syntax,
    /// The text is another JSON value.
    Shape,
}

/// Hands each field of the object whose name is `type` or in `names` to `insert`, which says whether the name was
/// new. Returns a name that stands twice.
pub(super) fn object<'a>(
    text: &'a str,
    names: &'static [&'static [&'static str]],
    insert: impl FnMut(&'static str, &'a str) -> bool,
) -> Result<Option<&'static str>, NoObject> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer
        .deserialize_map(Collect { names, insert })
        .and_then(|duplicate| deserializer.end().map(|()| duplicate));
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

/// The text between the quotes of a string whose syntax was checked. Copies only if something is escaped.
pub(super) fn text(raw: &str) -> Option<std::borrow::Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok() } else { Some(inner.into()) }
}

struct Collect<I> {
    names: &'static [&'static [&'static str]],
    insert: I,
}

impl<'de, I: FnMut(&'static str, &'de str) -> bool> Visitor<'de> for Collect<I> {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut duplicate = None;
        while let Some(name) = map.next_key_seed(Known(self.names))? {
            let raw = map.next_value::<&RawValue>()?.get();
            if let Some(name) = name
                && !(self.insert)(name, raw)
            {
                duplicate = Some(name);
            }
        }
        Ok(duplicate)
    }
}

/// Reads a key as the known name that equals it, or as `None`.
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
