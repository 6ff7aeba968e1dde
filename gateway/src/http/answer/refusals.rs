//! The refusals that the OpenAPI document lists: each is a problem document with a status of its own.
//!
//! A route lists the names of its refusals beside its answers, so the type and the content type of problem documents
//! are said here alone. Invariant: if two entries of a route's list have the same status, the later one is documented;
//! so a refusal that is special to one route stands after the group that it corrects.

use std::collections::BTreeMap;

use utoipa::{
    IntoResponses, ToSchema,
    openapi::{
        ContentBuilder, Ref, RefOr,
        response::{Response, ResponseBuilder},
    },
};

use super::problem::ProblemBody;

/// Declares types that a `#[utoipa::path]` lists among its responses, each with statuses and their descriptions.
macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident { $($status:literal: $description:literal,)+ })+) => {$(
        $(#[$doc])*
        pub enum $name {}

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                [$(($status, $description)),+].into_iter().map(problem).collect()
            }
        }
    )+};
}

refusals! {
    /// A call that needs an access token.
    Unauthenticated { 401: "`auth.*`", }
    /// A call with fields in its body, its query or its path.
    Invalid { 422: "`request.invalid`", }
    /// A call with a body: one that is no JSON, comes too slowly, is too long, or of another type.
    WithBody {
        400: "`request.malformed`",
        408: "the body did not arrive in time",
        413: "`request.too_large`",
        415: "a body of another type than JSON",
    }
    /// A call that is counted against a limit.
    Limited { 429: "`rate.limited`", }
    /// A call that the refresh token's cookie authenticates: only our own pages may make it.
    FromForeignPage { 403: "a foreign `Origin`", }

    /// A read in a chat.
    ReadInChat {
        401: "`auth.*`",
        404: "`chat.not_found`",
        422: "`request.invalid`",
        429: "`rate.limited`",
        503: "`server.unavailable`",
    }
    /// A read while too many answers wait to be read, or a dependency is away.
    PagesFull { 503: "`server.unavailable`", }
    /// A command to a group.
    CommandToGroup {
        401: "`auth.*`",
        403: "`chat.forbidden`",
        404: "`chat.not_found`",
        422: "`request.invalid`",
        429: "`rate.limited`",
        503: "`log.unavailable`, `log.full`",
    }

    /// Registering with an e-mail that has an account, or while the queue of passwords is full.
    EmailTaken {
        409: "`auth.email_taken`",
        503: "`server.unavailable`: too many passwords wait to be hashed",
    }
    /// A login with a wrong e-mail or password, or while the queue of passwords is full.
    LoginFailed {
        401: "`auth.invalid_credentials`",
        503: "`server.unavailable`: too many passwords wait to be checked",
    }
    /// A refresh without a token that can be exchanged.
    RefreshFailed { 401: "`auth.missing`, `auth.invalid_token`, `auth.expired`, `auth.revoked`", }
    /// A logout without a refresh token that is known.
    LogoutFailed { 401: "`auth.missing`, `auth.invalid_token`", }

    /// A user that does not exist.
    NoSuchUser { 404: "`user.not_found`", }
    /// A device that is not one of the caller's.
    NoSuchDevice { 404: "the caller has no such device", }
    /// A ticket while Redis is away.
    NoTickets { 503: "`server.unavailable`", }

    /// Creating a chat under a key of another one, with too many members or such that do not want to be added, or while
    /// a dependency is away.
    ChatNotCreated {
        403: "`member.refused`",
        409: "`command.uuid_reused`",
        422: "`request.invalid`, `limit.exceeded`",
        503: "`log.unavailable`, `log.full`, `server.unavailable`",
    }
    /// Adding members to a full chat, or such that do not want to be added or are in too many groups.
    MemberNotAdded {
        403: "`chat.forbidden`, `member.refused`",
        409: "`chat.full`",
        422: "`request.invalid`, `limit.exceeded`",
        503: "`log.unavailable`, `log.full`, `server.unavailable`",
    }
    /// A command about one member of a group, who may be unknown, or the last owner.
    MemberUnchanged {
        404: "`chat.not_found`, `member.not_found`",
        409: "`chat.last_owner`",
    }
    /// Removing a member, which is possible also when the log is full.
    MemberNotRemoved { 503: "`log.unavailable`", }
    /// A message whose uuid stands for another one, or that replies to no message of the chat.
    MessageNotSent {
        404: "`chat.not_found`",
        409: "`command.uuid_reused`",
        422: "`request.invalid`, `message.bad_reply`",
        429: "`rate.limited`",
        503: "`log.unavailable`, `log.full`",
    }

    /// A WebSocket that is not opened.
    NoWebSocket {
        400: "`request.malformed`: a key that is none, or a body",
        401: "`auth.*`",
        403: "a foreign `Origin`",
        426: "no opening handshake",
        429: "`rate.limited`",
        503: "`server.*`",
    }
}

fn problem((status, description): (u16, &str)) -> (String, RefOr<Response>) {
    let schema = Ref::from_schema_name(ProblemBody::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let response =
        ResponseBuilder::new().description(description).content("application/problem+json", content);
    (status.to_string(), response.build().into())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use shared::code::Code;

    /// Every refusal in the document: its status, its description, and the content of its body.
    fn documented() -> Vec<(String, String, Value)> {
        let (_router, document) = crate::http::documented().split_for_parts();
        let document = serde_json::to_value(&document).unwrap();
        let mut found = Vec::new();
        for operation in
            document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap())
        {
            for (status, response) in operation.1["responses"].as_object().unwrap() {
                let content = &response["content"]["application/problem+json"];
                if !content.is_null() {
                    let description = response["description"].as_str().unwrap().to_owned();
                    found.push((status.clone(), description, content.clone()));
                }
            }
        }
        found
    }

    #[test]
    fn each_documented_code_exists_and_has_the_documented_status() {
        let refusals = documented();
        assert!(refusals.len() > 70, "{}", refusals.len());
        for (status, description, content) in refusals {
            assert_eq!(content["schema"]["$ref"], "#/components/schemas/Problem");
            // Codes stand between backticks; `auth.*` stands for a family of them.
            let quoted = description.split('`').skip(1).step_by(2);
            for name in quoted.filter(|text| text.contains('.') && !text.ends_with('*')) {
                let code = Code::ALL.into_iter().find(|code| code.as_str() == name);
                assert_eq!(code.map(|code| code.status().to_string()), Some(status.clone()), "{name}");
            }
        }
    }
}
