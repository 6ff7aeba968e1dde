//! The `data` of an `Event` frame: one object for each kind of durable event that is no message.

use crate::{
    event::{MemberLeft, MembersJoined, Mention, RoleChanged, SettingsChanged, TitleChanged},
    id::{Seq, UserId},
    permission::ChatType,
    value::{Raw, Sink, Value, object},
};

/// Declares [`EventData`]: one line a kind, with its object and its name on the wire.
macro_rules! event_data {
    ($($(#[$doc:meta])* $variant:ident($data:ty) = $name:literal),* $(,)?) => {
        /// The `data` of an `Event`, by its `kind`.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum EventData {
            $($(#[$doc])* $variant($data),)*
        }

        impl EventData {
            /// Every kind on the wire.
            pub const KINDS: &'static [&'static str] = &[$($name),*];

            /// The `kind` on the wire.
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            pub(crate) fn put(&self, sink: &mut impl Sink) {
                match self {
                    $(Self::$variant(data) => data.put(sink),)*
                }
            }

            /// `None` if the object does not fit the kind, or if the kind is that of a newer server.
            pub(crate) fn get(kind: &str, raw: Raw<'_>) -> Option<Self> {
                match kind {
                    $($name => Value::get(raw).map(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

event_data! {
    ChatCreated(ChatCreated) = "chatCreated",
    MemberJoined(MembersJoined) = "memberJoined",
    MemberLeft(MemberLeft) = "memberLeft",
    RoleChanged(RoleChanged) = "roleChanged",
    TitleChanged(TitleChanged) = "titleChanged",
    SettingsChanged(SettingsChanged) = "settingsChanged",
    Edited(Edited) = "edited",
    Deleted(Deleted) = "deleted",
    Reaction(Reaction) = "reaction",
    /// Nothing happened; the event only takes its place in the order.
    Noop(()) = "noop",
}

/// A chat was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatCreated {
    pub chat_type: ChatType,
    pub title: Option<String>,
    /// The first [`MAX_MEMBER_IDS`](super::MAX_MEMBER_IDS), ascending.
    pub member_ids: Vec<UserId>,
    pub member_count: u64,
}

/// The message at `seq` has a new body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    pub seq: Seq,
    pub body: String,
    pub mentions: Vec<Mention>,
}

/// The message at `seq` was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    pub seq: Seq,
}

/// The sender put the emoji on the message at `seq`, or took it off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    pub seq: Seq,
    pub emoji: String,
    pub on: bool,
}

object!(ChatCreated {
    chat_type => "type",
    title => "title",
    member_ids => "memberIds",
    member_count => "memberCount",
});
object!(Edited { seq => "seq", body => "body", mentions => "mentions" });
object!(Deleted { seq => "seq" });
object!(MembersJoined { members => "members" });
object!(MemberLeft { user_id => "userId", reason => "reason" });
object!(RoleChanged { user_id => "userId", role => "role" });
object!(TitleChanged { title => "title" });
object!(SettingsChanged { history => "history" });
object!(Reaction { seq => "seq", emoji => "emoji", on => "on" });

/// The empty object.
impl Value for () {
    const EXPECTED: &'static str = "an object";

    fn put(&self, sink: &mut impl Sink) {
        sink.open_object(0);
        sink.close_object();
    }

    fn get(raw: Raw<'_>) -> Option<Self> {
        raw.object(&[]).map(|_| ())
    }
}
