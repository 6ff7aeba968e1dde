use fred::interfaces::KeysInterface;
use shared::{
    code::Code,
    frame::{PresenceState, ServerFrame},
    id::Seq,
};
use streams::{
    marks::{Mark, MarkReader},
    signal::{Announced, Signal, SignalKind},
};
use uuid::Uuid;

use super::*;
use crate::{
    auth::revocation::Revoked,
    feed::stage::until,
    hub::stage::{chat, created, sent, user},
    infra::pages::PAGE_BYTES,
    session::close::Close,
    socket::stage::{Served, error_code, message},
};

/// A group of users 1 and 2, which the hub follows. Its first message is at sequence 2.
async fn group(name: &str) -> Served {
    group_with(name, |_| {}).await
}

async fn group_with(
    name: &str,
    change: impl FnOnce(&mut crate::session::settings::SessionSettings),
) -> Served {
    let mut served = Served::with(name, change).await;
    served.world.append(1, 1, created(&[1, 2])).await;
    let last = served.world.append(1, 1, sent("first")).await;
    served.world.project_to(last).await;
    served.world.follow();
    served.world.stage.hub.passed(last).await;
    served
}

#[tokio::test]
async fn each_durable_command_is_acked_and_delivered() {
    let served = group("durable").await;
    let (mut one, mut two) = (served.connect(1).await, served.connect(2).await);
    let [send, edit, react, delete] = [(); 4].map(|()| Uuid::now_v7());
    assert_eq!(served.ack(&mut one, send, message(1, send, "hello")).await, Seq(3));
    let (chat_id, seq) = (chat(1), Seq(3));
    let edits = frame::EditMessage { uuid: edit, chat_id, seq, body: "hallo".into(), mentions: Vec::new() };
    assert_eq!(served.ack(&mut one, edit, edits).await, Seq(4));
    let reacts = frame::React { uuid: react, chat_id, seq, emoji: "👍".into(), on: true };
    assert_eq!(served.ack(&mut two, react, reacts).await, Seq(5));
    let deletes = frame::DeleteMessage { uuid: delete, chat_id, seq };
    assert_eq!(served.ack(&mut one, delete, deletes).await, Seq(6));
    for device in [&mut one, &mut two] {
        device.hears();
        let new: Vec<Seq> =
            device.has().into_iter().map(|(_, seq)| seq).filter(|seq| *seq > Seq(2)).collect();
        assert_eq!(new, [Seq(3), Seq(4), Seq(5), Seq(6)]);
        assert_eq!(device.session.inflight(), 0);
    }
}

#[tokio::test]
async fn a_binary_frame_is_msgpack_whatever_the_session_is_sent() {
    let served = group("binary").await;
    let mut device = served.connect(1).await;
    let uuid = Uuid::now_v7();
    let mut bytes = Vec::new();
    codec::encode_client_msgpack(&message(1, uuid, "packed").into(), &mut bytes);
    served.send_binary(&device, &bytes);
    assert!(matches!(served.answer(&mut device, uuid).await, ServerFrame::Ack(_)));
}

#[tokio::test]
async fn a_fetch_is_answered_with_a_page_of_the_members_chat_alone() {
    let served = group("fetch").await;
    let mut device = served.connect(2).await;
    let uuid = Uuid::now_v7();
    let fetch = |uuid, limit| frame::Fetch { uuid, chat_id: chat(1), after: None, limit, before: None };
    served.send(&device, fetch(uuid, Some(1)));
    let ServerFrame::Page(page) = served.answer(&mut device, uuid).await else { panic!("no page") };
    assert!(matches!(&page.events[..], [ServerFrame::Message(first)] if first.body == "first"));
    assert!(page.more);
    assert_eq!(device.session.inflight(), 0);

    for limit in [Some(0), Some(201)] {
        let uuid = Uuid::now_v7();
        assert_eq!(served.refusal(&mut device, uuid, fetch(uuid, limit)).await, "command.invalid");
    }
    let mut stranger = served.connect(3).await;
    let uuid = Uuid::now_v7();
    assert_eq!(served.refusal(&mut stranger, uuid, fetch(uuid, None)).await, "chat.not_found");
    assert_eq!(stranger.session.inflight(), 0);
}

