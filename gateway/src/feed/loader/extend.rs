//! Brings loaded users and chats up to the ring's floor, where the projection lags behind the ring.
//!
//! The log between the projection's checkpoint and the floor is scanned once for the whole batch, and folded by
//! `shared::fold`.

use std::collections::HashMap;

use shared::{
    event::Event,
    fold,
    id::{ChatId, Seq},
};
use streams::{Entry, Nats, Partition, Scan};

use crate::{
    command::Failure,
    hub::{
        facts::{joining, leaving},
        install::{LoadedChat, LoadedUser},
        user::Interval,
    },
};

/// Brings chats and users that are loaded as of a sequence below `floor` up to it. Those that are above it stay.
pub(super) async fn to_ring(
    nats: &Nats,
    floor: Seq,
    chats: &mut [LoadedChat],
    users: &mut [LoadedUser],
) -> Result<(), Failure> {
    let oldest = chats.iter().map(|chat| chat.upto).chain(users.iter().map(|user| user.upto)).min();
    let Some(oldest) = oldest.filter(|oldest| *oldest < floor) else { return Ok(()) };
    let places: HashMap<ChatId, usize> =
        chats.iter().enumerate().map(|(index, chat)| (chat.chat, index)).collect();
    let mut scan = Scan::new(nats, Partition::FIRST, oldest, floor);
    while let Some(entries) = scan.next().await.map_err(|_| Failure::log_unavailable())? {
        for entry in &entries {
            let Some(chat) = entry.chat else { continue };
            let loaded = places.get(&chat).and_then(|index| chats.get_mut(*index));
            take(entry, chat, loaded, users);
        }
    }
    for chat in chats {
        chat.upto = chat.upto.max(floor);
    }
    for user in users {
        user.upto = user.upto.max(floor);
    }
    Ok(())
}

fn take(entry: &Entry, chat_id: ChatId, chat: Option<&mut LoadedChat>, users: &mut [LoadedUser]) {
    let Ok(event) = Event::decode(&entry.payload) else { return };
    match chat {
        Some(chat) if chat.upto < entry.seq => {
            if fold::apply(&mut chat.state, &event).is_err() {
                return;
            }
            chat.head = entry.seq;
            chat.floor_head = entry.seq;
        }
        // The chat is loaded as of a later sequence. The users may be as of an earlier one, so they are looked at
        // below.
        Some(_) => {}
        // The chat is not in this batch. A user who joins it here gets it into their intervals, and the next round
        // loads it.
        None if joining(&event.fact).is_empty() => return,
        None => {}
    }
    let joined = joining(&event.fact);
    let left = leaving(&event.fact);
    for user in users.iter_mut().filter(|user| user.upto < entry.seq) {
        let open =
            user.intervals.iter_mut().find(|interval| interval.chat == chat_id && interval.to.is_none());
        match open {
            Some(open) if left == Some(user.user) => open.to = Some(entry.seq),
            None if joined.contains(&user.user) => {
                user.intervals.push(Interval { chat: chat_id, from: entry.seq, to: None });
            }
            Some(_) | None => {}
        }
    }
}
