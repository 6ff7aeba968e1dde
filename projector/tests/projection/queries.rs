//! What the queries say, held against the model.

use std::collections::BTreeMap;

use shared::{
    entitlement::Stay,
    event::{ChatCreated, Event, Fact, History, Kind, MemberRole, MessageDeleted},
    fold::KEPT,
    id::{Seq, UserId},
    permission::{ChatType, Role},
};
use sql::{PageFrom, marks::Mark, message::Message, replay::EventRow};
use uuid::Uuid;

use crate::{
    Rng, Store, batches,
    generate::{CHATS, USERS, chat, entry, user},
    history,
    model::{Model, ModelChat, Seen, Valid},
};

/// More bytes than the test's pages take.
const ALL: usize = 1 << 30;
/// Pages by items and bytes: whichever bound ends a page first, the pages together are the whole.
const BOUNDS: [(usize, usize); 3] = [(1, ALL), (7, ALL), (100, 150)];

fn seen(message: &Message) -> Seen {
    let reactions = message.reactions.iter().map(|reaction| {
        assert_eq!(reaction.count as usize, reaction.user_ids.len());
        (reaction.emoji.clone(), reaction.user_ids.clone())
    });
    Seen {
        seq: message.seq,
        from: message.from,
        body: message.body.clone(),
        reply_to: message.reply_to,
        edited_ms: message.edited_ms,
        deleted: message.deleted,
        reactions: reactions.collect(),
    }
}

fn check_rows(chat: &ModelChat, rows: &[EventRow], expected: &[&Valid]) {
    assert_eq!(
        rows.iter().map(|row| row.seq).collect::<Vec<_>>(),
        expected.iter().map(|v| v.seq).collect::<Vec<_>>()
    );
    for (row, valid) in rows.iter().zip(expected) {
        let target = match &valid.event.fact {
            Fact::MessageSent(_) => Some(valid.seq),
            Fact::MessageEdited(edited) => Some(edited.seq),
            _ => None,
        };
        assert_eq!(row.kind, valid.kind());
        assert_eq!(row.ts_ms, valid.ts_ms);
        assert_eq!(Event::decode(&row.payload).unwrap(), valid.event);
        assert_eq!(
            row.deleted,
            target.is_some_and(|target| chat.deleted(target)),
            "{valid_seq}",
            valid_seq = row.seq
        );
    }
}

async fn filled(store: &mut Store, seed: u64) -> Model {
    let mut rng = Rng(seed);
    let entries = history(&mut rng, 300);
    store.reset().await;
    for batch in batches(&mut rng, &entries, 50) {
        store.apply(batch).await;
    }
    let mut model = Model::of(&entries);
    let mut marks = Vec::new();
    for id in 1..=CHATS {
        for number in 1..=USERS {
            if rng.below(2) == 0 {
                let read = Seq(rng.below(300));
                marks.push(Mark { chat: chat(id), user: user(number), read, delivered: Seq::ZERO });
                model.marks.insert((chat(id), user(number)), read);
            }
        }
    }
    store.db.raise_marks(&marks).await.unwrap();
    model
}

#[tokio::test]
async fn chat_lists_and_unread_counts_are_exact() {
    let mut store = Store::open("lists").await;
    for seed in 300..320 {
        let model = filled(&mut store, seed).await;
        for reader in (1..=USERS).map(user) {
            let (checkpoint, page) = store.db.chats(reader, None, 100, ALL).await.unwrap();
            assert_eq!(checkpoint, store.checkpoint());
            let mut expected: Vec<_> =
                model.chats.iter().filter(|(_, chat)| chat.members().contains(&reader)).collect();
            expected.sort_by_key(|(_, chat)| std::cmp::Reverse(chat.events.last().map(|valid| valid.seq)));
            let ids: Vec<_> = page.chats.iter().map(|chat| chat.id).collect();
            assert_eq!(ids, expected.iter().map(|(id, _)| **id).collect::<Vec<_>>(), "seed {seed}");
            for (found, (id, chat)) in page.chats.iter().zip(&expected) {
                let state = chat.state.as_ref().unwrap();
                assert_eq!(found.read_seq, model.read_seq(**id, reader), "seed {seed} {id} {reader}");
                assert_eq!(found.unread as usize, model.unread(**id, reader), "seed {seed} {id} {reader}");
                assert_eq!(found.member_ids, chat.members());
                assert_eq!(found.member_count as usize, chat.members().len());
                assert_eq!(Some(found.role), state.members.role(reader));
                assert_eq!(Some(found.last_seq), chat.events.last().map(|valid| valid.seq));
                assert_eq!((found.history, found.chat_type), (state.history, state.chat_type));
                assert_eq!(found.title, chat.title());
                let readable =
                    |valid: &&Valid| valid.kind() == Kind::MessageSent && chat.may_read(valid, reader);
                let last = chat.events.iter().rev().find(readable);
                let last = last.and_then(|valid| chat.message(valid, reader));
                assert_eq!(found.last_message.as_ref().map(seen), last);
                let (_, one) = store.db.chat(reader, **id).await.unwrap();
                assert_eq!(one.as_ref(), Some(found));
            }
            check_paging(&store, reader, &page.chats).await;
        }
    }
}