/// A reader that takes nothing costs one page, whatever it asks for; one that reads on gets all of them, in order.
#[tokio::test]
async fn of_many_fetches_one_page_waits_for_a_reader_at_a_time() {
    const FETCHES: usize = 40;
    let mut served = group("pages").await;
    let mut last = Seq::ZERO;
    for _ in 0..15 {
        last = served.world.append(1, 1, sent(&"\u{1}".repeat(16_000))).await;
    }
    served.world.stage.hub.passed(last).await;
    let mut device = served.connect(2).await;
    let uuids: Vec<Uuid> = (0..FETCHES).map(|_| Uuid::now_v7()).collect();
    for uuid in &uuids {
        let fetch = frame::Fetch {
            uuid: *uuid,
            chat_id: chat(1),
            after: Some(Seq(2)),
            limit: Some(200),
            before: None,
        };
        served.send(&device, fetch);
    }
    until("a page waits", || device.session.queued_bytes() > 900_000).await;
    assert!(device.session.is_choked(), "nothing more is read from it");
    assert!(device.session.queued_bytes() <= PAGE_BYTES + 100, "{}", device.session.queued_bytes());
    assert_eq!(served.services.pages.taken(), device.session.queued_bytes());
    assert_eq!(device.session.inflight() as usize, FETCHES - 1);

    let mut answered = Vec::new();
    until("all pages come", || {
        for frame in device.reads(100_000) {
            let ServerFrame::Page(page) = frame else { panic!("{frame:?}") };
            assert!(page.more && page.events.len() == 10, "{}", page.events.len());
            answered.push(page.uuid);
        }
        answered.len() == FETCHES
    })
    .await;
    assert_eq!(answered, uuids);
    until("nothing is in flight", || device.session.inflight() == 0).await;
    assert_eq!(served.services.pages.taken(), 0);
}

#[tokio::test]
async fn fetches_that_wait_end_with_the_session() {
    let served = group("fetches_end").await;
    let device = served.connect(2).await;
    device.session.push_control(vec![0; 50_000].into(), 0);
    for _ in 0..5 {
        let fetch =
            frame::Fetch { uuid: Uuid::now_v7(), chat_id: chat(1), after: None, limit: None, before: None };
        served.send(&device, fetch);
    }
    assert_eq!(device.session.inflight(), 5);
    device.session.close(Close::TooSlow, 0);
    until("nothing is in flight", || device.session.inflight() == 0).await;
    assert_eq!(served.services.pages.taken(), 0);
}

#[tokio::test]
async fn read_and_delivered_become_marks() {
    let served = group("marks").await;
    let mut device = served.connect(2).await;
    let mut marks = MarkReader::new(&served.world.nats);
    served.send(&device, frame::Read { chat_id: chat(1), seq: Seq(2), uuid: None });
    let batch = marks.batch(1, std::time::Duration::ZERO).await;
    let read = Mark { user: user(2), chat: chat(1), read: Some(Seq(2)), delivered: None };
    assert_eq!(batch.marks, [read]);
    batch.ack().await;
    let cursor = device.cursor.clone().unwrap();
    served.send(&device, frame::Delivered { cursor, uuid: None });
    let batch = marks.batch(1, std::time::Duration::ZERO).await;
    assert_eq!(batch.marks, [Mark { read: None, delivered: Some(Seq(2)), ..read }]);
    batch.ack().await;

    let uuid = Uuid::now_v7();
    let beyond = frame::Read { chat_id: chat(1), seq: Seq(3), uuid: Some(uuid) };
    assert_eq!(served.refusal(&mut device, uuid, beyond).await, "read.beyond_head");
    let forged = frame::Delivered { cursor: "forged".into(), uuid: Some(uuid) };
    assert_eq!(served.refusal(&mut device, uuid, forged).await, "cursor.invalid");
    let elsewhere = frame::Read { chat_id: chat(9), seq: Seq(1), uuid: Some(uuid) };
    assert_eq!(served.refusal(&mut device, uuid, elsewhere).await, "chat.not_found");
}

