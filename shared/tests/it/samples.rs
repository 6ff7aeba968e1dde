//! One sample of every event and frame, with the fixed values that the fixtures hold.

use shared::{
    event::{self, Fact, History, LeaveReason, MemberRole, Mention},
    frame::{self, ClientFrame, EventData, ServerFrame, client},
    id::{ChatId, MAX_ID, Seq, UserId},
    permission::{ChatType, Role},
};
use uuid::Uuid;

pub(crate) const UUID: Uuid = Uuid::from_u128(0x0197_2f6e_8a01_7c3d_9e5f_0123_4567_89ab);
pub(crate) const BODY: &str = "Grüße \"👋\"\n\u{1}";

pub(crate) fn user(id: u64) -> UserId {
    UserId::new(id).unwrap()
}

pub(crate) fn chat(id: u64) -> ChatId {
    ChatId::new(id).unwrap()
}

fn mention() -> Mention {
    Mention { user_id: user(9), start: 7, length: 2 }
}

fn members() -> Vec<MemberRole> {
    [(7, Role::Owner), (9, Role::Admin), (MAX_ID, Role::Member)]
        .map(|(id, role)| MemberRole { user_id: user(id), role })
        .to_vec()
}

/// Every fact of version 1.
pub(crate) fn events() -> Vec<(&'static str, event::Event)> {
    let facts = vec![
        ("noop", Fact::Noop),
        (
            "chat-created-group",
            Fact::ChatCreated(event::ChatCreated {
                chat_type: ChatType::Group,
                title: Some("Team".into()),
                history: History::Join,
                members: members(),
            }),
        ),
        (
            "chat-created-direct",
            Fact::ChatCreated(event::ChatCreated {
                chat_type: ChatType::Direct,
                title: None,
                history: History::All,
                members: members()[..2].to_vec(),
            }),
        ),
        (
            "message-sent",
            Fact::MessageSent(event::MessageSent { body: BODY.into(), reply_to: None, mentions: vec![] }),
        ),
        (
            "message-sent-full",
            Fact::MessageSent(event::MessageSent {
                body: BODY.into(),
                reply_to: Some(Seq(4_650)),
                mentions: vec![mention()],
            }),
        ),
        (
            "message-edited",
            Fact::MessageEdited(event::MessageEdited {
                seq: Seq(4_711),
                author: user(7),
                body: BODY.into(),
                mentions: vec![mention()],
                seen: None,
            }),
        ),
        (
            "message-deleted",
            Fact::MessageDeleted(event::MessageDeleted { seq: Seq(4_711), author: user(9), seen: None }),
        ),
        (
            "reacted",
            Fact::Reacted(event::Reacted { seq: Seq(4_711), emoji: "👍".into(), on: true, seen: None }),
        ),
        ("members-joined", Fact::MembersJoined(event::MembersJoined { members: members() })),
        ("member-left", Fact::MemberLeft(event::MemberLeft { user_id: user(7), reason: LeaveReason::Left })),
        (
            "member-removed",
            Fact::MemberLeft(event::MemberLeft { user_id: user(9), reason: LeaveReason::Removed }),
        ),
        ("role-changed", Fact::RoleChanged(event::RoleChanged { user_id: user(9), role: Role::Owner })),
        ("title-changed", Fact::TitleChanged(event::TitleChanged { title: "Tëam".into() })),
        ("settings-changed", Fact::SettingsChanged(event::SettingsChanged { history: History::Join })),
    ];
    facts.into_iter().map(|(name, fact)| (name, by_a_device(fact, None))).collect()
}

/// What only version 2 can hold.
pub(crate) fn events_of_version_2() -> Vec<(&'static str, event::Event)> {
    let seen = Some(Seq(4_720));
    let facts = vec![
        (
            "message-edited",
            Fact::MessageEdited(event::MessageEdited {
                seq: Seq(4_711),
                author: user(7),
                body: BODY.into(),
                mentions: vec![mention()],
                seen,
            }),
        ),
        (
            "message-deleted",
            Fact::MessageDeleted(event::MessageDeleted { seq: Seq(4_711), author: user(9), seen }),
        ),
        ("reacted", Fact::Reacted(event::Reacted { seq: Seq(4_711), emoji: "👍".into(), on: true, seen })),
    ];
    facts.into_iter().map(|(name, fact)| (name, by_a_device(fact, Some(Seq(4_730))))).collect()
}

