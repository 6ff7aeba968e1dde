//! The frames that the server sends.

use std::borrow::Cow;

use uuid::Uuid;

use super::{
    declare::{Declared, Frame, declared},
    event_data::EventData,
};
use crate::{
    event::Mention,
    id::{ChatId, Seq, UserId},
    value::{
        Fault, Fields, Raw, Sink, Value, msgpack, object,
        sink::{Buffer, Json, Msgpack},
        word,
    },
};

frame! {
    /// The first frame of a session.
    Welcome = 1, "Welcome" {
        v: u32 => "v",
        session_id: String => "sessionId",
        user_id: UserId => "userId",
        device_id: String => "deviceId",
        server_ts: u64 => "serverTs",
        heartbeat_ms: u64 => "heartbeatMs",
        /// Whether the cursor was taken.
        resumed: bool => "resumed",
        limits: Limits => "limits",
        reconnect: Reconnect => "reconnect",
    }
}

/// The limits of this session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub frame_bytes: u32,
    pub body_bytes: u32,
    /// Commands without an answer yet.
    pub inflight: u32,
    pub msg_per_sec: u32,
    /// User ids in `WatchPresence`.
    pub watch: u32,
}

object!(Limits {
    frame_bytes => "frameBytes",
    body_bytes => "bodyBytes",
    inflight => "inflight",
    msg_per_sec => "msgPerSec",
    watch => "watch",
});

/// The client's pauses before a reconnect: they double between the bounds, and start again after a stable spell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconnect {
    pub base_ms: u64,
    pub max_ms: u64,
    pub jitter: Cow<'static, str>,
    pub stable_ms: u64,
}

object!(Reconnect { base_ms => "baseMs", max_ms => "maxMs", jitter => "jitter", stable_ms => "stableMs" });

frame! {
    /// A message of a chat, live, in a replay or in a page.
    Message = 2, "Message" {
        chat_id: ChatId => "chatId",
        seq: Seq => "seq",
        prev: Seq => "prev",
        uuid: Uuid => "uuid",
        from: UserId => "from",
        body: String => "body",
        ts: u64 => "ts",
        reply_to: Option<Seq> => "replyTo",
        mentions: Vec<Mention> => "mentions" or_empty,
    }
}

/// A durable event of a chat that is no message. `kind` on the wire is [`EventData::kind`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub chat_id: ChatId,
    pub seq: Seq,
    pub prev: Seq,
    pub from: UserId,
    pub ts: u64,
    pub data: EventData,
}

impl Event {
    /// The fields in front of `data`.
    const HEAD: usize = 7;
}

impl Frame for Event {
    const KIND: u8 = 3;
    const TYPE: &'static str = "Event";
    const FIELDS: &'static [&'static str] = &["chatId", "seq", "prev", "kind", "from", "ts", "data"];

    fn put_json(&self, out: &mut Vec<u8>) {
        let mut sink = Json(out);
        sink.open_object(0);
        sink.key("type", "\"type\":");
        sink.text(Self::TYPE);
        sink.key("chatId", "\"chatId\":");
        self.chat_id.put(&mut sink);
        sink.key("seq", "\"seq\":");
        self.seq.put(&mut sink);
        sink.key("prev", "\"prev\":");
        self.prev.put(&mut sink);
        sink.key("kind", "\"kind\":");
        sink.text(self.data.kind());
        sink.key("from", "\"from\":");
        self.from.put(&mut sink);
        sink.key("ts", "\"ts\":");
        self.ts.put(&mut sink);
        sink.key("data", "\"data\":");
        self.data.put(&mut sink);
        sink.close_object();
    }

    fn put_msgpack(&self, out: &mut Vec<u8>) {
        let mut sink = Msgpack(out);
        sink.open_list(1 + Self::HEAD);
        sink.uint(Self::KIND.into());
        self.chat_id.put(&mut sink);
        self.seq.put(&mut sink);
        self.prev.put(&mut sink);
        sink.text(self.data.kind());
        self.from.put(&mut sink);
        self.ts.put(&mut sink);
        self.data.put(&mut sink);
    }

    fn read(fields: &Fields<'_>) -> Result<Self, Fault> {
        let kind: String = fields.get("kind")?;
        Ok(Self {
            chat_id: fields.get("chatId")?,
            seq: fields.get("seq")?,
            prev: fields.get("prev")?,
            from: fields.get("from")?,
            ts: fields.get("ts")?,
            data: fields
                .get_as("data", "an object that fits the kind", None, |raw| EventData::get(&kind, raw))?,
        })
    }
}

frame! {
    /// The log has the command, and its place in the order made it valid.
    Ack = 4, "Ack" {
        uuid: Uuid => "uuid",
        chat_id: ChatId => "chatId",
        seq: Seq => "seq",
        ts: u64 => "ts",
        /// It had been stored before.
        dup: bool => "dup",
    }
}

frame! {
    /// A command or frame was refused, or its outcome is unknown (`temporary`).
    Error = 5, "Error" {
        uuid: Option<Uuid> => "uuid",
        code: Cow<'static, str> => "code",
        temporary: bool => "temporary",
        retry_after_ms: u64 => "retryAfterMs",
        message: String => "message",
        trace_id: Option<String> => "traceId",
    }
}

