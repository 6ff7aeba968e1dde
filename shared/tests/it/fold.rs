//! Laws of the fold: random histories against a naive model, and the invariants of every history.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};
use shared::{
    code::Code,
    event::{
        ChatCreated, Event, Fact, History, LeaveReason, MemberLeft, MemberRole, MembersJoined,
        MessageDeleted, MessageEdited, MessageSent, Reacted, RoleChanged, SettingsChanged, TitleChanged,
    },
    fold::{ChatState, Deletion, Deletions, KEPT, MAX_MEMBERS, Members, STALE, apply, verdict},
    id::{Seq, UserId},
    permission::{ChatType, Role},
};
use uuid::Uuid;

use crate::{samples, strategy::role};

/// Few users, so that histories are about the same ones again and again.
fn somebody() -> impl Strategy<Value = UserId> + Clone {
    (1..6_u64).prop_map(samples::user)
}

fn some_members() -> impl Strategy<Value = Vec<MemberRole>> {
    vec((somebody(), role()).prop_map(|(user_id, role)| MemberRole { user_id, role }), 0..4)
}

fn creation() -> impl Strategy<Value = Fact> {
    let chat_type = prop_oneof![1 => Just(ChatType::Direct), 4 => Just(ChatType::Group)];
    (chat_type, some_members()).prop_map(|(chat_type, mut members)| {
        members.push(MemberRole { user_id: samples::user(1), role: Role::Owner });
        Fact::ChatCreated(ChatCreated { chat_type, title: None, history: History::All, members })
    })
}

fn fact() -> impl Strategy<Value = Fact> {
    let sent = Fact::MessageSent(MessageSent { body: String::new(), reply_to: None, mentions: Vec::new() });
    let reason = prop_oneof![Just(LeaveReason::Left), Just(LeaveReason::Removed)];
    prop_oneof![
        1 => creation(),
        2 => Just(sent),
        1 => Just(Fact::TitleChanged(TitleChanged { title: "T".into() })),
        1 => Just(Fact::SettingsChanged(SettingsChanged { history: History::Join })),
        3 => revision(1..3),
        4 => some_members().prop_map(|members| Fact::MembersJoined(MembersJoined { members })),
        4 => (somebody(), reason)
            .prop_map(|(user_id, reason)| Fact::MemberLeft(MemberLeft { user_id, reason })),
        4 => (somebody(), role()).prop_map(|(user_id, role)| Fact::RoleChanged(RoleChanged { user_id, role })),
    ]
}

/// A reaction to, an edit or a deletion of one of these messages, by a gateway that had looked for a deletion or not.
fn revision(messages: std::ops::Range<u64>) -> impl Strategy<Value = Fact> {
    let seen = prop_oneof![Just(None), (0..120_u64).prop_map(|seen| Some(Seq(seen)))];
    (0..4_u8, messages.prop_map(Seq), somebody(), seen).prop_map(|(kind, seq, author, seen)| match kind {
        0 => Fact::Reacted(Reacted { seq, emoji: "👍".into(), on: true, seen }),
        1 => Fact::MessageEdited(MessageEdited { seq, author, body: "x".into(), mentions: vec![], seen }),
        _ => Fact::MessageDeleted(MessageDeleted { seq, author, seen }),
    })
}

fn event(actor: UserId, fact: Fact) -> Event {
    Event { actor, device: String::new(), uuid: Uuid::nil(), fact, unique_as_of: None }
}

/// An event and its place in the log.
type Entry = (Seq, Event);

fn numbered(events: impl Iterator<Item = Event>) -> Vec<Entry> {
    (1..).map(Seq).zip(events).collect()
}

/// A history, of which most begin with a creation by user 1.
fn history() -> impl Strategy<Value = Vec<Entry>> {
    let first = prop_oneof![9 => creation(), 1 => fact()].prop_map(|fact| event(samples::user(1), fact));
    let rest = vec((somebody(), fact()).prop_map(|(actor, fact)| event(actor, fact)), 0..60);
    (first, rest).prop_map(|(first, rest)| numbered(std::iter::once(first).chain(rest)))
}

/// A history that is about a chat's messages alone, with more deletions than are remembered.
fn history_of_messages() -> impl Strategy<Value = Vec<Entry>> {
    let members = (1..6).map(|id| MemberRole { user_id: samples::user(id), role: Role::Owner }).collect();
    let created = Fact::ChatCreated(ChatCreated {
        chat_type: ChatType::Group,
        title: None,
        history: History::All,
        members,
    });
    let rest = vec((somebody(), revision(1..80)).prop_map(|(actor, fact)| event(actor, fact)), 0..150);
    rest.prop_map(move |rest| numbered(std::iter::once(event(samples::user(1), created.clone())).chain(rest)))
}

