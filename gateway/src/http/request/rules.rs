//! The rules for the fields of requests: each turns a JSON value into a checked value, or says its fault.

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;
use shared::{
    event::{History, Mention},
    fold::MAX_MEMBERS,
    id::{Seq, UserId},
    permission::{ChatType, Role},
    text,
};
use sql::accounts::GroupInvites;
use uuid::Uuid;

use super::fields::Fault;

/// The length of a password. A shorter one can be guessed; nobody types a longer one.
const PASSWORD_CHARS: std::ops::RangeInclusive<usize> = 8..=256;
/// RFC 5321: the longest path without its angle brackets.
const MAX_EMAIL: usize = 254;
const MAX_EMAIL_LOCAL: usize = 64;

fn string(value: &Value) -> Result<&str, Fault> {
    value.as_str().ok_or(Fault::Mistyped)
}

fn of_type<T: for<'de> Deserialize<'de>>(value: &Value) -> Result<T, Fault> {
    T::deserialize(value).map_err(|_| Fault::Mistyped)
}

/// An e-mail address, lower-cased. ASCII only: internationalised domains in their `xn--` form.
pub fn email(value: &Value) -> Result<String, Fault> {
    normal_email(string(value)?).ok_or(Fault::OutOfRange)
}

/// The same for text: trimmed and lower-cased, or `None` if it is no e-mail address.
pub fn normal_email(text: &str) -> Option<String> {
    let text = text.trim();
    let (local, domain) = text.rsplit_once('@')?;
    let local_fits = (1..=MAX_EMAIL_LOCAL).contains(&local.len())
        && local.bytes().all(|b| {
            b.is_ascii_graphic()
                && !matches!(
                    b,
                    b'@' | b'"' | b'(' | b')' | b',' | b':' | b';' | b'<' | b'>' | b'[' | b'\\' | b']'
                )
        })
        && !local.starts_with('.')
        && !local.ends_with('.');
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let fits = text.len() <= MAX_EMAIL && local_fits && domain.split('.').all(label_fits);
    fits.then(|| text.to_ascii_lowercase())
}

/// A password that is chosen now.
pub fn new_password(value: &Value) -> Result<SecretString, Fault> {
    let text = string(value)?;
    if PASSWORD_CHARS.contains(&text.chars().count()) { Ok(text.into()) } else { Err(Fault::OutOfRange) }
}

/// A password that is tried at a login. Any text is accepted here, and is wrong or not.
pub fn password(value: &Value) -> Result<SecretString, Fault> {
    Ok(string(value)?.into())
}

/// Any text, for a field that the route itself checks.
pub fn any_text(value: &Value) -> Result<String, Fault> {
    Ok(string(value)?.to_owned())
}

/// A display name or title.
pub fn name(value: &Value) -> Result<String, Fault> {
    text::name(string(value)?).ok_or(Fault::OutOfRange)
}

/// The label of a device.
pub fn device(value: &Value) -> Result<String, Fault> {
    let text = string(value)?;
    if text::is_device(text) { Ok(text.to_owned()) } else { Err(Fault::OutOfRange) }
}

/// A uuid that a client made.
pub fn uuid(value: &Value) -> Result<Uuid, Fault> {
    shared::id::client_uuid(string(value)?).ok_or(Fault::OutOfRange)
}

/// A message's body, verbatim.
pub fn body(value: &Value) -> Result<String, Fault> {
    let text = string(value)?;
    if text::body(text).is_some() { Ok(text.to_owned()) } else { Err(Fault::OutOfRange) }
}

/// The mentions of a message. Whether they lie within its body is checked where both are known.
pub fn mentions(value: &Value) -> Result<Vec<Mention>, Fault> {
    of_type(value)
}

/// A sequence of the log.
pub fn seq(value: &Value) -> Result<Seq, Fault> {
    let number = value.as_u64().ok_or(Fault::Mistyped)?;
    in_range(number)
}

/// A sequence in a query, where everything is text.
pub fn query_seq(value: &Value) -> Result<Seq, Fault> {
    in_range(string(value)?.parse().map_err(|_| Fault::Mistyped)?)
}

fn in_range(number: u64) -> Result<Seq, Fault> {
    if number <= shared::id::MAX_ID { Ok(Seq(number)) } else { Err(Fault::OutOfRange) }
}

