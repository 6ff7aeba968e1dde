//! The types of ids and texts in the OpenAPI document, with their bounds.
//!
//! The comments on types and fields here are texts of the document. Only schemas are made of these types.

#![allow(dead_code, reason = "only their schemas are used")]

use utoipa::ToSchema;

/// The id of a user or a chat.
#[derive(ToSchema)]
#[schema(minimum = 1, maximum = 9007199254740991_i64, example = 7)]
pub struct Id(u64);

/// A place in the log; 0 stands before the first.
#[derive(ToSchema)]
#[schema(as = Seq, minimum = 0, maximum = 9007199254740991_i64, example = 4711)]
pub struct SeqText(u64);

/// One visible line, without control characters, its bidi controls balanced. Spaces around it are taken off.
#[derive(ToSchema)]
#[schema(
    min_length = 1,
    max_length = 128,
    pattern = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]+$",
    example = "Ada"
)]
pub struct Name(String);

/// A text, kept verbatim: not blank, at most 16,384 bytes of UTF-8. U+0000 becomes U+FFFD.
#[derive(ToSchema)]
#[schema(as = Body, min_length = 1, max_length = 16384, example = "Hello, World!")]
pub struct BodyText(String);

/// 1: direct, 2: group.
#[derive(ToSchema)]
#[schema(as = ChatType, minimum = 1, maximum = 2, example = 2)]
pub struct ChatTypeNumber(u8);

/// A member's role.
#[derive(ToSchema)]
#[schema(as = Role, rename_all = "lowercase")]
pub enum RoleText {
    Member,
    Admin,
    Owner,
}

/// Whether members read what was written before they joined.
#[derive(ToSchema)]
#[schema(as = History, rename_all = "lowercase")]
pub enum HistoryText {
    All,
    Join,
}

/// `contacts`: people with whom one shares a direct chat that one has begun or written in.
#[derive(ToSchema)]
#[schema(as = GroupInvites, rename_all = "lowercase")]
pub enum GroupInvitesText {
    Everyone,
    Contacts,
    Nobody,
}

/// A user who is named in a text, as a range of UTF-16 units. A range cuts no character.
#[derive(ToSchema)]
#[schema(as = Mention, rename_all = "camelCase")]
pub struct MentionSchema {
    #[schema(value_type = Id)]
    user_id: u64,
    #[schema(maximum = 4294967295_i64)]
    start: u32,
    #[schema(minimum = 1, maximum = 4294967295_i64)]
    length: u32,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use shared::{
        id::MAX_ID,
        text::{MAX_BODY_BYTES, MAX_NAME_CHARS},
    };

    use super::*;

    fn schema<T: ToSchema>() -> Value {
        serde_json::to_value(T::schema()).unwrap()
    }

    #[test]
    fn bounds_are_those_of_the_rules() {
        assert_eq!(
            (schema::<Id>()["minimum"].as_u64(), schema::<Id>()["maximum"].as_u64()),
            (Some(1), Some(MAX_ID))
        );
        assert_eq!(schema::<SeqText>()["maximum"].as_u64(), Some(MAX_ID));
        assert_eq!(schema::<Name>()["maxLength"], MAX_NAME_CHARS);
        assert_eq!(schema::<BodyText>()["maxLength"], MAX_BODY_BYTES);
    }
}
