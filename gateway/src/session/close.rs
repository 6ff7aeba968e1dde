//! Why the gateway closes a session: the close codes of the protocol, and when to come back.

/// Declares [`Close`] and what is said of each close from one list, so that none of it can lack a close.
macro_rules! closes {
    ($($(#[$doc:meta])* $close:ident = $code:literal, $reason:literal;)*) => {
        /// A close code. `44xx`: reconnect and resume. `45xx`: do not reconnect unchanged.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Close {
            $($(#[$doc])* $close,)*
        }

        impl Close {
            /// The number on the wire.
            pub const fn code(self) -> u16 {
                match self {
                    $(Self::$close => $code,)*
                }
            }

            /// The reason that belongs to a code; it goes on the wire beside the code, and is the label of the metric.
            pub const fn reason_of(code: u16) -> &'static str {
                match code {
                    $($code => $reason,)*
                    _ => "",
                }
            }
        }
    };
}

closes! {
    Draining = 4401, "draining";
    Internal = 4404, "internal";
    TokenExpired = 4405, "token expired";
    TooSlow = 4408, "too slow";
    NoHeartbeat = 4412, "no heartbeat";
    Flooding = 4429, "flooding";
    Malformed = 4501, "malformed frames";
    Revoked = 4503, "revoked";
    TooManySessions = 4504, "too many sessions";
    UnsupportedVersion = 4505, "unsupported version";
    FrameTooLarge = 4506, "frame too large";
    /// RFC 6455: a violation of the WebSocket protocol itself.
    Protocol = 1002, "protocol error";
    /// RFC 6455: text that is not UTF-8.
    NotUtf8 = 1007, "text is not UTF-8";
}