async fn check_paging(store: &Store, reader: UserId, whole: &[sql::chat_list::Chat]) {
    for (items, bytes) in BOUNDS {
        let (mut before, mut paged) = (None, Vec::new());
        loop {
            let (_, page) = store.db.chats(reader, before, items, bytes).await.unwrap();
            assert!(bytes == ALL || page.chats.len() <= 4, "a last message takes 50 bytes or more");
            paged.extend(page.chats);
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        assert_eq!(paged, whole);
    }
}

#[tokio::test]
async fn history_is_the_current_state_of_what_one_may_read() {
    let mut store = Store::open("history").await;
    for seed in 400..410 {
        let model = filled(&mut store, seed).await;
        for (id, chat) in &model.chats {
            for reader in (1..=USERS).map(user) {
                let (_, page) =
                    store.db.history(reader, *id, PageFrom::After(Seq::ZERO), 1_000, ALL).await.unwrap();
                if !chat.members().contains(&reader) {
                    assert!(page.is_none());
                    continue;
                }
                let readable: Vec<Seen> = chat
                    .events
                    .iter()
                    .filter(|valid| chat.may_read(valid, reader))
                    .filter_map(|valid| chat.message(valid, reader))
                    .collect();
                let page = page.expect("a member");
                assert!(!page.more);
                assert_eq!(page.messages.iter().map(seen).collect::<Vec<_>>(), readable, "seed {seed}");
                check_history_pages(&store, reader, *id, &readable).await;
            }
        }
    }
}

async fn check_history_pages(store: &Store, reader: UserId, id: shared::id::ChatId, readable: &[Seen]) {
    for (items, bytes) in BOUNDS {
        let (mut before, mut backwards) = (Seq(u64::MAX), Vec::new());
        loop {
            let (_, page) =
                store.db.history(reader, id, PageFrom::Before(before), items, bytes).await.unwrap();
            let page = page.expect("a member");
            assert!(bytes == ALL || page.messages.len() <= 4, "a message takes 50 bytes or more");
            backwards.extend(page.messages.iter().map(seen));
            match page.messages.last() {
                Some(last) if page.more => before = last.seq,
                _ => break,
            }
        }
        backwards.reverse();
        assert_eq!(backwards, readable);
    }
}

#[tokio::test]
async fn a_replay_is_what_one_was_entitled_to_at_the_time() {
    let mut store = Store::open("replays").await;
    for seed in 500..510 {
        let model = filled(&mut store, seed).await;
        let mut rng = Rng(seed);
        for reader in (1..=USERS).map(user) {
            let (after, upto) = (Seq(rng.below(150)), Seq(150 + rng.below(200)));
            let mut expected: BTreeMap<Seq, (&ModelChat, &Valid)> = BTreeMap::new();
            for chat in model.chats.values() {
                let within =
                    |valid: &&Valid| valid.seq > after && valid.seq <= upto && valid.entitles(reader);
                expected.extend(chat.events.iter().filter(within).map(|valid| (valid.seq, (chat, valid))));
            }
            let (mut from, mut rows) = (after, Vec::new());
            let end = upto.min(store.checkpoint().position.seq);
            while from < end {
                let bytes = if rng.below(2) == 0 { 100 } else { 100_000 };
                let (_, replay) = store.db.replay(reader, from, upto, 9, bytes).await.unwrap();
                assert!(replay.upto > from, "a piece makes progress");
                rows.extend(replay.events);
                from = replay.upto;
            }
            let seqs: Vec<_> = rows.iter().map(|row| row.seq).collect();
            assert_eq!(seqs, expected.keys().copied().collect::<Vec<_>>(), "seed {seed} {reader}");
            for row in &rows {
                let (chat, valid) = expected[&row.seq];
                check_rows(chat, std::slice::from_ref(row), &[valid]);
            }
        }
    }
}

#[tokio::test]
async fn pages_of_events_follow_the_same_rules() {
    let mut store = Store::open("pages").await;
    for seed in 600..606 {
        let model = filled(&mut store, seed).await;
        for (id, chat) in &model.chats {
            for reader in (1..=USERS).map(user) {
                let (_, page) =
                    store.db.page(reader, *id, PageFrom::After(Seq(40)), 20, 100_000).await.unwrap();
                let Some(page) = page else {
                    assert!(!chat.members().contains(&reader));
                    continue;
                };
                let readable: Vec<_> =
                    chat.events.iter().filter(|valid| chat.may_read(valid, reader)).collect();
                let later: Vec<_> = readable.iter().copied().filter(|valid| valid.seq > Seq(40)).collect();
                assert_eq!(page.more, later.len() > 20);
                check_rows(chat, &page.events, &later[..later.len().min(20)]);

                let (_, page) =
                    store.db.page(reader, *id, PageFrom::Before(Seq(200)), 15, 100_000).await.unwrap();
                let earlier: Vec<_> = readable.iter().copied().filter(|valid| valid.seq < Seq(200)).collect();
                check_rows(chat, &page.unwrap().events, &earlier[earlier.len().saturating_sub(15)..]);
            }
        }
    }
}

#[tokio::test]
async fn gateways_load_what_the_fold_says() {
    let mut store = Store::open("states").await;
    for seed in 700..708 {
        let model = filled(&mut store, seed).await;
        let ids: Vec<_> = (1..=CHATS + 1).map(chat).collect();
        let floor = Seq(120);
        let (checkpoint, states) = store.db.chat_states(&ids, floor).await.unwrap();
        assert_eq!((checkpoint, states.len()), (store.checkpoint(), ids.len()));
        let nothing = ModelChat::default();
        for found in &states {
            let chat = model.chats.get(&found.chat).unwrap_or(&nothing);
            let head =
                |upto: Seq| chat.events.iter().rev().find(|v| v.seq <= upto).map_or(Seq::ZERO, |v| v.seq);
            assert_eq!(found.state, chat.state);
            assert_eq!((found.head, found.floor_head), (head(Seq(u64::MAX)), head(floor)));
            let void: Vec<_> = chat.void.iter().filter(|(seq, _)| *seq > floor).copied().collect();
            assert_eq!(found.void.iter().map(|(seq, code)| (*seq, code.as_str())).collect::<Vec<_>>(), void);
        }
        check_memberships(&store, &model, floor).await;
        check_commands(&store, &model).await;
    }
}

#[tokio::test]
async fn a_loaded_state_holds_the_last_deletions() {
    let mut store = Store::open("deletions").await;
    let (id, owner) = (chat(1), user(1));
    let members = vec![MemberRole { user_id: owner, role: Role::Owner }];
    let (chat_type, history) = (ChatType::Group, History::All);
    let mut facts = vec![Fact::ChatCreated(ChatCreated { chat_type, title: None, history, members })];
    for target in 1..=(2 * KEPT as u64) {
        let seen = Some(Seq(target));
        facts.push(Fact::MessageDeleted(MessageDeleted { seq: Seq(target), author: owner, seen }));
    }
    let entries: Vec<_> = (1..)
        .zip(facts)
        .map(|(seq, fact)| {
            let (device, uuid) = (String::new(), Uuid::from_u128(seq.into()));
            entry(seq, Some(id), Event { actor: owner, device, uuid, fact, unique_as_of: None }.encode())
        })
        .collect();
    store.apply(&entries).await;
    let (_, states) = store.db.chat_states(&[id], Seq::ZERO).await.unwrap();
    let expected = Model::of(&entries).chats.remove(&id).unwrap().state;
    let deletions = &expected.as_ref().unwrap().deletions;
    assert_eq!((deletions.iter().count(), deletions.forgotten() > Seq::ZERO), (KEPT, true));
    assert_eq!(states[0].state, expected);
}

async fn check_memberships(store: &Store, model: &Model, since: Seq) {
    let users: Vec<_> = (1..=USERS).map(user).collect();
    let (_, memberships) = store.db.memberships_of(&users, since, 0).await.unwrap();
    for (id, chat) in &model.chats {
        for reader in &users {
            let current = memberships.iter().find(|m| m.chat == *id && m.user == *reader && m.to.is_none());
            let role = chat.state.as_ref().and_then(|state| state.members.role(*reader));
            assert_eq!(current.map(|m| m.role), role);
            // Entitlement above `since` is that of the returned stays.
            for valid in chat.events.iter().filter(|valid| valid.seq > since) {
                let holds = |m: &&sql::states::Membership| {
                    m.chat == *id
                        && m.user == *reader
                        && m.from <= valid.seq
                        && m.to.is_none_or(|to| valid.seq <= to)
                };
                assert_eq!(memberships.iter().find(holds).is_some(), valid.entitles(*reader));
            }
        }
    }
    // With the former ones, entitlement is that of the stays everywhere, and each stay comes once.
    let (_, all) = store.db.memberships_of(&users, since, usize::MAX >> 1).await.unwrap();
    for (id, chat) in &model.chats {
        for reader in &users {
            let of_reader = all.iter().filter(|m| m.chat == *id && m.user == *reader);
            let stays: Vec<Stay> = of_reader.map(|m| Stay { from: m.from, to: m.to }).collect();
            for valid in &chat.events {
                let holding = stays.iter().filter(|stay| stay.holds(valid.seq)).count();
                assert_eq!(holding, usize::from(valid.entitles(*reader)));
            }
        }
    }
    let (_, newest) = store.db.memberships_of(&users, since, 1).await.unwrap();
    for reader in &users {
        let ended = |list: &[sql::states::Membership]| {
            let of_reader = list.iter().filter(|m| m.user == *reader && m.to.is_some_and(|to| to <= since));
            of_reader.filter_map(|m| m.to).collect::<Vec<_>>()
        };
        assert_eq!(ended(&newest), ended(&all).into_iter().max().into_iter().collect::<Vec<_>>());
    }
}

async fn check_commands(store: &Store, model: &Model) {
    for (id, chat) in &model.chats {
        for valid in chat.events.iter().step_by(5) {
            let (_, found) = store.db.command(valid.event.actor, *id, valid.event.uuid).await.unwrap();
            let found = found.expect("stored");
            assert_eq!((found.seq, found.ts_ms, found.refused), (valid.seq, valid.ts_ms, None));
            let key = (*id, valid.event.actor, valid.event.uuid);
            let unknown = (*id, valid.event.actor, Uuid::nil());
            let (_, firsts) = store.db.first_copies(&[unknown, key]).await.unwrap();
            assert_eq!(firsts, [(key, valid.seq)]);
            let (_, fact) = store.db.message_fact(*id, valid.seq).await.unwrap();
            let message = chat.message(valid, valid.event.actor);
            assert_eq!(
                fact.map(|fact| (fact.author, fact.deleted)),
                message.as_ref().map(|m| (m.from, m.deleted))
            );
        }
        let (_, none) = store.db.command(user(1), *id, uuid::Uuid::nil()).await.unwrap();
        assert!(none.is_none());
        check_members(store, chat, *id).await;
    }
}

async fn check_members(store: &Store, chat: &ModelChat, id: shared::id::ChatId) {
    let Some(reader) = chat.members().first().copied() else { return };
    let (mut after, mut members) = (None, Vec::new());
    loop {
        let (_, page) = store.db.members(reader, id, after, 2).await.unwrap();
        let page = page.expect("a member");
        members.extend(page.members.iter().map(|member| member.user));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(members, chat.members());
    let stranger = (1..=USERS).map(user).find(|user| !chat.members().contains(user));
    if let Some(stranger) = stranger {
        assert!(store.db.members(stranger, id, None, 2).await.unwrap().1.is_none());
    }
}
