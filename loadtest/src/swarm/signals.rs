//! Best-effort frames: counted, and checked against their promises. Marks never go back, a device gets no signal of a
//! chat that is not its own, and no device is told of its own typing.

use serde::Deserialize;

use super::state::Swarm;
use crate::oracle::Breach;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Receipts {
    chat_id: u64,
    receipts: Vec<Receipt>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Receipt {
    user_id: u64,
    read_seq: u64,
    delivered_seq: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Presence<'a> {
    user_id: u64,
    state: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typing {
    chat_id: u64,
    user_id: u64,
}

impl Swarm {
    pub(super) fn receipts(&mut self, at: usize, text: &[u8]) {
        self.tally.counts.receipts += 1;
        self.devices[at].signals.receipts += 1;
        let Some(Receipts { chat_id, receipts }) = self.signal_of(at, text) else { return };
        let Some(head) = self.own_chat(at, chat_id) else { return };
        for Receipt { user_id, read_seq, delivered_seq } in receipts {
            let known = self.marks.entry((at as u32, chat_id, user_id)).or_default();
            let had = *known;
            *known = (had.0.max(read_seq), had.1.max(delivered_seq));
            if read_seq < had.0 || delivered_seq < had.1 {
                self.judge.breaches.add(Breach::OutOfOrder, || {
                    format!("device {at}: marks of user {user_id} in chat {chat_id} went from {had:?} to ({read_seq}, {delivered_seq})")
                });
            }
            if read_seq > head {
                self.judge.breaches.add(Breach::Phantom, || {
                    format!("device {at}: user {user_id} has read {read_seq} of chat {chat_id}, which is at {head}")
                });
            }
        }
    }

    pub(super) fn presence(&mut self, at: usize, text: &[u8]) {
        self.tally.counts.presence += 1;
        self.devices[at].signals.presence += 1;
        let Some(Presence { user_id, state }) = self.signal_of(at, text) else { return };
        if !matches!(state, "online" | "away" | "offline") {
            self.judge.breaches.add(Breach::Protocol, || format!("device {at}: user {user_id} is {state}"));
        }
    }

    pub(super) fn typing(&mut self, at: usize, text: &[u8]) {
        self.tally.counts.typing += 1;
        self.devices[at].signals.typing += 1;
        let Some(Typing { chat_id, user_id }) = self.signal_of(at, text) else { return };
        if self.own_chat(at, chat_id).is_some() && user_id == self.devices[at].user {
            self.judge.breaches.add(Breach::Protocol, || format!("device {at} is told of its own typing"));
        }
    }

    fn signal_of<'a, T: Deserialize<'a>>(&mut self, at: usize, text: &'a [u8]) -> Option<T> {
        let parsed = serde_json::from_slice(text);
        if let Err(error) = &parsed {
            self.judge.breaches.add(Breach::Protocol, || {
                format!("device {at}: {error} in {}", String::from_utf8_lossy(text))
            });
        }
        parsed.ok()
    }

    /// The head of the chat as anybody knows it, if the chat is the device's.
    fn own_chat(&mut self, at: usize, chat: u64) -> Option<u64> {
        let place = self.devices[at].head_mut(chat).map(|head| head.at);
        if place.is_none() {
            self.judge.breaches.add(Breach::Trespass, || format!("device {at}: a signal of chat {chat}"));
        }
        place.map(|place| self.judge.chats[place as usize].head())
    }

    /// Watches the presence of some of those that the device shares a chat with.
    pub(super) fn watch(&mut self, at: usize) {
        if self.habits.watch == 0 {
            return;
        }
        let device = &self.devices[at];
        let chats = device.heads.iter().map(|head| &self.judge.chats[head.at as usize]);
        let others =
            chats.flat_map(|chat| &chat.members).map(|member| *member as usize).filter(|other| *other != at);
        let ids: Vec<String> =
            others.take(self.habits.watch).map(|other| self.devices[other].user.to_string()).collect();
        self.signal(at, &format!(r#"{{"type":"WatchPresence","userIds":[{}]}}"#, ids.join(",")));
    }
}
