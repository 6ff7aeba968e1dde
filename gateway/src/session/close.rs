//! Why the gateway closes a session: the close codes of the protocol, and when to come back.

/// A close code. `44xx`: reconnect and resume. `45xx`: do not reconnect unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Close {
    Draining,
    Internal,
    TokenExpired,
    TooSlow,
    NoHeartbeat,
    Flooding,
    Malformed,
    Revoked,
    TooManySessions,
    UnsupportedVersion,
    FrameTooLarge,
    /// RFC 6455: a violation of the WebSocket protocol itself.
    Protocol,
    /// RFC 6455: text that is not UTF-8.
    NotUtf8,
}

impl Close {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Self::Draining => 4401,
            Self::Internal => 4404,
            Self::TokenExpired => 4405,
            Self::TooSlow => 4408,
            Self::NoHeartbeat => 4412,
            Self::Flooding => 4429,
            Self::Malformed => 4501,
            Self::Revoked => 4503,
            Self::TooManySessions => 4504,
            Self::UnsupportedVersion => 4505,
            Self::FrameTooLarge => 4506,
            Self::Protocol => 1002,
            Self::NotUtf8 => 1007,
        }
    }

    /// The reason beside the code, also the label of the metric.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Internal => "internal",
            Self::TokenExpired => "token expired",
            Self::TooSlow => "too slow",
            Self::NoHeartbeat => "no heartbeat",
            Self::Flooding => "flooding",
            Self::Malformed => "malformed frames",
            Self::Revoked => "revoked",
            Self::TooManySessions => "too many sessions",
            Self::UnsupportedVersion => "unsupported version",
            Self::FrameTooLarge => "frame too large",
            Self::Protocol => "protocol error",
            Self::NotUtf8 => "text is not UTF-8",
        }
    }
}

impl Close {
    const ALL: [Self; 13] = [
        Self::Draining,
        Self::Internal,
        Self::TokenExpired,
        Self::TooSlow,
        Self::NoHeartbeat,
        Self::Flooding,
        Self::Malformed,
        Self::Revoked,
        Self::TooManySessions,
        Self::UnsupportedVersion,
        Self::FrameTooLarge,
        Self::Protocol,
        Self::NotUtf8,
    ];

    /// The reason that belongs to a code.
    pub fn reason_of(code: u16) -> &'static str {
        Self::ALL.into_iter().find(|close| close.code() == code).map_or("", Self::reason)
    }
}