frame! {
    /// The past is delivered; what follows is live.
    Live = 6, "Live" {
        cursor: String => "cursor",
        replayed: u64 => "replayed",
    }
}

frame! {
    /// Where to resume: covers every durable event sent before it.
    Cursor = 7, "Cursor" {
        cursor: String => "cursor",
    }
}

frame! {
    /// The answer to `Fetch`.
    Page = 8, "Page" {
        uuid: Uuid => "uuid",
        chat_id: ChatId => "chatId",
        /// `Message` and `Event` frames alone, ascending.
        events: Vec<ServerFrame> => "events",
        more: bool => "more",
    }
}

/// The frames that pages hold. No page holds a page, so frames nest one level deep.
const DURABLE: [Declared; 2] = [declared::<Message>(), declared::<Event>()];

impl Value for ServerFrame {
    const EXPECTED: &'static str = "a Message or Event frame";

    fn put(&self, sink: &mut impl Sink) {
        match sink.buffer() {
            Buffer::Json(out) => self.put_json(out),
            Buffer::Msgpack(out) => self.put_msgpack(out),
        }
    }

    fn get(raw: Raw<'_>) -> Option<Self> {
        let (kind, fields) = durable(raw)?;
        if kind == Message::KIND {
            Message::read(&fields).map(Self::Message).ok()
        } else {
            Event::read(&fields).map(Self::Event).ok()
        }
    }
}

/// The kind and fields of a frame inside a page.
fn durable(raw: Raw<'_>) -> Option<(u8, Fields<'_>)> {
    match raw {
        Raw::Json(_) => {
            let fields = raw.object(&[Message::FIELDS, Event::FIELDS])?;
            let name = fields.get::<String>("type").ok()?;
            DURABLE.iter().find(|frame| frame.name == name).map(|frame| (frame.kind, fields))
        }
        Raw::Msgpack(raw) => {
            let mut elements = msgpack::elements(raw)?;
            let kind = elements.next().and_then(|raw| Raw::Msgpack(raw).uint())?;
            let frame = DURABLE.iter().find(|frame| u64::from(frame.kind) == kind)?;
            Some((frame.kind, Fields::in_order(frame.fields, elements.map(Raw::Msgpack))))
        }
    }
}

frame! {
    /// How far members have read and received.
    Receipts = 9, "Receipts" {
        chat_id: ChatId => "chatId",
        receipts: Vec<Receipt> => "receipts",
    }
}

/// One member's marks; 0 is "nothing yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub user_id: UserId,
    pub read_seq: Seq,
    pub delivered_seq: Seq,
}

object!(Receipt { user_id => "userId", read_seq => "readSeq", delivered_seq => "deliveredSeq" });

frame! {
    /// A watched user came, went, or stepped away.
    Presence = 10, "Presence" {
        user_id: UserId => "userId",
        state: PresenceState => "state",
        last_seen_ts: u64 => "lastSeenTs",
    }
}

/// Whether a user is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PresenceState {
    Online,
    Away,
    Offline,
}

impl PresenceState {
    /// The text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Away => "away",
            Self::Offline => "offline",
        }
    }

    /// The inverse of [`PresenceState::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Online, Self::Away, Self::Offline].into_iter().find(|state| state.as_str() == text)
    }
}

word!(PresenceState, "online, away or offline");

frame! {
    /// A member is typing; holds for `ttl_ms` unless repeated.
    Typing = 11, "Typing" {
        chat_id: ChatId => "chatId",
        user_id: UserId => "userId",
        ttl_ms: u64 => "ttlMs",
    }
}

frame! {
    /// The session reads too slowly and is fed from the log until it has caught up.
    Lagging = 12, "Lagging" {
        behind: u64 => "behind",
    }
}

frame! {
    /// The gateway shuts down and will close this session.
    Drain = 13, "Drain" {
        within_ms: u64 => "withinMs",
    }
}

frame! {
    /// The session's token expires soon.
    AuthExpiring = 14, "AuthExpiring" {
        in_ms: u64 => "inMs",
    }
}

frame! {
    /// The application's heartbeat: answer with `Pong` of the same `t`.
    Ping = 15, "Ping" {
        t: u64 => "t",
    }
}

frame! {
    /// The answer to `Ping`.
    Pong = 16, "Pong" {
        t: u64 => "t",
    }
}

frame! {
    /// The log lost its tail: what the chat had after `after_seq` is void.
    Reset = 17, "Reset" {
        chat_id: ChatId => "chatId",
        after_seq: Seq => "afterSeq",
        cursor: String => "cursor",
    }
}

frame! {
    /// The answer to `Auth`.
    AuthOk = 18, "AuthOk" {
        expires_in_ms: u64 => "expiresInMs",
    }
}

frames! {
    /// Any frame that the server sends.
    ServerFrame {
        Message(Message),
        Ack(Ack),
        Event(Event),
        Welcome(Welcome),
        Error(Error),
        Live(Live),
        Cursor(Cursor),
        Page(Page),
        Receipts(Receipts),
        Presence(Presence),
        Typing(Typing),
        Lagging(Lagging),
        Drain(Drain),
        AuthExpiring(AuthExpiring),
        Ping(Ping),
        Pong(Pong),
        Reset(Reset),
        AuthOk(AuthOk),
    }
}