/// The message that an event is about, and up to where its gateway had looked for a deletion.
fn looked(fact: &Fact) -> Option<(Seq, Seq)> {
    match fact {
        Fact::MessageEdited(edited) => Some((edited.seq, edited.seen?)),
        Fact::MessageDeleted(deleted) => Some((deleted.seq, deleted.seen?)),
        Fact::Reacted(reacted) => Some((reacted.seq, reacted.seen?)),
        _ => None,
    }
}

/// The model: written from the contract's sentences, slow and simple.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Naive {
    direct: bool,
    history: History,
    members: BTreeMap<UserId, Role>,
    /// The messages that were deleted, and where.
    deleted: Vec<(Seq, Seq)>,
}

impl Naive {
    /// Whether the fact is about a message that the last deletions name, or may name.
    fn stands(&self, fact: &Fact) -> Result<(), Code> {
        let Some((message, seen)) = looked(fact) else { return Ok(()) };
        let mut newest_first = self.deleted.iter().rev();
        if newest_first.by_ref().take(KEPT).any(|(deleted, _)| *deleted == message) {
            return Err(Code::MessageDeleted);
        }
        if newest_first.next().is_some_and(|(_, at)| seen < *at) { Err(STALE) } else { Ok(()) }
    }

    fn owners(&self) -> usize {
        self.members.values().filter(|role| **role == Role::Owner).count()
    }

    fn after(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }

    /// Whether the last owner goes while somebody stays, be it the same user in another role.
    fn orphaned_by(&self, next: &Self) -> bool {
        self.owners() > 0 && next.owners() == 0 && !next.members.is_empty()
    }
}

fn naive(chat: Option<&Naive>, (seq, event): &Entry) -> Result<Naive, Code> {
    match (chat, &event.fact) {
        (None, Fact::ChatCreated(created)) => naive_creation(created),
        (None, _) => Err(Code::ChatNotFound),
        (Some(chat), fact) => {
            let own = *chat.members.get(&event.actor).ok_or(Code::ChatNotFound)?;
            let mut next = naive_change(chat, event.actor, own, fact)?;
            chat.stands(fact)?;
            if let Fact::MessageDeleted(deleted) = fact {
                next.deleted.push((deleted.seq, *seq));
            }
            Ok(next)
        }
    }
}

fn naive_creation(created: &ChatCreated) -> Result<Naive, Code> {
    let members: BTreeMap<_, _> =
        created.members.iter().map(|member| (member.user_id, member.role)).collect();
    let direct = created.chat_type == ChatType::Direct;
    if members.is_empty() || (direct && members.len() != 2) {
        return Err(Code::CommandInvalid);
    }
    Ok(Naive { direct, history: created.history, members, deleted: Vec::new() })
}

fn naive_change(chat: &Naive, actor: UserId, own: Role, fact: &Fact) -> Result<Naive, Code> {
    let admin = !chat.direct && own >= Role::Admin;
    let owner = !chat.direct && own == Role::Owner;
    let when = |permitted: bool, next: Naive| if permitted { Ok(next) } else { Err(Code::ChatForbidden) };
    match fact {
        Fact::ChatCreated(_) => Err(Code::CommandUuidReused),
        Fact::MessageSent(_) | Fact::Reacted(_) | Fact::Noop => Ok(chat.clone()),
        Fact::MessageEdited(edited) if edited.author == actor => Ok(chat.clone()),
        Fact::MessageEdited(_) => Err(Code::MessageNotAuthor),
        Fact::MessageDeleted(deleted) if deleted.author == actor || admin => Ok(chat.clone()),
        Fact::MessageDeleted(_) => Err(Code::MessageNotAuthor),
        Fact::TitleChanged(_) => when(admin, chat.clone()),
        Fact::SettingsChanged(changed) => when(admin, chat.after(|next| next.history = changed.history)),
        Fact::MembersJoined(joined) => {
            if joined.members.iter().any(|new| if new.role == Role::Member { !admin } else { !owner }) {
                return Err(Code::ChatForbidden);
            }
            let new: BTreeSet<_> = joined.members.iter().map(|member| member.user_id).collect();
            if new.is_empty()
                || new.len() != joined.members.len()
                || new.iter().any(|user| chat.members.contains_key(user))
            {
                return Err(Code::CommandInvalid);
            }
            Ok(chat
                .after(|next| next.members.extend(joined.members.iter().map(|new| (new.user_id, new.role)))))
        }
        Fact::MemberLeft(left) => {
            let target = *chat.members.get(&left.user_id).ok_or(Code::MemberNotFound)?;
            let next = chat.after(|next| next.members.retain(|user, _| *user != left.user_id));
            let permitted = match (left.user_id == actor, left.reason) {
                (true, LeaveReason::Left) => !chat.direct,
                (false, LeaveReason::Removed) => owner || (admin && target == Role::Member),
                _ => return Err(Code::CommandInvalid),
            };
            let next = when(permitted, next)?;
            if chat.orphaned_by(&next) { Err(Code::ChatLastOwner) } else { Ok(next) }
        }
        Fact::RoleChanged(changed) => {
            let from = *chat.members.get(&changed.user_id).ok_or(Code::MemberNotFound)?;
            let steps_down = changed.user_id == actor && changed.role <= from;
            let next = chat.after(|next| next.members.extend([(changed.user_id, changed.role)]));
            let next = when(owner || (steps_down && !chat.direct), next)?;
            if chat.orphaned_by(&next) { Err(Code::ChatLastOwner) } else { Ok(next) }
        }
    }
}

