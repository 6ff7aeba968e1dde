//! Random logs of a few users and chats: mostly valid, with everything that can be wrong mixed in.

use bytes::Bytes;
use shared::{
    event::{
        ChatCreated, Event, Fact, History, LeaveReason, MemberLeft, MemberRole, MembersJoined,
        MessageDeleted, MessageEdited, MessageSent, Reacted, RoleChanged, SettingsChanged, TitleChanged,
    },
    id::{ChatId, EventId, Seq, UserId},
    permission::{ChatType, Role},
};
use streams::Entry;
use uuid::{Builder, Uuid};

pub(crate) const USERS: u64 = 6;
pub(crate) const CHATS: u64 = 4;

/// SplitMix64: the same history for the same seed, for ever.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { from.get(self.below(from.len() as u64) as usize).copied() }
    }
}

pub(crate) fn user(id: u64) -> UserId {
    UserId::new(id).unwrap()
}

pub(crate) fn chat(id: u64) -> ChatId {
    ChatId::new(id).unwrap()
}

pub(crate) fn entry(seq: u64, chat: Option<ChatId>, payload: Vec<u8>) -> Entry {
    Entry {
        seq: Seq(seq),
        id: EventId::of("id", seq),
        ts_ms: 1_000 + seq,
        appended_ns: (1_000 + seq) * 1_000_000,
        chat,
        payload: Bytes::from(payload),
        traceparent: None,
    }
}

/// A log of `length` entries.
pub(crate) fn history(rng: &mut Rng, length: u64) -> Vec<Entry> {
    let mut messages: Vec<Vec<(Seq, UserId)>> = vec![Vec::new(); CHATS as usize + 1];
    let mut sent: Vec<(u64, Event)> = Vec::new();
    let mut entries = Vec::new();
    for seq in 1..=length {
        let number = rng.below(CHATS) + 1;
        if rng.below(60) == 0 {
            entries.push(entry(seq, None, Vec::new()));
            continue;
        }
        if rng.below(60) == 0 {
            entries.push(entry(seq, Some(chat(number)), vec![0xC1, 7]));
            continue;
        }
        if rng.below(25) == 0 && !sent.is_empty() {
            let (number, event) = sent[rng.below(sent.len() as u64) as usize].clone();
            entries.push(entry(seq, Some(chat(number)), event.encode()));
            continue;
        }
        let created = !messages[number as usize].is_empty() || rng.below(4) > 0;
        let actor = user(rng.below(USERS) + 1);
        let fact = if !created || rng.below(20) == 0 {
            creation(rng, actor)
        } else {
            fact(rng, actor, &messages[number as usize], seq)
        };
        if matches!(fact, Fact::MessageSent(_)) {
            messages[number as usize].push((Seq(seq), actor));
        }
        let event = Event { actor, device: "web".to_owned(), uuid: uuid(rng, seq), fact, unique_as_of: None };
        sent.push((number, event.clone()));
        entries.push(entry(seq, Some(chat(number)), event.encode()));
    }
    entries
}

/// Of version 7 and any time around the entry's own, or of no version.
fn uuid(rng: &mut Rng, seq: u64) -> Uuid {
    let bytes = rng.next().to_le_bytes();
    let unique = [seq.to_le_bytes(), bytes].concat();
    match rng.below(3) {
        0 => Uuid::from_slice(&unique).unwrap(),
        _ => {
            let made_ms = 1_000 + seq + rng.below(120_000);
            Builder::from_unix_timestamp_millis(made_ms, unique[..10].first_chunk().unwrap()).into_uuid()
        }
    }
}

fn role(rng: &mut Rng) -> Role {
    rng.pick(&[Role::Member, Role::Admin, Role::Owner]).unwrap_or(Role::Member)
}

fn creation(rng: &mut Rng, actor: UserId) -> Fact {
    let mut members = vec![MemberRole { user_id: actor, role: Role::Owner }];
    for id in 1..=USERS {
        if user(id) != actor && rng.below(2) == 0 {
            members.push(MemberRole { user_id: user(id), role: Role::Member });
        }
    }
    let history = if rng.below(2) == 0 { History::All } else { History::Join };
    let chat_type = if rng.below(5) == 0 { ChatType::Direct } else { ChatType::Group };
    Fact::ChatCreated(ChatCreated { chat_type, title: Some("first".to_owned()), history, members })
}

fn fact(rng: &mut Rng, actor: UserId, messages: &[(Seq, UserId)], seq: u64) -> Fact {
    let other = user(rng.below(USERS) + 1);
    // Up to where its gateway had looked for a deletion, if it did.
    let seen = if rng.below(4) == 0 { None } else { Some(Seq(seq.saturating_sub(rng.below(60)))) };
    let body = format!("text {}", rng.below(1_000));
    match rng.below(20) {
        0..=7 => {
            let reply_to = if rng.below(3) == 0 { rng.pick(messages).map(|(seq, _)| seq) } else { None };
            Fact::MessageSent(MessageSent { body, reply_to, mentions: Vec::new() })
        }
        8..=9 => match rng.pick(messages) {
            Some((seq, author)) => {
                Fact::MessageEdited(MessageEdited { seq, author, body, mentions: Vec::new(), seen })
            }
            None => Fact::Noop,
        },
        10 => match rng.pick(messages) {
            Some((seq, author)) => Fact::MessageDeleted(MessageDeleted { seq, author, seen }),
            None => Fact::Noop,
        },
        11..=12 => match rng.pick(messages) {
            Some((seq, _)) => {
                let emoji = rng.pick(&["👍", "\u{2764}", "\u{2764}\u{FE0F}"]).unwrap_or("👍").to_owned();
                Fact::Reacted(Reacted { seq, emoji, on: rng.below(3) > 0, seen })
            }
            None => Fact::Noop,
        },
        13..=14 => Fact::MembersJoined(MembersJoined {
            members: vec![MemberRole { user_id: other, role: role(rng) }],
        }),
        15..=16 => {
            let (user_id, reason) = match rng.below(2) {
                0 => (actor, LeaveReason::Left),
                _ => (other, LeaveReason::Removed),
            };
            Fact::MemberLeft(MemberLeft { user_id, reason })
        }
        17 => Fact::RoleChanged(RoleChanged { user_id: other, role: role(rng) }),
        18 => Fact::TitleChanged(TitleChanged { title: body }),
        _ => Fact::SettingsChanged(SettingsChanged {
            history: if rng.below(2) == 0 { History::All } else { History::Join },
        }),
    }
}
