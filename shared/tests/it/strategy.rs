//! Random frames and events.

use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, any, prop_oneof},
};
use shared::{
    event::{self, Event, Fact, History, LeaveReason, MemberRole, Mention},
    frame::{self, ClientFrame, PresenceState, ServerFrame, client, delivered},
    id::{ChatId, MAX_ID, Seq, UserId},
    permission::{ChatType, Role},
};
use uuid::Uuid;

fn number() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![0..200_u64, 0..=u64::from(u32::MAX), 0..=MAX_ID, Just(MAX_ID)]
}

pub(crate) fn user() -> impl Strategy<Value = UserId> + Clone {
    number().prop_map(|id| UserId::new(id.max(1)).unwrap())
}

pub(crate) fn chat() -> impl Strategy<Value = ChatId> + Clone {
    number().prop_map(|id| ChatId::new(id.max(1)).unwrap())
}

pub(crate) fn seq() -> impl Strategy<Value = Seq> + Clone {
    number().prop_map(|seq| Seq(seq.max(1)))
}

pub(crate) fn uuid() -> impl Strategy<Value = Uuid> + Clone {
    any::<u128>().prop_map(Uuid::from_u128)
}

/// Texts with what needs escaping, more often than chance has it.
pub(crate) fn text() -> impl Strategy<Value = String> + Clone {
    prop_oneof!["[a-z ]{0,40}", "[\"\\\\\\x00-\\x1f\\[\\]{},:é\u{2028}👍]{0,12}", "\\PC{0,60}"]
}

fn mentions() -> impl Strategy<Value = Vec<Mention>> + Clone {
    let mention = (user(), any::<u32>(), any::<u32>());
    vec(mention.prop_map(|(user_id, start, length)| Mention { user_id, start, length }), 0..4)
}

pub(crate) fn role() -> impl Strategy<Value = Role> + Clone {
    prop_oneof![Just(Role::Member), Just(Role::Admin), Just(Role::Owner)]
}

fn members() -> impl Strategy<Value = Vec<MemberRole>> + Clone {
    vec((user(), role()).prop_map(|(user_id, role)| MemberRole { user_id, role }), 0..130)
}

fn history() -> impl Strategy<Value = History> + Clone {
    prop_oneof![Just(History::All), Just(History::Join)]
}

fn seen() -> impl Strategy<Value = Option<Seq>> {
    option::of(seq())
}

pub(crate) fn fact() -> impl Strategy<Value = Fact> {
    let chat_type = prop_oneof![Just(ChatType::Direct), Just(ChatType::Group)];
    let reason = prop_oneof![Just(LeaveReason::Left), Just(LeaveReason::Removed)];
    prop_oneof![
        (chat_type, option::of(text()), history(), members()).prop_map(
            |(chat_type, title, history, members)| {
                Fact::ChatCreated(event::ChatCreated { chat_type, title, history, members })
            }
        ),
        (text(), option::of(seq()), mentions()).prop_map(|(body, reply_to, mentions)| {
            Fact::MessageSent(event::MessageSent { body, reply_to, mentions })
        }),
        (seq(), user(), text(), mentions(), seen()).prop_map(|(seq, author, body, mentions, seen)| {
            Fact::MessageEdited(event::MessageEdited { seq, author, body, mentions, seen })
        }),
        (seq(), user(), seen()).prop_map(|(seq, author, seen)| {
            Fact::MessageDeleted(event::MessageDeleted { seq, author, seen })
        }),
        (seq(), text(), any::<bool>(), seen())
            .prop_map(|(seq, emoji, on, seen)| { Fact::Reacted(event::Reacted { seq, emoji, on, seen }) }),
        members().prop_map(|members| Fact::MembersJoined(event::MembersJoined { members })),
        (user(), reason)
            .prop_map(|(user_id, reason)| Fact::MemberLeft(event::MemberLeft { user_id, reason })),
        (user(), role()).prop_map(|(user_id, role)| Fact::RoleChanged(event::RoleChanged { user_id, role })),
        text().prop_map(|title| Fact::TitleChanged(event::TitleChanged { title })),
        history().prop_map(|history| Fact::SettingsChanged(event::SettingsChanged { history })),
        Just(Fact::Noop),
    ]
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    (user(), text(), uuid(), fact(), option::of(seq())).prop_map(
        |(actor, device, uuid, fact, unique_as_of)| Event { actor, device, uuid, fact, unique_as_of },
    )
}

/// `Message` and `Event` frames, as the log's events become them.
pub(crate) fn durable() -> impl Strategy<Value = ServerFrame> {
    (chat(), seq(), seq(), number(), event(), any::<bool>())
        .prop_map(|(chat, seq, prev, ts, event, deleted)| delivered(chat, seq, prev, ts, &event, deleted))
}

pub(crate) fn server() -> impl Strategy<Value = ServerFrame> {
    prop_oneof![4 => durable(), 2 => answers(), 1 => session(), 1 => ephemeral()]
}

fn answers() -> impl Strategy<Value = ServerFrame> {
    prop_oneof![
        (uuid(), chat(), seq(), number(), any::<bool>())
            .prop_map(|(uuid, chat_id, seq, ts, dup)| frame::Ack { uuid, chat_id, seq, ts, dup }.into()),
        (option::of(uuid()), text(), any::<bool>(), number(), text(), option::of(text())).prop_map(
            |(uuid, code, temporary, retry_after_ms, message, trace_id)| {
                frame::Error { uuid, code: code.into(), temporary, retry_after_ms, message, trace_id }.into()
            }
        ),
        (uuid(), chat(), vec(durable(), 0..4), any::<bool>())
            .prop_map(|(uuid, chat_id, events, more)| frame::Page { uuid, chat_id, events, more }.into()),
    ]
}

