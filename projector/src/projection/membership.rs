//! Membership as intervals: joins open one, leaving ends it with the event that removes, a change of the role ends
//! one just before its event and opens another.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use shared::{
    event::{Fact, MemberRole},
    id::{ChatId, Seq, UserId},
    permission::Role,
};
use sql::projection::{Closed, MembershipRows, Opened, Origin, Rows};
use streams::Entry;

/// The intervals that a batch touches.
#[derive(Debug, Default)]
pub(super) struct Membership {
    closed: Vec<Closed>,
    opened: Vec<Opened>,
    /// The open interval of a member, if it began in this batch: its place in `opened`.
    open: HashMap<(ChatId, UserId), usize, RandomState>,
}

impl Membership {
    /// Takes in a valid event.
    pub(super) fn apply(&mut self, chat: ChatId, entry: &Entry, fact: &Fact) {
        match fact {
            // Members from the start have missed nothing, so their own mark is zero.
            Fact::ChatCreated(created) => self.join(chat, entry, &created.members, Seq::ZERO),
            Fact::MembersJoined(joined) => self.join(chat, entry, &joined.members, entry.seq),
            Fact::MemberLeft(left) => self.leave(chat, left.user_id, entry.seq),
            Fact::RoleChanged(changed) => self.change_role(chat, changed.user_id, changed.role, entry.seq),
            Fact::MessageSent(_)
            | Fact::MessageEdited(_)
            | Fact::MessageDeleted(_)
            | Fact::Reacted(_)
            | Fact::TitleChanged(_)
            | Fact::SettingsChanged(_)
            | Fact::Noop => {}
        }
    }

    fn join(&mut self, chat: ChatId, entry: &Entry, members: &[MemberRole], own_seq: Seq) {
        let origin = Origin::Joined { seq: entry.seq, ts_ms: entry.ts_ms, own_seq };
        for member in members {
            // A list that names somebody twice means the last role, as for the fold.
            match self.open.get(&(chat, member.user_id)) {
                Some(at) if self.opened[*at].from == entry.seq => self.opened[*at].role = member.role,
                _ => self.open(chat, member.user_id, member.role, entry.seq, origin),
            }
        }
    }

    fn leave(&mut self, chat: ChatId, user: UserId, seq: Seq) {
        match self.open.remove(&(chat, user)) {
            Some(at) => (self.opened[at].to, self.opened[at].gone) = (Some(seq), true),
            None => self.closed.push(Closed { chat, user, to: seq, gone: true }),
        }
    }

    fn change_role(&mut self, chat: ChatId, user: UserId, role: Role, seq: Seq) {
        let to = Seq(seq.get() - 1);
        let origin = match self.open.get(&(chat, user)) {
            Some(at) => {
                self.opened[*at].to = Some(to);
                self.opened[*at].origin
            }
            None => {
                self.closed.push(Closed { chat, user, to, gone: false });
                Origin::Continues { to }
            }
        };
        self.open(chat, user, role, seq, origin);
    }

    fn open(&mut self, chat: ChatId, user: UserId, role: Role, from: Seq, origin: Origin) {
        self.open.insert((chat, user), self.opened.len());
        self.opened.push(Opened { chat, user, role, from, to: None, gone: false, origin });
    }

    pub(super) fn finish(self, rows: &mut Rows<'_>) {
        rows.memberships = MembershipRows { closed: self.closed, opened: self.opened };
    }
}