/// A limit of `1..=MOST` in a query.
pub fn query_limit<const MOST: usize>(value: &Value) -> Result<usize, Fault> {
    let number: i64 = string(value)?.parse().map_err(|_| Fault::Mistyped)?;
    usize::try_from(number).ok().filter(|n| (1..=MOST).contains(n)).ok_or(Fault::OutOfRange)
}

fn one_user(value: &Value) -> Result<UserId, Fault> {
    let number = value.as_u64().ok_or(Fault::Mistyped)?;
    UserId::new(number).map_err(|_| Fault::OutOfRange)
}

/// Ids of users, each once, ascending.
pub fn users(value: &Value) -> Result<Vec<UserId>, Fault> {
    let values = value.as_array().ok_or(Fault::Mistyped)?;
    let mut users = values.iter().map(one_user).collect::<Result<Vec<_>, _>>()?;
    users.sort_unstable();
    users.dedup();
    Ok(users)
}

/// Like [`users`], but at least one, and at most as many as a chat holds.
pub fn some_users(value: &Value) -> Result<Vec<UserId>, Fault> {
    let users = users(value)?;
    if (1..=MAX_MEMBERS).contains(&users.len()) { Ok(users) } else { Err(Fault::OutOfRange) }
}

/// A member's role.
pub fn role(value: &Value) -> Result<Role, Fault> {
    Role::parse(string(value)?).ok_or(Fault::OutOfRange)
}

/// Whether members read what was written before they joined.
pub fn history(value: &Value) -> Result<History, Fault> {
    History::parse(string(value)?).ok_or(Fault::OutOfRange)
}

/// Who may add the caller to groups.
pub fn group_invites(value: &Value) -> Result<GroupInvites, Fault> {
    GroupInvites::parse(string(value)?).ok_or(Fault::OutOfRange)
}

/// The number of a chat's type.
pub fn chat_type(value: &Value) -> Result<ChatType, Fault> {
    let number = value.as_u64().ok_or(Fault::Mistyped)?;
    u8::try_from(number).ok().and_then(ChatType::from_number).ok_or(Fault::OutOfRange)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn emails() {
        for good in ["a@b", "A.b+c@Example.COM", " a@b.c ", "o'neil@xn--bcher-kva.example"] {
            assert_eq!(normal_email(good), Some(good.trim().to_ascii_lowercase()), "{good}");
        }
        let long = format!("{}@b.c", "a".repeat(65));
        for bad in
            ["", "a", "@b", "a@", "a b@c", "a@b c", "a@-b", "a@b..c", "a@b_", "ä@b.c", ".a@b", "a\0@b", &long]
        {
            assert_eq!(normal_email(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn passwords_are_counted_in_characters() {
        assert!(new_password(&json!("ä".repeat(8))).is_ok());
        assert!(new_password(&json!("ä".repeat(256))).is_ok());
        assert_eq!(new_password(&json!("ä".repeat(257))).err(), Some(Fault::OutOfRange));
        assert_eq!(new_password(&json!("1234567")).err(), Some(Fault::OutOfRange));
        assert_eq!(new_password(&json!(12_345_678)).err(), Some(Fault::Mistyped));
    }

    #[test]
    fn lists_of_users() {
        assert_eq!(users(&json!([3, 1, 3])).unwrap().len(), 2);
        assert_eq!(users(&json!([0])), Err(Fault::OutOfRange));
        assert_eq!(users(&json!([-1])), Err(Fault::Mistyped));
        assert_eq!(users(&json!([1.5])), Err(Fault::Mistyped));
        assert_eq!(users(&json!("1")), Err(Fault::Mistyped));
        assert_eq!(some_users(&json!([])), Err(Fault::OutOfRange));
    }

    #[test]
    fn limits_in_queries() {
        assert_eq!(query_limit::<200>(&json!("200")), Ok(200));
        assert_eq!(query_limit::<200>(&json!("201")), Err(Fault::OutOfRange));
        assert_eq!(query_limit::<200>(&json!("0")), Err(Fault::OutOfRange));
        assert_eq!(query_limit::<200>(&json!("-1")), Err(Fault::OutOfRange));
        assert_eq!(query_limit::<200>(&json!("x")), Err(Fault::Mistyped));
    }
}