fn session() -> impl Strategy<Value = ServerFrame> {
    let limits = any::<[u32; 5]>().prop_map(|[frame_bytes, body_bytes, inflight, msg_per_sec, watch]| {
        frame::Limits { frame_bytes, body_bytes, inflight, msg_per_sec, watch }
    });
    let reconnect =
        (number(), number(), text(), number()).prop_map(|(base_ms, max_ms, jitter, stable_ms)| {
            frame::Reconnect { base_ms, max_ms, jitter: jitter.into(), stable_ms }
        });
    prop_oneof![
        (text(), user(), text(), number(), number(), any::<bool>(), limits, reconnect).prop_map(
            |(session_id, user_id, device_id, server_ts, heartbeat_ms, resumed, limits, reconnect)| {
                let v = frame::PROTOCOL_VERSION;
                frame::Welcome {
                    v,
                    session_id,
                    user_id,
                    device_id,
                    server_ts,
                    heartbeat_ms,
                    resumed,
                    limits,
                    reconnect,
                }
                .into()
            }
        ),
        (text(), number()).prop_map(|(cursor, replayed)| frame::Live { cursor, replayed }.into()),
        text().prop_map(|cursor| frame::Cursor { cursor }.into()),
        (chat(), seq(), text()).prop_map(|(chat_id, after_seq, cursor)| frame::Reset {
            chat_id,
            after_seq,
            cursor
        }
        .into()),
        number().prop_map(|behind| frame::Lagging { behind }.into()),
        number().prop_map(|within_ms| frame::Drain { within_ms }.into()),
        number().prop_map(|in_ms| frame::AuthExpiring { in_ms }.into()),
        number().prop_map(|expires_in_ms| frame::AuthOk { expires_in_ms }.into()),
        number().prop_map(|t| frame::Ping { t }.into()),
        number().prop_map(|t| frame::Pong { t }.into()),
    ]
}

fn state() -> impl Strategy<Value = PresenceState> {
    prop_oneof![Just(PresenceState::Online), Just(PresenceState::Away), Just(PresenceState::Offline)]
}

fn ephemeral() -> impl Strategy<Value = ServerFrame> {
    let receipt = (user(), seq(), seq()).prop_map(|(user_id, read_seq, delivered_seq)| frame::Receipt {
        user_id,
        read_seq,
        delivered_seq,
    });
    prop_oneof![
        (chat(), vec(receipt, 0..4))
            .prop_map(|(chat_id, receipts)| frame::Receipts { chat_id, receipts }.into()),
        (user(), state(), number()).prop_map(|(user_id, state, last_seen_ts)| frame::Presence {
            user_id,
            state,
            last_seen_ts
        }
        .into()),
        (chat(), user(), number()).prop_map(|(chat_id, user_id, ttl_ms)| frame::Typing {
            chat_id,
            user_id,
            ttl_ms
        }
        .into()),
    ]
}

pub(crate) fn client() -> impl Strategy<Value = ClientFrame> {
    prop_oneof![messages(), signals()]
}

fn messages() -> impl Strategy<Value = ClientFrame> {
    prop_oneof![
        (uuid(), chat(), text(), option::of(seq()), mentions()).prop_map(
            |(uuid, chat_id, body, reply_to, mentions)| {
                client::SendMessage { uuid, chat_id, body, reply_to, mentions }.into()
            }
        ),
        (uuid(), chat(), seq(), text(), mentions()).prop_map(|(uuid, chat_id, seq, body, mentions)| {
            client::EditMessage { uuid, chat_id, seq, body, mentions }.into()
        }),
        (uuid(), chat(), seq())
            .prop_map(|(uuid, chat_id, seq)| client::DeleteMessage { uuid, chat_id, seq }.into()),
        (uuid(), chat(), seq(), text(), any::<bool>()).prop_map(|(uuid, chat_id, seq, emoji, on)| {
            client::React { uuid, chat_id, seq, emoji, on }.into()
        }),
        (uuid(), chat(), option::of(seq()), option::of(any::<u32>()), option::of(seq())).prop_map(
            |(uuid, chat_id, after, limit, before)| {
                client::Fetch { uuid, chat_id, after, limit, before }.into()
            }
        ),
    ]
}

fn signals() -> impl Strategy<Value = ClientFrame> {
    let uuid = option::of(uuid());
    let state = prop_oneof![Just(PresenceState::Online), Just(PresenceState::Away)];
    prop_oneof![
        (chat(), seq(), uuid.clone())
            .prop_map(|(chat_id, seq, uuid)| client::Read { chat_id, seq, uuid }.into()),
        (text(), uuid.clone()).prop_map(|(cursor, uuid)| client::Delivered { cursor, uuid }.into()),
        (chat(), uuid.clone()).prop_map(|(chat_id, uuid)| client::Typing { chat_id, uuid }.into()),
        (vec(user(), 0..5), uuid.clone()).prop_map(|(user_ids, uuid)| client::WatchPresence {
            user_ids,
            uuid
        }
        .into()),
        (state, uuid.clone()).prop_map(|(state, uuid)| client::SetPresence { state, uuid }.into()),
        (text(), uuid).prop_map(|(token, uuid)| client::Auth { token, uuid }.into()),
        number().prop_map(|t| frame::Ping { t }.into()),
        number().prop_map(|t| frame::Pong { t }.into()),
    ]
}