#[tokio::test]
async fn typing_and_presence_become_signals() {
    let served = group("signals").await;
    let mut device = served.connect(2).await;
    let kinds = [SignalKind::Typing, SignalKind::Connections];
    let mut signals = served.world.nats.signals(&kinds).await.unwrap();
    // The subscription is in force when the server has answered something that was sent after it.
    served.world.nats.ping().await.unwrap();
    served.send(&device, frame::client::Typing { chat_id: chat(1), uuid: None });
    served.send(&device, frame::SetPresence { state: PresenceState::Away, uuid: None });
    let (mut typed, mut away) = (false, false);
    while !(typed && away) {
        match signals.next().await {
            Signal::Typing(typing) => typed |= (typing.chat, typing.user) == (chat(1), user(2)),
            Signal::Connections(report) => {
                away |= report.came.iter().any(|connection| connection.user == user(2) && connection.away);
            }
            _ => {}
        }
    }
    let uuid = Uuid::now_v7();
    let elsewhere = frame::client::Typing { chat_id: chat(9), uuid: Some(uuid) };
    assert_eq!(served.refusal(&mut device, uuid, elsewhere).await, "chat.not_found");
}

#[tokio::test]
async fn a_watched_user_of_a_common_chat_is_reported() {
    let served = group("watch").await;
    let mut device = served.connect(2).await;
    let key = served.world.redis.key(&Announced::redis_key(user(1)));
    let set =
        served.world.redis.run(async |redis| redis.set::<(), _, _>(key, "o:7", None, None, false).await);
    set.await.unwrap();
    served.send(&device, frame::WatchPresence { user_ids: vec![user(1), user(9)], uuid: None });
    let mut presence = Vec::new();
    until("the presence of user 1", || {
        presence.extend(device.reads(usize::MAX));
        !presence.is_empty()
    })
    .await;
    assert!(
        matches!(&presence[..], [ServerFrame::Presence(of)] if of.user_id == user(1)),
        "nothing of a stranger: {presence:?}"
    );
    let uuid = Uuid::now_v7();
    let user_ids = (1..=501).map(user).collect();
    let many = frame::WatchPresence { user_ids, uuid: Some(uuid) };
    assert_eq!(served.refusal(&mut device, uuid, many).await, "limit.exceeded");
}

#[tokio::test]
async fn a_ping_is_answered_and_a_pong_is_not() {
    let served = Served::new("ping").await;
    let mut device = served.connect(1).await;
    served.send(&device, frame::Ping { t: 42 });
    served.send(&device, frame::Pong { t: 43 });
    assert_eq!(device.reads(usize::MAX), [frame::Pong { t: 42 }.into()]);
}

