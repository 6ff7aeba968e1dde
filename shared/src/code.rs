//! The closed set of error codes that clients see, over HTTP and WebSocket alike.
//!
//! A code is never reused for another meaning. Each code has its HTTP status and its human title. A code does not say
//! whether a retry helps: the place that knows the failure sets `temporary` in the answer.

/// Declares [`Code`], [`Code::ALL`] and what is said of each code from one list, so that none of them can lack a code.
macro_rules! codes {
    ($($code:ident = ($text:literal, $status:literal, $title:literal)),* $(,)?) => {
        /// A stable error code. The text is [`Code::as_str`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($code,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: [Self; [$($status),*].len()] = [$(Self::$code),*];

            const fn row(self) -> (&'static str, u16, &'static str) {
                match self {
                    $(Self::$code => ($text, $status, $title),)*
                }
            }
        }
    };
}

codes! {
    AuthMissing = ("auth.missing", 401, "Authentication is required"),
    AuthInvalidToken = ("auth.invalid_token", 401, "The token is not valid"),
    AuthInvalidCredentials = ("auth.invalid_credentials", 401, "E-mail or password is wrong"),
    AuthExpired = ("auth.expired", 401, "The token has expired"),
    AuthRevoked = ("auth.revoked", 401, "The token was revoked"),
    AuthMismatch = ("auth.mismatch", 403, "The token belongs to another user or device"),
    AuthEmailTaken = ("auth.email_taken", 409, "The e-mail is already registered"),
    RequestMalformed = ("request.malformed", 400, "The request cannot be parsed"),
    RequestInvalid = ("request.invalid", 422, "A field is missing or out of range"),
    RequestTooLarge = ("request.too_large", 413, "The request is too large"),
    FrameMalformed = ("frame.malformed", 400, "The frame cannot be parsed"),
    CommandInvalid = ("command.invalid", 422, "A field of the command is missing or out of range"),
    CommandUuidReused = ("command.uuid_reused", 409, "The uuid was used for another command"),
    ChatNotFound = ("chat.not_found", 404, "There is no such chat"),
    ChatForbidden = ("chat.forbidden", 403, "Your role in the chat does not allow this"),
    ChatLastOwner = ("chat.last_owner", 409, "The last owner cannot leave or step down"),
    ChatFull = ("chat.full", 409, "The chat has no room for more members"),
    UserNotFound = ("user.not_found", 404, "There is no such user"),
    MemberNotFound = ("member.not_found", 404, "The user is no member of the chat"),
    MemberRefused = ("member.refused", 403, "A user does not let you add them"),
    MessageNotFound = ("message.not_found", 404, "There is no such message in the chat"),
    MessageNotAuthor = ("message.not_author", 403, "The message is another user's"),
    MessageDeleted = ("message.deleted", 409, "The message was deleted"),
    MessageBadReply = ("message.bad_reply", 422, "The message replied to is not in the chat"),
    ReadBeyondHead = ("read.beyond_head", 422, "The sequence is beyond the head of the chat"),
    CursorInvalid = ("cursor.invalid", 400, "The cursor is damaged, foreign or void"),
    CursorExpired = ("cursor.expired", 410, "The cursor is older than the log's retention"),
    LimitExceeded = ("limit.exceeded", 422, "A limit was exceeded"),
    RateLimited = ("rate.limited", 429, "Too many requests"),
    LogUnavailable = ("log.unavailable", 503, "The log is unavailable"),
    LogFull = ("log.full", 503, "The log is full"),
    ServerUnavailable = ("server.unavailable", 503, "A dependency is unavailable"),
    ServerInternal = ("server.internal", 500, "Something went wrong on our side"),
    ServerDraining = ("server.draining", 503, "The server is shutting down"),
}

impl Code {
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