fn same(chat: Option<&ChatState>, naive: Option<&Naive>) -> bool {
    match (chat, naive) {
        (None, None) => true,
        (Some(chat), Some(naive)) => {
            let members: BTreeMap<_, _> =
                chat.members.iter().map(|member| (member.user_id, member.role)).collect();
            members == naive.members
                && chat.members.len() == naive.members.len()
                && chat.history == naive.history
                && (chat.chat_type == ChatType::Direct) == naive.direct
                && chat.deletions
                    == naive
                        .deleted
                        .iter()
                        .map(|(target, at)| Deletion { target: *target, at: *at })
                        .collect()
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn histories_agree_with_the_naive_model(history in prop_oneof![history(), history_of_messages()]) {
        let (mut chat, mut model) = (None, None);
        for entry in &history {
            let expected = naive(model.as_ref(), entry);
            prop_assert_eq!(apply(&mut chat, entry.0, &entry.1), expected.as_ref().map(|_| ()).map_err(|code| *code));
            if let Ok(next) = expected {
                model = Some(next);
            }
            prop_assert!(same(chat.as_ref(), model.as_ref()), "{:?} {:?}", chat, model);
        }
    }

    #[test]
    fn a_verdict_foretells_and_a_refusal_changes_nothing(history in prop_oneof![history(), history_of_messages()]) {
        let mut chat = None;
        for (seq, event) in &history {
            let before = chat.clone();
            let foretold = verdict(chat.as_ref(), event);
            let applied = apply(&mut chat, *seq, event);
            prop_assert_eq!(foretold, applied);
            if applied.is_err() {
                prop_assert_eq!(&before, &chat);
            }
        }
    }

    #[test]
    fn without_its_refused_events_a_history_is_the_same(history in history()) {
        let (mut whole, mut valid) = (None, None);
        for (seq, event) in &history {
            if apply(&mut whole, *seq, event).is_ok() {
                prop_assert_eq!(apply(&mut valid, *seq, event), Ok(()));
            }
        }
        prop_assert_eq!(whole, valid);
    }

    #[test]
    fn verdicts_do_not_depend_on_the_batching(history in prop_oneof![history(), history_of_messages()], sizes in vec(1..7_usize, 1..80)) {
        let mut chat = None;
        let at_once: Vec<_> = history.iter().map(|(seq, event)| apply(&mut chat, *seq, event)).collect();
        let (mut batched, mut kept, mut rest) = (Vec::new(), None::<ChatState>, history.as_slice());
        for size in sizes.iter().cycle() {
            let (batch, left) = rest.split_at((*size).min(rest.len()));
            // What a checkpoint keeps between batches: members, settings and the last deletions.
            let mut state = kept.map(|state| ChatState {
                members: state.members.iter().collect::<Members>(),
                deletions: last_deletions(&state.deletions),
                ..state
            });
            batched.extend(batch.iter().map(|(seq, event)| apply(&mut state, *seq, event)));
            (kept, rest) = (state, left);
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(at_once, batched);
        prop_assert_eq!(chat, kept);
    }

    /// A gateway that found no deletion up to `seen` is told of every later one, however long ago it has looked.
    #[test]
    fn nothing_valid_is_about_a_message_that_was_deleted_before(history in history_of_messages()) {
        let mut chat = None;
        let mut deleted: Vec<(Seq, Seq)> = Vec::new();
        for (seq, event) in &history {
            let verdict = apply(&mut chat, *seq, event);
            if let Some((message, seen)) = looked(&event.fact)
                && !deleted.iter().any(|(target, at)| *target == message && *at <= seen)
            {
                let gone = deleted.iter().any(|(target, _)| *target == message);
                prop_assert!(verdict.is_err() || !gone);
                prop_assert!(verdict != Err(Code::MessageDeleted) || gone);
            }
            if let (Fact::MessageDeleted(fact), Ok(())) = (&event.fact, verdict) {
                deleted.push((fact.seq, *seq));
            }
        }
    }

    #[test]
    fn a_group_with_others_in_it_has_an_owner_and_a_direct_chat_its_two(history in history()) {
        let mut chat = None;
        for (seq, event) in &history {
            let _refused = apply(&mut chat, *seq, event).is_err();
            let Some(state) = &chat else { continue };
            match state.chat_type {
                ChatType::Direct => prop_assert_eq!(state.members.len(), 2),
                ChatType::Group => {
                    let owned = state.members.iter().any(|member| member.role == Role::Owner);
                    prop_assert!(owned || state.members.is_empty());
                }
            }
        }
    }

    #[test]
    fn membership_is_intervals_that_valid_facts_open_and_close(history in history()) {
        let mut chat = None;
        let mut intervals: Vec<(UserId, usize, Option<usize>)> = Vec::new();
        let mut snapshots: Vec<BTreeSet<UserId>> = Vec::new();
        for (seq, (at, event)) in history.iter().enumerate() {
            if apply(&mut chat, *at, event).is_ok() {
                let joined = match &event.fact {
                    Fact::ChatCreated(created) => created.members.as_slice(),
                    Fact::MembersJoined(joined) => joined.members.as_slice(),
                    _ => &[],
                };
                let joined: BTreeSet<_> = joined.iter().map(|member| member.user_id).collect();
                prop_assert!(joined.is_empty() || event.fact.kind().changes_members());
                for user in joined {
                    prop_assert!(!intervals.iter().any(|(open, _, to)| *open == user && to.is_none()));
                    intervals.push((user, seq, None));
                }
                if let Fact::MemberLeft(left) = &event.fact {
                    let open = intervals.iter_mut().find(|(user, _, to)| *user == left.user_id && to.is_none());
                    let Some((.., to)) = open else { return Err(TestCaseError::fail("left without a join")) };
                    *to = Some(seq);
                }
            }
            snapshots.push(chat.iter().flat_map(|chat| chat.members.users()).collect());
        }
        for (seq, snapshot) in snapshots.iter().enumerate() {
            let inside = |from: usize, to: Option<usize>| from <= seq && to.is_none_or(|to| seq < to);
            let members: BTreeSet<_> =
                intervals.iter().filter(|(_, from, to)| inside(*from, *to)).map(|(user, ..)| *user).collect();
            prop_assert_eq!(&members, snapshot);
        }
    }

    #[test]
    fn members_are_a_sorted_map(pairs in vec((somebody(), role()), 0..20)) {
        let members: Members = pairs.iter().map(|(user_id, role)| MemberRole { user_id: *user_id, role: *role }).collect();
        let model: BTreeMap<UserId, Role> = pairs.into_iter().collect();
        prop_assert_eq!(members.len(), model.len());
        prop_assert_eq!(members.is_empty(), model.is_empty());
        prop_assert!(members.users().eq(model.keys().copied()));
        prop_assert!(members.iter().map(|member| (member.user_id, member.role)).eq(model.clone()));
        for user in (1..8).map(samples::user) {
            prop_assert_eq!(members.role(user), model.get(&user).copied());
            prop_assert_eq!(members.contains(user), model.contains_key(&user));
        }
    }
}

#[test]
fn a_chat_holds_ten_thousand_and_not_one_more() {
    let member = |id| MemberRole {
        user_id: samples::user(id),
        role: if id == 1 { Role::Owner } else { Role::Member },
    };
    let mut chat = None;
    let members = (1..=MAX_MEMBERS as u64).map(member).collect();
    let created = Fact::ChatCreated(ChatCreated {
        chat_type: ChatType::Group,
        title: None,
        history: History::All,
        members,
    });
    assert_eq!(apply(&mut chat, Seq(1), &event(samples::user(1), created)), Ok(()));
    let one_more = Fact::MembersJoined(MembersJoined { members: vec![member(MAX_MEMBERS as u64 + 1)] });
    assert_eq!(apply(&mut chat, Seq(2), &event(samples::user(1), one_more)), Err(Code::ChatFull));
}

/// As a store gives them again: the last ones, one of them more than is remembered. Where the forgotten one pointed to is
/// not kept.
fn last_deletions(deletions: &Deletions) -> Deletions {
    let forgotten = Some(deletions.forgotten()).filter(|at| *at > Seq::ZERO);
    let forgotten = forgotten.map(|at| Deletion { target: Seq::ZERO, at });
    forgotten.into_iter().chain(deletions.iter()).collect()
}
