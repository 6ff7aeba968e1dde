//! The closed set of error codes that clients see, over HTTP and WebSocket alike.
//!
//! A code is never reused for another meaning. Each code has its HTTP status and its human title. A code does not say
//! whether a retry helps: the place that knows the failure sets `temporary` in the answer.

/// A stable error code. The text is [`Code::as_str`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    AuthMissing,
    AuthInvalidToken,
    AuthInvalidCredentials,
    AuthExpired,
    AuthRevoked,
    AuthMismatch,
    AuthEmailTaken,
    RequestMalformed,
    RequestInvalid,
    RequestTooLarge,
    FrameMalformed,
    CommandInvalid,
    CommandUuidReused,
    ChatNotFound,
    ChatForbidden,
    ChatLastOwner,
    ChatFull,
    UserNotFound,
    MemberNotFound,
    MessageNotFound,
    MessageNotAuthor,
    MessageDeleted,
    MessageBadReply,
    ReadBeyondHead,
    CursorInvalid,
    CursorExpired,
    LimitExceeded,
    RateLimited,
    LogUnavailable,
    LogFull,
    ServerUnavailable,
    ServerInternal,
    ServerDraining,
}

impl Code {
    /// Every code, for documentation and exhaustive tests.
    pub const ALL: [Self; 33] = [
        Self::AuthMissing,
        Self::AuthInvalidToken,
        Self::AuthInvalidCredentials,
        Self::AuthExpired,
        Self::AuthRevoked,
        Self::AuthMismatch,
        Self::AuthEmailTaken,
        Self::RequestMalformed,
        Self::RequestInvalid,
        Self::RequestTooLarge,
        Self::FrameMalformed,
        Self::CommandInvalid,
        Self::CommandUuidReused,
        Self::ChatNotFound,
        Self::ChatForbidden,
        Self::ChatLastOwner,
        Self::ChatFull,
        Self::UserNotFound,
        Self::MemberNotFound,
        Self::MessageNotFound,
        Self::MessageNotAuthor,
        Self::MessageDeleted,
        Self::MessageBadReply,
        Self::ReadBeyondHead,
        Self::CursorInvalid,
        Self::CursorExpired,
        Self::LimitExceeded,
        Self::RateLimited,
        Self::LogUnavailable,
        Self::LogFull,
        Self::ServerUnavailable,
        Self::ServerInternal,
        Self::ServerDraining,
    ];

    /// The text on the wire.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status that carries the code.
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// A short human sentence, the same for every occurrence.
    pub const fn title(self) -> &'static str {
        self.row().2
    }

    const fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::AuthMissing => ("auth.missing", 401, "Authentication is required"),
            Self::AuthInvalidToken => ("auth.invalid_token", 401, "The token is not valid"),
            Self::AuthInvalidCredentials => ("auth.invalid_credentials", 401, "E-mail or password is wrong"),
            Self::AuthExpired => ("auth.expired", 401, "The token has expired"),
            Self::AuthRevoked => ("auth.revoked", 401, "The token was revoked"),
            Self::AuthMismatch => ("auth.mismatch", 403, "The token belongs to another user or device"),
            Self::AuthEmailTaken => ("auth.email_taken", 409, "The e-mail is already registered"),
            Self::RequestMalformed => ("request.malformed", 400, "The request cannot be parsed"),
            Self::RequestInvalid => ("request.invalid", 422, "A field is missing or out of range"),
            Self::RequestTooLarge => ("request.too_large", 413, "The request is too large"),
            Self::FrameMalformed => ("frame.malformed", 400, "The frame cannot be parsed"),
            Self::CommandInvalid => {
                ("command.invalid", 422, "A field of the command is missing or out of range")
            }
            Self::CommandUuidReused => ("command.uuid_reused", 409, "The uuid was used for another command"),
            Self::ChatNotFound => ("chat.not_found", 404, "There is no such chat"),
            Self::ChatForbidden => ("chat.forbidden", 403, "Your role in the chat does not allow this"),
            Self::ChatLastOwner => ("chat.last_owner", 409, "The last owner cannot leave or step down"),
            Self::ChatFull => ("chat.full", 409, "The chat has no room for more members"),
            Self::UserNotFound => ("user.not_found", 404, "There is no such user"),
            Self::MemberNotFound => ("member.not_found", 404, "The user is no member of the chat"),
            Self::MessageNotFound => ("message.not_found", 404, "There is no such message in the chat"),
            Self::MessageNotAuthor => ("message.not_author", 403, "The message is another user's"),
            Self::MessageDeleted => ("message.deleted", 409, "The message was deleted"),
            Self::MessageBadReply => ("message.bad_reply", 422, "The message replied to is not in the chat"),
            Self::ReadBeyondHead => ("read.beyond_head", 422, "The sequence is beyond the head of the chat"),
            Self::CursorInvalid => ("cursor.invalid", 400, "The cursor is damaged, foreign or void"),
            Self::CursorExpired => ("cursor.expired", 410, "The cursor is older than the log's retention"),
            Self::LimitExceeded => ("limit.exceeded", 422, "A limit was exceeded"),
            Self::RateLimited => ("rate.limited", 429, "Too many requests"),
            Self::LogUnavailable => ("log.unavailable", 503, "The log is unavailable"),
            Self::LogFull => ("log.full", 503, "The log is full"),
            Self::ServerUnavailable => ("server.unavailable", 503, "A dependency is unavailable"),
            Self::ServerInternal => ("server.internal", 500, "Something went wrong on our side"),
            Self::ServerDraining => ("server.draining", 503, "The server is shutting down"),
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_statuses_are_errors() {
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.as_str()), "{code} stands twice");
            assert!((400..600).contains(&code.status()), "{code}");
        }
    }
}
