//! The union of what all devices saw: one sequence of events per chat, and the members of each chat over time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    breach::{Breach, Violation},
    device_log::{Delivered, DeviceLog, Effect},
};

/// All events that any device saw, by chat and sequence.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    pub(super) chats: HashMap<u64, BTreeMap<u64, Delivered>>,
    pub(super) deleted: BTreeSet<(u64, u64)>,
}

/// A stretch of membership; both ends belong to it (the own removal is still delivered).
#[derive(Debug, Clone, Copy)]
pub(super) struct Interval {
    from: u64,
    to: u64,
}

pub(super) type Members = HashMap<u64, Vec<Interval>>;

impl Timeline {
    pub(super) fn of(devices: &[Arc<DeviceLog>], violations: &mut Vec<Violation>) -> Self {
        let mut timeline = Self::default();
        for log in devices {
            log.each(|chat, event| {
                if let Effect::Deleted(seq) = event.effect {
                    timeline.deleted.insert((chat, seq));
                }
                let events = timeline.chats.entry(chat).or_default();
                let known = events.entry(event.seq).or_insert_with(|| event.clone());
                if !known.same_as(event) {
                    let text = format!("{}: chat {chat}: {event:?}, others saw {known:?}", log.label);
                    violations.push(Violation::new(Breach::Disagreement, text));
                } else if known.is_blank() {
                    // A replay may lack the body; whoever saw it knows better.
                    known.body = event.body;
                }
            });
        }
        timeline
    }

    /// The members of a chat over time.
    pub(super) fn members(&self, chat: u64, initial: Option<&BTreeSet<u64>>) -> Members {
        let mut members = Members::new();
        for user in initial.into_iter().flatten() {
            members.entry(*user).or_default().push(Interval { from: 0, to: u64::MAX });
        }
        for event in self.chats.get(&chat).into_iter().flat_map(BTreeMap::values) {
            match &event.effect {
                Effect::Joined(users) => users.iter().for_each(|user| join(&mut members, *user, event.seq)),
                Effect::Left(user) => {
                    if let Some(last) = members.get_mut(user).and_then(|of_user| of_user.last_mut()) {
                        last.to = last.to.min(event.seq);
                    }
                }
                Effect::Deleted(_) | Effect::None => {}
            }
        }
        members
    }
}

fn join(members: &mut Members, user: u64, seq: u64) {
    let intervals = members.entry(user).or_default();
    if intervals.last().is_none_or(|last| last.to < seq) {
        intervals.push(Interval { from: seq, to: u64::MAX });
    }
}

/// Whether the user was a member at that point of the chat.
pub(super) fn entitled(members: &Members, user: u64, seq: u64) -> bool {
    members.get(&user).is_some_and(|intervals| intervals.iter().any(|i| (i.from..=i.to).contains(&seq)))
}
