//! Brings loaded users and chats up to the ring's floor, where the projection lags behind the ring.
//!
//! The log between the projection's checkpoint and the floor is scanned once for the whole batch, and folded as the
//! projection will fold it.

use std::collections::{BTreeSet, HashMap};

use shared::{
    event::Event,
    id::{ChatId, Seq},
};
use streams::{Entry, Nats, Partition, Scan};

use super::super::judge::Judge;
use crate::{
    command::Failure,
    hub::{
        Hub,
        facts::{joining, leaving},
        install::{LoadedChat, LoadedUser},
        user::Interval,
    },
};

/// Brings chats and users that are loaded as of a sequence below `floor` up to it. Those that are above it stay. Returns
/// the chats that users of the batch may have joined and whose states are not in the batch: whether they did can't be
/// judged, so nothing of the batch may be installed before these are loaded with it. Returns also the judge, which knows
/// the commands up to `floor` that the projection may not know.
pub(super) async fn to_ring(
    (hub, db, nats): (&Hub, &sql::Db, &Nats),
    floor: Seq,
    chats: &mut [LoadedChat],
    users: &mut [LoadedUser],
) -> Result<(BTreeSet<ChatId>, Judge), Failure> {
    let (mut unjudged, mut judge) = (BTreeSet::new(), Judge::default());
    let oldest = chats.iter().map(|chat| chat.upto).chain(users.iter().map(|user| user.upto)).min();
    let Some(oldest) = oldest.filter(|oldest| *oldest < floor) else { return Ok((unjudged, judge)) };
    let places: HashMap<ChatId, usize> =
        chats.iter().enumerate().map(|(index, chat)| (chat.chat, index)).collect();
    let mut scan = Scan::new(nats, Partition::FIRST, oldest, floor);
    while let Some(entries) = scan.next().await.map_err(|_| Failure::log_unavailable())? {
        let after = |chat: ChatId| Some(chats.get(*places.get(&chat)?)?.upto);
        judge.look((hub, db), &entries, after).await?;
        for entry in &entries {
            let Some(chat) = entry.chat else { continue };
            match places.get(&chat).and_then(|index| chats.get_mut(*index)) {
                Some(loaded) => take(&mut judge, entry, loaded, users),
                None if may_join(entry, users) => drop(unjudged.insert(chat)),
                None => {}
            }
        }
    }
    for chat in chats {
        chat.upto = chat.upto.max(floor);
    }
    for user in users {
        user.upto = user.upto.max(floor);
    }
    Ok((unjudged, judge))
}

/// Whether a user of the batch is among those whom the entry would make members.
fn may_join(entry: &Entry, users: &[LoadedUser]) -> bool {
    let Ok(event) = Event::decode(&entry.payload) else { return false };
    let joined = joining(&event.fact);
    users.iter().any(|user| user.upto < entry.seq && joined.contains(&user.user))
}

fn take(judge: &mut Judge, entry: &Entry, chat: &mut LoadedChat, users: &mut [LoadedUser]) {
    let Ok(event) = Event::decode(&entry.payload) else { return };
    // A chat that is loaded as of a later sequence has judged the entry, and its users may be as of an earlier one.
    if chat.upto < entry.seq {
        if judge.fold(&mut chat.state, chat.chat, entry.seq, &event).is_err() {
            return;
        }
        chat.head = entry.seq;
        chat.floor_head = entry.seq;
    }
    let joined = joining(&event.fact);
    let left = leaving(&event.fact);
    for user in users.iter_mut().filter(|user| user.upto < entry.seq) {
        let open =
            user.intervals.iter_mut().find(|interval| interval.chat == chat.chat && interval.to.is_none());
        match open {
            Some(open) if left == Some(user.user) => open.to = Some(entry.seq),
            None if joined.contains(&user.user) => {
                user.intervals.push(Interval { chat: chat.chat, from: entry.seq, to: None });
            }
            Some(_) | None => {}
        }
    }
}
