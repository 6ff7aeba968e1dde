//! The opaque `page` parameter of lists, which says where the next page starts.
//!
//! Invariant: a page of one list is refused by another list.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::fields::Fault;

/// The first byte of a page, which names its list.
const CHATS: u8 = b'c';
const MEMBERS: u8 = b'm';

/// The page that starts with the newest chat whose last event is before this sequence.
pub fn of_chats(start: u64) -> String {
    encode(CHATS, start)
}

/// The page that starts with the first member after this user.
pub fn of_members(start: u64) -> String {
    encode(MEMBERS, start)
}

/// The rule for the `page` of a list of chats.
pub fn chats(value: &Value) -> Result<u64, Fault> {
    decode(CHATS, value)
}

/// The rule for the `page` of a list of members.
pub fn members(value: &Value) -> Result<u64, Fault> {
    decode(MEMBERS, value)
}

fn encode(list: u8, start: u64) -> String {
    let mut bytes = vec![list];
    bytes.extend(start.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(list: u8, value: &Value) -> Result<u64, Fault> {
    let bytes =
        URL_SAFE_NO_PAD.decode(value.as_str().ok_or(Fault::Mistyped)?).map_err(|_| Fault::OutOfRange)?;
    let (first, rest) = bytes.split_first().ok_or(Fault::OutOfRange)?;
    let rest: [u8; 8] = rest.try_into().map_err(|_| Fault::OutOfRange)?;
    Some(u64::from_be_bytes(rest))
        .filter(|start| *first == list && *start <= shared::id::MAX_ID)
        .ok_or(Fault::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_of_their_list() {
        let page = Value::String(of_chats(4_711));
        assert_eq!(chats(&page), Ok(4_711));
        assert_eq!(members(&page), Err(Fault::OutOfRange));
        for bad in ["", "!", "YQ", "Y_________8"] {
            assert_eq!(chats(&Value::String(bad.to_owned())), Err(Fault::OutOfRange), "{bad}");
        }
    }
}
