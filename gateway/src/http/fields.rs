//! Reads the fields of a request one by one and collects everything that is wrong with them.
//!
//! A client that fills a form wants to hear of all its mistakes at once, so a fault does not end the reading.

use http::Uri;
use serde_json::{Map, Value};
use shared::code::Code;

use crate::problem::{FieldError, Problem};

/// Why a field is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Another type of JSON value than expected, or text that is none of the type.
    Mistyped,
    /// Too short, too long, too many, or not of the required form.
    OutOfRange,
}

/// How a field becomes a value.
pub type Rule<T> = fn(&Value) -> Result<T, Fault>;

/// The fields of one request. Unknown ones are ignored.
#[derive(Debug)]
pub struct Fields {
    values: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// Of a JSON body.
    ///
    /// # Errors
    /// `request.malformed` for what is no JSON, `request.invalid` for what is no object.
    pub fn of_json(body: &[u8]) -> Result<Self, Problem> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(values)) => Ok(Self { values, errors: Vec::new() }),
            Ok(_) => Err(Problem::new(Code::RequestInvalid).detail("the body is no JSON object")),
            Err(_) => Err(Problem::new(Code::RequestMalformed).detail("the body is no JSON")),
        }
    }

    /// Of the query. Of a repeated parameter the last counts.
    pub fn of_query(uri: &Uri) -> Self {
        let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let values =
            pairs.map(|(name, value)| (name.into_owned(), Value::String(value.into_owned()))).collect();
        Self { values, errors: Vec::new() }
    }

    /// A field that must be there; `None` if it is not there or refused.
    pub fn required<T>(&mut self, name: &'static str, rule: Rule<T>) -> Option<T> {
        if !self.has(name) {
            self.errors.push(FieldError { field: name, code: "missing" });
        }
        self.optional(name, rule)
    }

    /// A field that may be absent or null; `None` also if it is refused.
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

    /// Refuses a field for a reason that concerns more than itself.
    pub fn refuse(&mut self, name: &'static str, code: &'static str) {
        self.errors.push(FieldError { field: name, code });
    }

    pub fn has(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| !value.is_null())
    }

    /// The values read, if nothing was wrong.
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
            ("1", Code::RequestInvalid),
        ] {
            assert_eq!(Fields::of_json(body.as_bytes()).unwrap_err().code, code, "{body:?}");
        }
        let deep = "[".repeat(10_000);
        assert_eq!(Fields::of_json(deep.as_bytes()).unwrap_err().code, Code::RequestMalformed);
    }

    #[test]
    fn queries_are_decoded() {
        let mut fields = Fields::of_query(&Uri::from_static("/v1/users?email=a%2Bb@c.d&email=e%20f&x"));
        assert_eq!(fields.optional("email", text), Some("e f".to_owned()));
        assert_eq!(fields.optional("x", text), Some(String::new()));
    }
}