#[tokio::test]
async fn a_frame_of_an_unknown_type_is_ignored() {
    let served = Served::new("unknown").await;
    let mut device = served.connect(1).await;
    for _ in 0..20 {
        served.send_text(&device, br#"{"type":"FromTheFuture","uuid":"x"}"#);
    }
    assert_eq!(device.reads(usize::MAX), []);
    assert_eq!(device.session.closing(), None);
}

#[tokio::test]
async fn a_flood_of_frames_that_ask_for_nothing_is_closed() {
    let served = Served::new("idle_flood").await;
    let frames: [&[u8]; 4] = [
        br#"{"type":"FromTheFuture"}"#,
        br#"{"type":"Pong","t":1}"#,
        br#"{"type":"Ping","t":1}"#,
        br#"{"type":"Auth","token":"no token"}"#,
    ];
    for frame in frames {
        let mut device = served.connect(1).await;
        let mut sent = 0;
        while device.session.closing().is_none() {
            served.send_text(&device, frame);
            sent += 1;
            assert!(sent < 1_000, "{}", String::from_utf8_lossy(frame));
        }
        assert!(sent > 200, "a client may send some: {sent}");
        assert_eq!(device.session.closing(), Some(Close::Flooding.code()));
        assert!(device.reads(usize::MAX).len() <= 300);
    }
}

#[tokio::test]
async fn a_burst_of_best_effort_frames_is_dropped_and_a_flood_of_them_closed() {
    let served = group("typing_flood").await;
    let device = served.connect(2).await;
    let typing = || frame::client::Typing { chat_id: chat(1), uuid: None };
    for _ in 0..800 {
        served.send(&device, typing());
    }
    assert_eq!(device.session.closing(), None);
    for _ in 0..600 {
        served.send(&device, typing());
    }
    assert_eq!(device.session.closing(), Some(Close::Flooding.code()));
}

#[tokio::test]
async fn the_sixth_frame_that_cannot_be_parsed_closes() {
    let served = Served::new("malformed").await;
    let mut device = served.connect(1).await;
    for _ in 0..5 {
        served.send_text(&device, b"{");
    }
    let codes: Vec<String> = device.reads(usize::MAX).iter().map(error_code).collect();
    assert_eq!(codes, ["frame.malformed"; 5]);
    assert_eq!(device.session.closing(), None);
    served.send_binary(&device, &[0xC1]);
    assert_eq!(device.session.closing(), Some(Close::Malformed.code()));
}

#[tokio::test]
async fn a_frame_with_a_wrong_field_is_answered_with_its_uuid() {
    let served = Served::new("field").await;
    let mut device = served.connect(1).await;
    let uuid = Uuid::now_v7();
    let text = format!(r#"{{"type":"SendMessage","uuid":"{uuid}","chatId":1,"body":7}}"#);
    served.send_text(&device, text.as_bytes());
    let frames = device.reads(usize::MAX);
    assert!(matches!(&frames[..], [ServerFrame::Error(error)] if error.uuid == Some(uuid)), "{frames:?}");
    assert_eq!(device.session.inflight(), 0);
}

#[tokio::test]
async fn a_command_that_the_checks_refuse_is_answered_with_its_uuid() {
    let served = group("refused").await;
    let mut stranger = served.connect(3).await;
    let uuid = Uuid::now_v7();
    assert_eq!(served.refusal(&mut stranger, uuid, message(1, uuid, "let me in")).await, "chat.not_found");
    let mut member = served.connect(2).await;
    let uuid = Uuid::now_v7();
    assert_eq!(served.refusal(&mut member, uuid, message(1, uuid, " ")).await, "command.invalid");
    let uuid = Uuid::now_v7();
    let deletes = frame::DeleteMessage { uuid, chat_id: chat(1), seq: Seq(1) };
    assert_eq!(served.refusal(&mut member, uuid, deletes).await, "message.not_found");
    assert_eq!((stranger.session.inflight(), member.session.inflight()), (0, 0));
}

#[tokio::test]
async fn a_flood_of_refused_commands_closes() {
    let served = group_with("flood", |settings| {
        (settings.commands_per_s, settings.commands_burst) = (1, 1);
    })
    .await;
    let device = served.connect(3).await;
    for _ in 0..202 {
        served.send(&device, message(1, Uuid::now_v7(), "again"));
    }
    assert_eq!(device.session.closing(), Some(Close::Flooding.code()));
}

#[tokio::test]
async fn commands_beyond_the_rate_are_told_how_long_to_wait() {
    let served = group_with("rate", |settings| {
        (settings.commands_per_s, settings.commands_burst) = (1, 2);
    })
    .await;
    let mut device = served.connect(1).await;
    let uuids = [(); 3].map(|()| Uuid::now_v7());
    for uuid in uuids {
        served.send(&device, message(1, uuid, "hello"));
    }
    let ServerFrame::Error(error) = served.answer(&mut device, uuids[2]).await else { panic!("no error") };
    assert_eq!((error.code.as_ref(), error.temporary), ("rate.limited", true));
    assert!((1..=1_001).contains(&error.retry_after_ms), "{error:?}");
    until("the others are answered", || device.session.inflight() == 0).await;
}

#[tokio::test]
async fn commands_beyond_those_that_may_be_in_flight_are_refused_until_one_is_answered() {
    let served = group_with("inflight", |settings| settings.inflight = 1).await;
    let mut device = served.connect(1).await;
    let [first, second] = [(); 2].map(|()| Uuid::now_v7());
    // Nothing runs between the two: the first is still in flight.
    served.send(&device, message(1, first, "one"));
    served.send(&device, message(1, second, "two"));
    let frames = device.reads(usize::MAX);
    let [ServerFrame::Error(error)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((error.code.as_ref(), error.temporary), ("limit.exceeded", true));
    assert_eq!(error.uuid, Some(second));
    assert!(matches!(served.answer(&mut device, first).await, ServerFrame::Ack(_)));
    served.ack(&mut device, second, message(1, second, "two")).await;
}

#[tokio::test]
async fn best_effort_frames_beyond_the_allowance_are_dropped_without_a_word() {
    let served = group_with("dropped", |settings| settings.signals_per_s = 1).await;
    let mut device = served.connect(2).await;
    let forged = || frame::Delivered { cursor: "forged".into(), uuid: None };
    for _ in 0..10 {
        served.send(&device, forged());
    }
    assert_eq!(device.reads(usize::MAX).len(), 3, "three times the rate in a burst");
    assert_eq!(device.session.closing(), None);
}

#[tokio::test]
async fn a_fresh_token_of_the_same_login_renews_the_session() {
    let served = Served::new("renews").await;
    let mut device = served.connect(1).await;
    let family = device.session.identity.family;
    let token = served.services.auth.tokens.issue_for(user(1), family, 60).unwrap();
    served.send(&device, frame::Auth { token, uuid: None });
    let frames = device.reads(usize::MAX);
    assert!(
        matches!(&frames[..], [ServerFrame::AuthOk(ok)] if (58_000..=60_000).contains(&ok.expires_in_ms)),
        "{frames:?}"
    );
    let left = device.session.token_expires_ms() - unix_ms();
    assert!((58_000..=60_000).contains(&left));
}

#[tokio::test]
async fn a_token_of_somebody_else_or_of_no_use_changes_nothing() {
    let served = Served::new("mismatch").await;
    let mut device = served.connect(1).await;
    let family = device.session.identity.family;
    let expires = device.session.token_expires_ms();
    let tokens = &served.services.auth.tokens;
    let auth = |token| {
        let uuid = Uuid::now_v7();
        (uuid, frame::Auth { token, uuid: Some(uuid) })
    };
    let cases = [
        (tokens.issue(user(2), family).unwrap(), "auth.mismatch"),
        (tokens.issue(user(1), Uuid::new_v4()).unwrap(), "auth.mismatch"),
        (tokens.issue_for(user(1), family, 0).unwrap(), "auth.expired"),
        ("no token".to_owned(), "auth.invalid_token"),
    ];
    for (token, code) in cases {
        let (uuid, frame) = auth(token);
        assert_eq!(served.refusal(&mut device, uuid, frame).await, code);
    }
    let revoked = Revoked::new(Some(user(1)), family, unix_ms(), None);
    served.services.auth.revocations.note(&revoked);
    let token = tokens.issue(user(1), family).unwrap();
    assert_eq!(served.services.auth.identify(&token), Err(Code::AuthRevoked));
    assert_eq!(device.session.token_expires_ms(), expires);
    assert_eq!(device.session.closing(), Some(Close::Revoked.code()), "the note closed it");
}
