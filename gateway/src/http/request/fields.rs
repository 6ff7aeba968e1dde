//! Reads the fields of a request one by one and collects everything that is wrong with them.
//!
//! A person who fills in a form wants to see all mistakes at once, so the reading goes on after a fault.

use std::fmt;

use http::Uri;
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value};
use shared::code::Code;

use crate::http::answer::problem::{FieldError, Problem};

/// Why a field is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The JSON value has another type than expected, or its text cannot be parsed.
    Mistyped,
    /// The value is too short, too long, too high, or not of the required form.
    OutOfRange,
}

/// Turns the JSON value of a field into a checked value.
pub type Rule<T> = fn(&Value) -> Result<T, Fault>;

/// The fields of one request. Unknown ones are ignored.
#[derive(Debug)]
pub struct Fields {
    values: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// The fields of a JSON body.
    ///
    /// # Errors
    /// `request.malformed` if the body is not JSON; `request.invalid` if it is not an object, or has a field twice.
    pub fn of_json(body: &[u8]) -> Result<Self, Problem> {
        let malformed = || Problem::new(Code::RequestMalformed).detail("the body is no JSON");
        // First the whole body is checked, so that a body with a wrong beginning and a broken end is malformed.
        serde_json::from_slice::<IgnoredAny>(body).map_err(|_| malformed())?;
        match serde_json::from_slice::<Object>(body) {
            Ok(Object(values)) => Ok(Self { values, errors: Vec::new() }),
            Err(error) if error.is_data() => {
                Err(Problem::new(Code::RequestInvalid)
                    .detail("the body is no JSON object with each field once"))
            }
            Err(_) => Err(malformed()),
        }
    }

    /// The parameters of a query. If one is repeated, the last counts.
    pub fn of_query(uri: &Uri) -> Self {
        let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let values =
            pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect();
        Self { values, errors: Vec::new() }
    }

    /// A field that must be present; `None` if it is missing or refused.
    pub fn required<T>(&mut self, name: &'static str, rule: Rule<T>) -> Option<T> {
        if !self.has(name) {
            self.errors.push(FieldError { field: name, code: "missing" });
        }
        self.optional(name, rule)
    }

    /// A field that may be absent or null; `None` if it is, or if it is refused.
    pub fn optional<T>(&mut self, name: &'static str, rule: Rule<T>) -> Option<T> {
        let value = self.values.get(name).filter(|value| !value.is_null())?;
        match rule(value) {
            Ok(value) => Some(value),
            Err(fault) => {
                let code = match fault {
                    Fault::Mistyped => "mistyped",
                    Fault::OutOfRange => "out_of_range",
                };
                self.errors.push(FieldError { field: name, code });
                None
            }
        }
    }

    /// Refuses a field because of its relation to another one.
    pub fn refuse(&mut self, name: &'static str, code: &'static str) {
        self.errors.push(FieldError { field: name, code });
    }

    pub fn has(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| !value.is_null())
    }

    /// Returns the values if no field was at fault.
    ///
    /// # Errors
    /// `request.invalid` with all faults.
    pub fn finish<T>(self, values: Option<T>) -> Result<T, Problem> {
        match values {
            Some(values) if self.errors.is_empty() => Ok(values),
            _ => Err(Problem::invalid_fields(self.errors)),
        }
    }
}

/// A JSON object without repeated fields.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OnceEach)
    }
}

struct OnceEach;

impl<'de> Visitor<'de> for OnceEach {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with each field once")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut values = Map::new();
        while let Some((name, value)) = map.next_entry()? {
            if values.insert(name, value).is_some() {
                return Err(de::Error::custom("a field stands twice"));
            }
        }
        Ok(Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &Value) -> Result<String, Fault> {
        value.as_str().map(str::to_owned).ok_or(Fault::Mistyped)
    }

    #[test]
    fn all_faults_are_collected() {
        let mut fields = Fields::of_json(br#"{"b":1,"c":null,"d":"x","e":true}"#).unwrap();
        assert_eq!(fields.required("a", text), None);
        assert_eq!(fields.required("b", text), None);
        assert_eq!(fields.optional("c", text), None);
        assert_eq!(fields.optional("d", text), Some("x".to_owned()));
        let faults: Vec<_> = fields.errors.iter().map(|error| (error.field, error.code)).collect();
        assert_eq!(faults, [("a", "missing"), ("b", "mistyped")]);
        assert!(fields.finish(Some(())).is_err());
    }

    #[test]
    fn no_json_and_no_object_differ() {
        for (body, code) in [
            ("", Code::RequestMalformed),
            ("{", Code::RequestMalformed),
            ("{}x", Code::RequestMalformed),
            ("\u{0}", Code::RequestMalformed),
            ("[]", Code::RequestInvalid),
            ("[", Code::RequestMalformed),
            (r#"{"a":1,"a":2}"#, Code::RequestInvalid),
            (r#"{"a":1,"a":}"#, Code::RequestMalformed),
            ("1", Code::RequestInvalid),
        ] {
            assert_eq!(Fields::of_json(body.as_bytes()).unwrap_err().code, code, "{body:?}");
        }
        assert_eq!(Fields::of_json(b"{\"a\":\"\xff\"}").unwrap_err().code, Code::RequestMalformed);
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(Fields::of_json(deep.as_bytes()).unwrap_err().code, Code::RequestMalformed);
    }

    #[test]
    fn queries_are_decoded() {
        let mut fields = Fields::of_query(&Uri::from_static("/v1/users?email=a%2Bb@c.d&email=e%20f&x"));
        assert_eq!(fields.optional("email", text), Some("e f".to_owned()));
        assert_eq!(fields.optional("x", text), Some(String::new()));
    }
}