fn by_a_device(fact: Fact, unique_as_of: Option<Seq>) -> event::Event {
    event::Event { actor: user(7), device: "web:3f2a".into(), uuid: UUID, fact, unique_as_of }
}

fn message() -> frame::Message {
    frame::Message {
        chat_id: chat(1),
        seq: Seq(4_711),
        prev: Seq(4_702),
        uuid: UUID,
        from: user(7),
        body: BODY.into(),
        ts: 1_764_000_000_123,
        reply_to: None,
        mentions: vec![],
    }
}

fn event(data: EventData) -> frame::Event {
    frame::Event {
        chat_id: chat(1),
        seq: Seq(4_712),
        prev: Seq(4_711),
        from: user(7),
        ts: 1_764_000_000_456,
        data,
    }
}

fn event_frames() -> Vec<(&'static str, ServerFrame)> {
    let data = |fact: Fact| {
        let event =
            event::Event { actor: user(7), device: String::new(), uuid: UUID, fact, unique_as_of: None };
        frame::delivered(chat(1), Seq(4_712), Seq(4_711), 1_764_000_000_456, &event, false)
    };
    let facts = events().into_iter().map(|(name, event)| (name, event.fact));
    facts
        .filter(|(name, _)| !name.starts_with("message-sent"))
        .map(|(name, fact)| (name, data(fact)))
        .collect()
}

/// Every frame that the server sends, with and without its optional fields.
pub(crate) fn server() -> Vec<(String, ServerFrame)> {
    let mut frames: Vec<(String, ServerFrame)> = sessions()
        .into_iter()
        .chain(ephemeral())
        .chain(durable())
        .map(|(name, frame)| (name.to_owned(), frame))
        .collect();
    frames.extend(event_frames().into_iter().map(|(name, frame)| (format!("event-{name}"), frame)));
    frames
}

fn sessions() -> Vec<(&'static str, ServerFrame)> {
    let limits =
        frame::Limits { frame_bytes: 65_536, body_bytes: 16_384, inflight: 64, msg_per_sec: 20, watch: 500 };
    let reconnect =
        frame::Reconnect { base_ms: 500, max_ms: 30_000, jitter: "full".into(), stable_ms: 30_000 };
    vec![
        (
            "welcome",
            frame::Welcome {
                v: 1,
                session_id: "s1".into(),
                user_id: user(7),
                device_id: "web:3f2a".into(),
                server_ts: 1_764_000_000_000,
                heartbeat_ms: 25_000,
                resumed: true,
                limits,
                reconnect,
            }
            .into(),
        ),
        ("live", frame::Live { cursor: "AQID".into(), replayed: 42 }.into()),
        ("cursor", frame::Cursor { cursor: "AQID".into() }.into()),
        ("lagging", frame::Lagging { behind: 812 }.into()),
        ("drain", frame::Drain { within_ms: 20_000 }.into()),
        ("auth-expiring", frame::AuthExpiring { in_ms: 60_000 }.into()),
        ("auth-ok", frame::AuthOk { expires_in_ms: 900_000 }.into()),
        ("reset", frame::Reset { chat_id: chat(1), after_seq: Seq(4_700), cursor: "AQID".into() }.into()),
        ("ping", frame::Ping { t: 1 }.into()),
        ("pong", frame::Pong { t: MAX_ID }.into()),
    ]
}

fn ephemeral() -> Vec<(&'static str, ServerFrame)> {
    let receipt = frame::Receipt { user_id: user(9), read_seq: Seq::ZERO, delivered_seq: Seq(4_711) };
    vec![
        ("receipts", frame::Receipts { chat_id: chat(1), receipts: vec![receipt] }.into()),
        (
            "presence",
            frame::Presence { user_id: user(9), state: frame::PresenceState::Away, last_seen_ts: 0 }.into(),
        ),
        ("typing", frame::Typing { chat_id: chat(1), user_id: user(9), ttl_ms: 6_000 }.into()),
    ]
}

