//! Reading the ring for one user: the events that a device missed, in the log's order.
//!
//! There are two ways, with the same result. A device that missed little is served at once: the chains of its chats are
//! read, newest first, which takes microseconds. A device that missed much is fed by a scan of the ring from old to new,
//! a bounded piece at a time, at the pace of its socket. Neither passes an entry whose verdict is not known yet.

use shared::id::{Seq, UserId};

use super::{Hub, State, ring::Verdict, user::User};

/// The result of one bounded scan.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The user's events, ascending.
    pub(super) events: Vec<Seq>,
    /// All entries up to here have been looked at.
    pub(super) upto: Seq,
    /// The scan stopped at an entry that has no verdict yet, because the state of its chat is being loaded.
    pub(super) held: bool,
}

impl Hub {
    /// The events after `after` that a local user is entitled to. `None` as in `State::missed`.
    pub fn missed(&self, user: UserId, after: Seq, most: usize) -> Option<Vec<Seq>> {
        let state = self.lock();
        state.missed(state.user(user)?, after, most)
    }
}

impl State {
    /// The events after `after` that the user is entitled to, read from the chains of their chats. `None`: there are
    /// more than `most`, or a chat's state is being loaded, or `after` is below the ring.
    pub(super) fn missed(&self, user: &User, after: Seq, most: usize) -> Option<Vec<Seq>> {
        if after < self.ring.floor().seq || !user.pending.is_empty() {
            return None;
        }
        let mut events = Vec::new();
        for chat in user.chats().chain(user.left_chats(self.ring.floor().seq)) {
            for (seq, entry) in self.ring.chain(chat) {
                if seq <= after {
                    break;
                }
                if entry.verdict == Verdict::Unknown {
                    return None;
                }
                if entry.verdict == Verdict::Valid && user.entitled(chat, seq) {
                    if events.len() == most {
                        return None;
                    }
                    events.push(seq);
                }
            }
        }
        events.sort_unstable();
        events.dedup();
        Some(events)
    }

