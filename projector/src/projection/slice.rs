//! Slices of a batch: the entries whose rows one transaction writes.
//!
//! A batch is cut where its events would make more memberships than the largest event can. Other chats' events behind a
//! crowd of large groups then do not wait for one transaction with the rows of all of them, and no transaction comes
//! near the time that a statement may take. Invariant: the slices of a batch are its entries, in order, each once, up to
//! the first that this build cannot judge.

use shared::{
    event::{DecodeError, Event, Fact},
    fold::MAX_MEMBERS,
    id::{ChatId, Seq},
};
use streams::Entry;

/// The most memberships that the events of a slice make, unless it is one event. A smaller bound would not make the
/// longest transaction shorter: one event makes as many.
const MOST_MEMBERSHIPS: usize = MAX_MEMBERS;

/// An entry that only a newer build can judge.
#[derive(Debug, thiserror::Error)]
#[error("the log's entry {seq} cannot be judged by this build: {source}")]
pub struct TooNew {
    pub seq: Seq,
    #[source]
    pub source: DecodeError,
}

/// An entry of a chat, decoded.
#[derive(Debug)]
pub struct Decoded<'a> {
    pub chat: ChatId,
    pub entry: &'a Entry,
    /// `Err`: it is no event.
    pub event: Result<Event, DecodeError>,
}

/// The entries of one transaction.
#[derive(Debug)]
pub struct Slice<'a> {
    /// All entries, those of no chat included.
    pub entries: &'a [Entry],
    /// Those that belong to chats.
    pub decoded: Vec<Decoded<'a>>,
    /// What stands behind the slice, if this build cannot judge that. Then it is the last slice.
    pub too_new: Option<TooNew>,
}

/// The slices of a batch. Each is decoded when it is asked for.
pub fn slices(entries: &[Entry]) -> impl Iterator<Item = Slice<'_>> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let slice = (!rest.is_empty()).then(|| first_of(rest))?;
        rest = if slice.too_new.is_some() { &[] } else { &rest[slice.entries.len()..] };
        Some(slice)
    })
}

fn first_of(entries: &[Entry]) -> Slice<'_> {
    let mut decoded = Vec::new();
    let mut memberships = 0;
    for (at, entry) in entries.iter().enumerate() {
        let Some(chat) = entry.chat else { continue };
        let event = match Event::decode(&entry.payload) {
            Err(source) if !source.is_corrupt() => {
                let too_new = Some(TooNew { seq: entry.seq, source });
                return Slice { entries: &entries[..at], decoded, too_new };
            }
            event => event,
        };
        let more = event.as_ref().map_or(0, |event| memberships_of(&event.fact));
        if memberships > 0 && memberships + more > MOST_MEMBERSHIPS {
            return Slice { entries: &entries[..at], decoded, too_new: None };
        }
        memberships += more;
        decoded.push(Decoded { chat, entry, event });
    }
    Slice { entries, decoded, too_new: None }
}

/// The memberships that begin or end with an event if it is valid.
fn memberships_of(fact: &Fact) -> usize {
    match fact {
        Fact::ChatCreated(created) => created.members.len(),
        Fact::MembersJoined(joined) => joined.members.len(),
        Fact::MemberLeft(_) | Fact::RoleChanged(_) => 1,
        Fact::MessageSent(_)
        | Fact::MessageEdited(_)
        | Fact::MessageDeleted(_)
        | Fact::Reacted(_)
        | Fact::TitleChanged(_)
        | Fact::SettingsChanged(_)
        | Fact::Noop => 0,
    }
}

#[cfg(test)]
mod tests {
    use shared::{
        event::{ChatCreated, History, MemberRole, MembersJoined},
        id::{EventId, UserId},
        permission::{ChatType, Role},
    };
    use uuid::Uuid;

    use super::*;

    fn entries(facts: Vec<Fact>) -> Vec<Entry> {
        let entry = |(at, fact)| {
            let seq = Seq(at as u64 + 1);
            let actor = UserId::new(1).unwrap();
            let event = Event {
                actor,
                device: String::new(),
                uuid: Uuid::from_u128(at as u128),
                unique_as_of: None,
                fact,
            };
            Entry {
                seq,
                chat: Some(ChatId::new(seq.get()).unwrap()),
                id: EventId::from_i64(at as i64),
                ts_ms: 0,
                appended_ns: 0,
                payload: event.encode().into(),
                traceparent: None,
            }
        };
        facts.into_iter().enumerate().map(entry).collect()
    }

    fn members(count: usize) -> Vec<MemberRole> {
        let member = |id| MemberRole { user_id: UserId::new(id).unwrap(), role: Role::Member };
        (1..=count as u64).map(member).collect()
    }

    fn group(count: usize) -> Fact {
        let (chat_type, history) = (ChatType::Group, History::All);
        Fact::ChatCreated(ChatCreated { chat_type, title: None, history, members: members(count) })
    }

    fn joined(count: usize) -> Fact {
        Fact::MembersJoined(MembersJoined { members: members(count) })
    }

    /// The facts are cut into slices of these lengths.
    #[track_caller]
    fn check(facts: Vec<Fact>, expected: &[usize]) {
        let entries = entries(facts);
        let slices: Vec<Slice<'_>> = slices(&entries).collect();
        assert_eq!(slices.iter().map(|slice| slice.entries.len()).collect::<Vec<_>>(), expected);
        let all: Vec<Seq> =
            slices.iter().flat_map(|slice| slice.decoded.iter().map(|decoded| decoded.entry.seq)).collect();
        assert_eq!(all, entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), "each once, in order");
    }

    #[test]
    fn a_crowd_of_large_groups_is_many_transactions() {
        check((0..131).map(|_| group(9_000)).collect(), &[1; 131]);
        check(vec![group(4_000), joined(4_000), group(4_000), joined(2_000), Fact::Noop], &[2, 3]);
    }

    #[test]
    fn what_fits_is_one_transaction() {
        check(vec![], &[]);
        check((0..2_000).map(|_| Fact::Noop).collect(), &[2_000]);
        check((0..5_000).map(|_| group(2)).collect(), &[5_000]);
        check(vec![group(MAX_MEMBERS), Fact::Noop], &[2]);
        check(vec![Fact::Noop, group(MAX_MEMBERS), Fact::Noop, group(1)], &[3, 1]);
    }

    #[test]
    fn nothing_comes_after_what_only_a_newer_build_can_judge() {
        let mut entries = entries(vec![group(9_000), group(9_000), Fact::Noop, Fact::Noop]);
        entries[2].payload = b"\x96\x7F\x02\x01\xA0\xC4\x00\x90".as_slice().into();
        let slices: Vec<Slice<'_>> = slices(&entries).collect();
        assert_eq!(slices.iter().map(|slice| slice.entries.len()).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(slices[1].too_new.as_ref().map(|stop| stop.seq), Some(Seq(3)));
        assert_eq!(super::slices(&entries[2..]).count(), 1, "it is told although nothing stands before it");
    }
}