fn durable() -> Vec<(&'static str, ServerFrame)> {
    let full = frame::Message { reply_to: Some(Seq(4_650)), mentions: vec![mention()], ..message() };
    let mentions_only = frame::Message { mentions: vec![mention()], ..message() };
    let error = frame::Error {
        uuid: None,
        code: "chat.not_found".into(),
        temporary: false,
        retry_after_ms: 0,
        message: "There is no such chat".into(),
        trace_id: None,
    };
    let error_full = frame::Error {
        uuid: Some(UUID),
        temporary: true,
        retry_after_ms: 1_000,
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
        ..error.clone()
    };
    let deleted = event(EventData::Deleted(frame::Deleted { seq: Seq(4_711) }));
    vec![
        ("message", message().into()),
        ("message-full", full.into()),
        ("message-mentions", mentions_only.into()),
        (
            "ack",
            frame::Ack { uuid: UUID, chat_id: chat(1), seq: Seq(4_711), ts: 1_764_000_000_123, dup: false }
                .into(),
        ),
        ("error", error.into()),
        ("error-full", error_full.into()),
        ("page-empty", frame::Page { uuid: UUID, chat_id: chat(1), events: vec![], more: false }.into()),
        (
            "page",
            frame::Page {
                uuid: UUID,
                chat_id: chat(1),
                events: vec![message().into(), deleted.into()],
                more: true,
            }
            .into(),
        ),
    ]
}

/// Every frame that a client sends, with and without its optional fields.
pub(crate) fn client() -> Vec<(&'static str, ClientFrame)> {
    let send = client::SendMessage {
        uuid: UUID,
        chat_id: chat(1),
        body: BODY.into(),
        reply_to: None,
        mentions: vec![],
    };
    let send_full =
        client::SendMessage { reply_to: Some(Seq(4_650)), mentions: vec![mention()], ..send.clone() };
    let edit = client::EditMessage {
        uuid: UUID,
        chat_id: chat(1),
        seq: Seq(4_711),
        body: BODY.into(),
        mentions: vec![],
    };
    let edit_full = client::EditMessage { mentions: vec![mention()], ..edit.clone() };
    let fetch = client::Fetch {
        uuid: UUID,
        chat_id: chat(1),
        after: Some(Seq::ZERO),
        limit: Some(100),
        before: None,
    };
    let fetch_before = client::Fetch { after: None, limit: None, before: Some(Seq(4_650)), ..fetch.clone() };
    let watch = client::WatchPresence { user_ids: vec![user(9), user(12)], uuid: None };
    let away = client::SetPresence { state: frame::PresenceState::Away, uuid: None };
    vec![
        ("send-message", send.into()),
        ("send-message-full", send_full.into()),
        ("edit-message", edit.into()),
        ("edit-message-full", edit_full.into()),
        ("delete-message", client::DeleteMessage { uuid: UUID, chat_id: chat(1), seq: Seq(4_711) }.into()),
        (
            "react",
            client::React { uuid: UUID, chat_id: chat(1), seq: Seq(4_711), emoji: "👍".into(), on: true }
                .into(),
        ),
        ("read", client::Read { chat_id: chat(1), seq: Seq(4_711), uuid: None }.into()),
        ("read-full", client::Read { chat_id: chat(1), seq: Seq(4_711), uuid: Some(UUID) }.into()),
        ("delivered", client::Delivered { cursor: "AQID".into(), uuid: None }.into()),
        ("fetch", fetch.into()),
        ("fetch-before", fetch_before.into()),
        ("typing", client::Typing { chat_id: chat(1), uuid: None }.into()),
        ("watch-presence", watch.into()),
        ("set-presence", away.into()),
        ("auth", client::Auth { token: "token".into(), uuid: None }.into()),
        ("ping", frame::Ping { t: 2 }.into()),
        ("pong", frame::Pong { t: 1 }.into()),
    ]
}
