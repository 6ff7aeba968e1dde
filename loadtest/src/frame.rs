//! The frames that the server sends, as a client reads them.
//!
//! One flat struct with borrowed fields takes every frame in a single pass without allocating; a tagged enum would
//! first build a tree of each frame. [`Incoming`] then gives the fields their meaning.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

/// The fields of all server frames. Unknown ones are ignored, as the protocol asks.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    frame: Cow<'a, str>,
    chat_id: u64,
    seq: u64,
    prev: u64,
    #[serde(borrow)]
    uuid: Option<Cow<'a, str>>,
    from: u64,
    #[serde(borrow)]
    body: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    dup: bool,
    #[serde(borrow)]
    code: Cow<'a, str>,
    temporary: bool,
    retry_after_ms: u64,
    #[serde(borrow)]
    cursor: Cow<'a, str>,
    replayed: u64,
    resumed: bool,
    user_id: u64,
    heartbeat_ms: u64,
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    more: bool,
    behind: u64,
    within_ms: u64,
    after_seq: u64,
    t: u64,
}

/// One frame.
#[derive(Debug)]
pub enum Incoming<'a> {
    Welcome { user: u64, resumed: bool, heartbeat_ms: u64 },
    Durable(Durable<'a>),
    Ack { uuid: Uuid, chat: u64, seq: u64, dup: bool },
    Refused { uuid: Option<Uuid>, code: Cow<'a, str>, temporary: bool, retry_after_ms: u64 },
    Live { cursor: Cow<'a, str>, replayed: u64 },
    Cursor { cursor: Cow<'a, str> },
    Page { uuid: Option<Uuid>, chat: u64, events: Vec<&'a RawValue>, more: bool },
    Reset { chat: u64, after: u64, cursor: Cow<'a, str> },
    Lagging { behind: u64 },
    Drain { within_ms: u64 },
    Ping { t: u64 },
    Other(Cow<'a, str>),
}

/// A durable event of a chat.
#[derive(Debug)]
pub struct Durable<'a> {
    pub chat: u64,
    pub seq: u64,
    pub prev: u64,
    pub from: u64,
    pub kind: Kind,
    /// The uuid of a message; nil for other kinds.
    pub uuid: Uuid,
    pub body: Cow<'a, str>,
    pub data: Option<&'a RawValue>,
}

/// The kind of a durable event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Message,
    ChatCreated,
    MemberJoined,
    MemberLeft,
    RoleChanged,
    TitleChanged,
    SettingsChanged,
    Edited,
    Deleted,
    Reaction,
    Noop,
    /// The kind is that of a newer server.
    Unknown,
}

impl Kind {
    fn parse(text: &str) -> Self {
        match text {
            "chatCreated" => Self::ChatCreated,
            "memberJoined" => Self::MemberJoined,
            "memberLeft" => Self::MemberLeft,
            "roleChanged" => Self::RoleChanged,
            "titleChanged" => Self::TitleChanged,
            "settingsChanged" => Self::SettingsChanged,
            "edited" => Self::Edited,
            "deleted" => Self::Deleted,
            "reaction" => Self::Reaction,
            "noop" => Self::Noop,
            _ => Self::Unknown,
        }
    }
}

/// The parts of `Event.data` that a checker needs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Change {
    pub member_ids: Vec<u64>,
    pub members: Vec<Member>,
    pub user_id: u64,
    pub seq: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Member {
    pub user_id: u64,
}

/// Why a text is no frame of the protocol.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("not a frame: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{frame} without a valid {field}")]
    Field { frame: &'static str, field: &'static str },
}

impl<'a> Incoming<'a> {
    /// # Errors
    /// When the text is not a frame of the protocol.
    pub fn parse(text: &'a str) -> Result<Self, Broken> {
        let fields: Fields<'a> = serde_json::from_str(text)?;
        let uuid = fields.uuid.as_deref().and_then(|text| Uuid::try_parse(text).ok());
        Ok(match &*fields.frame {
            "Message" | "Event" => Self::Durable(durable(fields, uuid)?),
            "Ack" => {
                let uuid = uuid.ok_or(Broken::Field { frame: "Ack", field: "uuid" })?;
                Self::Ack { uuid, chat: fields.chat_id, seq: fields.seq, dup: fields.dup }
            }
            "Error" => Self::Refused {
                uuid,
                code: fields.code,
                temporary: fields.temporary,
                retry_after_ms: fields.retry_after_ms,
            },
            "Welcome" => Self::Welcome {
                user: fields.user_id,
                resumed: fields.resumed,
                heartbeat_ms: fields.heartbeat_ms,
            },
            "Live" => Self::Live { cursor: fields.cursor, replayed: fields.replayed },
            "Cursor" => Self::Cursor { cursor: fields.cursor },
            "Page" => Self::Page { uuid, chat: fields.chat_id, events: fields.events, more: fields.more },
            "Reset" => Self::Reset { chat: fields.chat_id, after: fields.after_seq, cursor: fields.cursor },
            "Lagging" => Self::Lagging { behind: fields.behind },
            "Drain" => Self::Drain { within_ms: fields.within_ms },
            "Ping" => Self::Ping { t: fields.t },
            _ => Self::Other(fields.frame),
        })
    }
}

fn durable<'a>(fields: Fields<'a>, uuid: Option<Uuid>) -> Result<Durable<'a>, Broken> {
    let message = fields.frame == "Message";
    let frame = if message { "Message" } else { "Event" };
    if fields.chat_id == 0 {
        return Err(Broken::Field { frame, field: "chatId" });
    }
    if fields.seq == 0 {
        return Err(Broken::Field { frame, field: "seq" });
    }
    if fields.from == 0 {
        return Err(Broken::Field { frame, field: "from" });
    }
    let (kind, uuid) = if message {
        (Kind::Message, uuid.ok_or(Broken::Field { frame, field: "uuid" })?)
    } else {
        (Kind::parse(&fields.kind), Uuid::nil())
    };
    Ok(Durable {
        chat: fields.chat_id,
        seq: fields.seq,
        prev: fields.prev,
        from: fields.from,
        kind,
        uuid,
        body: fields.body,
        data: fields.data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_in_one_pass() {
        let text = r#"{"type":"Message","chatId":1,"seq":4711,"prev":4702,
            "uuid":"0192c3f0-0000-7000-8000-000000000001","from":7,"body":"Hi \"you\"","ts":0,"mentions":[]}"#;
        let Ok(Incoming::Durable(message)) = Incoming::parse(text) else { panic!("no message") };
        assert_eq!((message.chat, message.seq, message.prev, message.from), (1, 4711, 4702, 7));
        assert_eq!((message.kind, &*message.body), (Kind::Message, "Hi \"you\""));
    }

    #[test]
    fn a_durable_frame_without_its_position_is_broken() {
        for text in [
            r#"{"type":"Message","seq":1,"from":1,"uuid":"0192c3f0-0000-7000-8000-000000000001"}"#,
            r#"{"type":"Message","chatId":1,"from":1,"uuid":"0192c3f0-0000-7000-8000-000000000001"}"#,
            r#"{"type":"Message","chatId":1,"seq":1,"from":1}"#,
            r#"{"type":"Ack","chatId":1,"seq":1}"#,
            r#"{"type":"Message","chatId":"1"}"#,
            "nonsense",
        ] {
            assert!(Incoming::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn unknown_frames_are_passed_on() {
        assert!(matches!(Incoming::parse(r#"{"type":"New","x":[1]}"#), Ok(Incoming::Other(_))));
    }
}