    /// The events after `after` that the user is entitled to, from a scan of at most `steps` entries that ends once
    /// `room` bytes are found. `after` is at or above the ring's floor.
    pub(super) fn scan(&self, user: &User, after: Seq, steps: usize, room: usize) -> Piece {
        let mut piece = Piece { events: Vec::new(), upto: after, held: false };
        let mut bytes = 0;
        for _ in 0..steps {
            let seq = piece.upto.next();
            let Some(entry) = self.ring.get(seq) else { break };
            if let Some(chat) = entry.chat {
                if user.pending.contains(&chat) {
                    piece.held = true;
                    break;
                }
                if user.entitled(chat, seq) {
                    match entry.verdict {
                        Verdict::Unknown => {
                            piece.held = true;
                            break;
                        }
                        Verdict::Void(_) | Verdict::Repeat(_) => {}
                        Verdict::Valid => {
                            bytes += entry.payload.len();
                            if bytes > room && !piece.events.is_empty() {
                                break;
                            }
                            piece.events.push(seq);
                        }
                    }
                }
            }
            piece.upto = seq;
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use shared::{
        event::{
            ChatCreated, Event, Fact, History, LeaveReason, MemberLeft, MemberRole, MembersJoined,
            MessageSent,
        },
        id::{ChatId, EventId, Position},
        permission::{ChatType, Role},
    };
    use uuid::Uuid;

    use super::*;
    use crate::hub::{
        chat::Chat,
        judge::{Judged, Looked},
        ring,
    };

    const OWNER: u64 = 100;

    fn user(id: u64) -> UserId {
        UserId::new(id).unwrap()
    }

    fn chat(id: u64) -> ChatId {
        ChatId::new(id).unwrap()
    }

    /// One step of the test: something that happens to a chat, as (chat, user).
    #[derive(Debug, Clone, Copy)]
    enum Happening {
        Message(u64, u64),
        Join(u64, u64),
        Leave(u64, u64),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        (1_u64..4, 1_u64..4, 0_u8..6).prop_map(|(chat, user, what)| match what {
            0 => Happening::Join(chat, user),
            1 => Happening::Leave(chat, user),
            _ => Happening::Message(chat, user),
        })
    }

    struct World {
        state: State,
        /// Per entry: its chat, whether it is valid, and who is entitled to it.
        model: Vec<(ChatId, bool, Vec<UserId>)>,
        members: std::collections::BTreeMap<ChatId, std::collections::BTreeSet<UserId>>,
    }

    impl World {
        fn new(ring_bytes: usize, present: &[u64]) -> Self {
            let mut state = State::new(ring_bytes);
            for id in present {
                state.slots.insert(user(*id), 0);
                let slot = state.users.insert(User::new(user(*id), 0));
                state.slots.insert(user(*id), slot as crate::hub::UserSlot);
            }
            let mut world = Self { state, model: Vec::new(), members: Default::default() };
            for id in 1..4 {
                world.state.chats.insert(chat(id), Chat { loaded: true, ..Chat::default() });
                let members = vec![MemberRole { user_id: user(OWNER), role: Role::Owner }];
                let created =
                    ChatCreated { chat_type: ChatType::Group, title: None, history: History::All, members };
                world.append(id, OWNER, Fact::ChatCreated(created));
            }
            world
        }

        fn happen(&mut self, happening: Happening) {
            match happening {
                Happening::Message(chat, from) => {
                    let sent = MessageSent { body: "x".into(), reply_to: None, mentions: Vec::new() };
                    self.append(chat, from, Fact::MessageSent(sent));
                }
                Happening::Join(chat, who) => {
                    let members = vec![MemberRole { user_id: user(who), role: Role::Member }];
                    self.append(chat, OWNER, Fact::MembersJoined(MembersJoined { members }));
                }
                Happening::Leave(chat, who) => {
                    let left = MemberLeft { user_id: user(who), reason: LeaveReason::Removed };
                    self.append(chat, OWNER, Fact::MemberLeft(left));
                }
            }
        }

        fn append(&mut self, chat_id: u64, actor: u64, fact: Fact) {
            let chat_id = chat(chat_id);
            let event = Event {
                actor: user(actor),
                device: String::new(),
                uuid: Uuid::nil(),
                fact,
                unique_as_of: Some(self.state.ring.position().seq),
            };
            let seq = self.state.ring.push(ring::Entry {
                id: EventId(self.model.len() as u64),
                ts: 0,
                chat: Some(chat_id),
                link: Seq::ZERO,
                prev: Seq::ZERO,
                verdict: Verdict::Unknown,
                kind: event.fact.kind(),
                command: 0,
                alike: 0,
                deleted: false,
                payload: Bytes::from(event.encode()),
            });
            let judged = self.state.judge(chat_id, seq, &Looked::default());
            let valid = matches!(judged, Judged::Valid(_));
            let members = self.members.entry(chat_id).or_default();
            let mut entitled: Vec<UserId> = Vec::new();
            if valid {
                for joined in crate::hub::facts::joining(&event.fact) {
                    members.insert(joined);
                }
                entitled.extend(members.iter());
                if let Fact::MemberLeft(left) = &event.fact {
                    members.remove(&left.user_id);
                }
                self.state.take_members(chat_id, seq, &event);
                self.state.drop_members(chat_id, seq, &event);
            }
            self.model.push((chat_id, valid, entitled));
        }

        fn expected(&self, who: u64, after: Seq) -> Vec<Seq> {
            (after.get() + 1..=self.model.len() as u64)
                .map(Seq)
                .filter(|seq| self.model[seq.get() as usize - 1].2.contains(&user(who)))
                .collect()
        }

        fn scanned(&self, who: &User, after: Seq, steps: usize, room: usize) -> Vec<Seq> {
            let (mut events, mut upto) = (Vec::new(), after);
            while upto < self.state.ring.position().seq {
                let piece = self.state.scan(who, upto, steps, room);
                assert!(piece.upto > upto && !piece.held, "a scan of judged entries gets on");
                events.extend(piece.events);
                upto = piece.upto;
            }
            events
        }
    }

    proptest! {
        /// Chains, scans of any size and a naive model agree on what every user missed, from any position in the
        /// ring; `prev` links each chat's valid events without a gap.
        #[test]
        fn both_ways_agree_with_the_model(
            happenings in prop::collection::vec(happening(), 1..120),
            ring_bytes in prop_oneof![Just(1_usize << 20), 1_000_usize..8_000],
            after in 0_u64..120,
            steps in 1_usize..10,
            room in 1_usize..200,
        ) {
            let mut world = World::new(ring_bytes, &[1, 2, 3]);
            for happening in happenings {
                world.happen(happening);
            }
            let floor = world.state.ring.floor().seq;
            let after = Seq(after.min(world.model.len() as u64)).max(floor);
            for who in 1..4 {
                let reader = world.state.user(user(who)).unwrap();
                let expected = world.expected(who, after);
                prop_assert_eq!(world.state.missed(reader, after, usize::MAX), Some(expected.clone()));
                prop_assert_eq!(world.scanned(reader, after, steps, room), expected);
            }
            let mut heads: std::collections::BTreeMap<ChatId, Seq> = Default::default();
            for (index, (chat, valid, _)) in world.model.iter().enumerate().filter(|(_, entry)| entry.1) {
                let seq = Seq(index as u64 + 1);
                let before = heads.insert(*chat, seq).unwrap_or_default();
                if let Some(entry) = world.state.ring.get(seq) {
                    prop_assert!(*valid);
                    prop_assert_eq!(entry.prev, before);
                }
            }
        }
    }

    #[test]
    fn a_cursor_below_the_ring_is_not_served_from_it() {
        let mut world = World::new(1_000, &[1]);
        world.happen(Happening::Join(1, 1));
        for _ in 0..50 {
            world.happen(Happening::Message(1, 1));
        }
        let floor = world.state.ring.floor();
        assert!(floor.seq > Position::default().seq);
        let reader = world.state.user(user(1)).unwrap();
        assert_eq!(world.state.missed(reader, Seq(floor.seq.get() - 1), usize::MAX), None);
    }
}
