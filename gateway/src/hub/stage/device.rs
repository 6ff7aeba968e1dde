//! A client without a socket: it reads its session's outbox and applies what it reads by the rules of the protocol.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use shared::{
    codec,
    frame::{EventData, ServerFrame},
    id::{ChatId, Seq, UserId},
};

use crate::session::Session;

/// RFC 6455, 5.2: the first byte of a whole text frame.
const TEXT: u8 = 0x81;

/// What one device has, and its session.
pub(crate) struct Device {
    pub(crate) session: Arc<Session>,
    /// The last cursor that it got, sealed.
    pub(crate) cursor: Option<String>,
    /// What it had when the cursor came: a device stores both in one transaction.
    stored: Vec<(ChatId, Seq)>,
    /// Events that came although the device had them.
    pub(crate) twice: Vec<Seq>,
    /// The events of each chat that it has, ascending.
    chats: BTreeMap<ChatId, Vec<Seq>>,
    /// Chats that its user is no longer a member of, so far as it knows.
    left: BTreeSet<ChatId>,
    /// Bytes of a frame that did not arrive whole yet.
    wire: Vec<u8>,
}

impl Device {
    /// A device that has these events.
    pub(crate) fn new(session: Arc<Session>, has: Vec<(ChatId, Seq)>) -> Self {
        let mut chats: BTreeMap<ChatId, Vec<Seq>> = BTreeMap::new();
        for (chat, seq) in has {
            chats.entry(chat).or_default().push(seq);
        }
        let (cursor, twice, left, wire) = (None, Vec::new(), BTreeSet::new(), Vec::new());
        Self { session, cursor, stored: Vec::new(), twice, chats, left, wire }
    }

    /// The device after a crash, with what it stored beside its last cursor, and a session of its own.
    pub(crate) fn restored(&self, session: Arc<Session>) -> Self {
        let stored = self.stored.clone();
        Self { cursor: self.cursor.clone(), stored: stored.clone(), ..Self::new(session, stored) }
    }

    /// Replaces what it has of a chat by what the chat list and the history show it.
    pub(crate) fn refetch(&mut self, chat: ChatId, has: Vec<Seq>) {
        self.chats.insert(chat, has);
    }

    fn keep(&mut self, cursor: &str) {
        self.cursor = Some(cursor.to_owned());
        self.stored = self.has();
    }

    /// Everything that it has, in the log's order.
    pub(crate) fn has(&self) -> Vec<(ChatId, Seq)> {
        let all = self.chats.iter().flat_map(|(chat, events)| events.iter().map(|seq| (*chat, *seq)));
        let mut all: Vec<(ChatId, Seq)> = all.collect();
        all.sort_unstable_by_key(|(_, seq)| *seq);
        all
    }

    /// Reads and applies all that waits, and tells it in short: see [`in_short`].
    pub(crate) fn hears(&mut self) -> Vec<String> {
        self.hears_within(usize::MAX)
    }

    /// The same for at most so many bytes: the last frame may stay half on the wire.
    pub(crate) fn hears_within(&mut self, bytes: usize) -> Vec<String> {
        self.reads(bytes).iter().map(in_short).collect()
    }

    /// Reads and applies the frames that are whole after at most so many bytes.
    pub(crate) fn reads(&mut self, bytes: usize) -> Vec<ServerFrame> {
        let mut outbox = self.session.outbox();
        let mut buffer = vec![0; outbox.bytes().min(bytes)];
        let taken = outbox.gather(&mut buffer).len();
        outbox.advance(taken, 0);
        outbox.wake_if_drained(0);
        drop(outbox);
        self.wire.extend_from_slice(&buffer[..taken]);
        let mut frames = Vec::new();
        while let Some(frame) = self.next_frame() {
            self.apply(&frame);
            frames.push(frame);
        }
        frames
    }

    /// Takes the next text frame off the wire; control frames are skipped.
    fn next_frame(&mut self) -> Option<ServerFrame> {
        loop {
            let (start, length) = match (*self.wire.get(1)?, self.wire.get(2..4), self.wire.get(2..10)) {
                (126, Some(bytes), _) => (4, usize::from(u16::from_be_bytes(bytes.try_into().unwrap()))),
                (127, _, Some(bytes)) => (10, u64::from_be_bytes(bytes.try_into().unwrap()) as usize),
                (126 | 127, _, _) => return None,
                (length, _, _) => (2, usize::from(length)),
            };
            let payload = self.wire.get(start..start + length)?;
            let frame = (self.wire[0] == TEXT).then(|| codec::decode_server_json(payload).unwrap().unwrap());
            self.wire.drain(..start + length);
            if frame.is_some() {
                return frame;
            }
        }
    }

    fn apply(&mut self, frame: &ServerFrame) {
        match frame {
            ServerFrame::Message(message) => self.take(message.chat_id, message.seq, message.prev, false),
            ServerFrame::Event(event) => {
                let me = self.session.user();
                self.take(event.chat_id, event.seq, event.prev, lets_in(&event.data, me));
                if matches!(&event.data, EventData::MemberLeft(left) if left.user_id == me) {
                    self.left.insert(event.chat_id);
                }
            }
            ServerFrame::Reset(reset) => {
                self.chats.entry(reset.chat_id).or_default().retain(|seq| *seq <= reset.after_seq);
                // Whether the user is still a member of it follows from what comes.
                self.left.remove(&reset.chat_id);
                self.keep(&reset.cursor);
            }
            ServerFrame::Live(live) => self.keep(&live.cursor),
            ServerFrame::Cursor(cursor) => self.keep(&cursor.cursor),
            _ => {}
        }
    }

    /// The table of `prev` in docs/protocol.md.
    fn take(&mut self, chat: ChatId, seq: Seq, prev: Seq, lets_in: bool) {
        let events = self.chats.entry(chat).or_default();
        let head = events.last().copied().unwrap_or_default();
        if seq <= head {
            self.twice.push(seq);
            return;
        }
        let is_next = prev == head && !self.left.contains(&chat);
        assert!(is_next || lets_in, "{seq} of {chat} after {prev}: the device has {events:?}");
        events.push(seq);
        if lets_in {
            self.left.remove(&chat);
        }
    }
}

/// Whether the event makes the user a member.
fn lets_in(data: &EventData, user: UserId) -> bool {
    match data {
        EventData::ChatCreated(created) => created.member_ids.contains(&user),
        EventData::MemberJoined(joined) => joined.members.iter().any(|member| member.user_id == user),
        EventData::MemberLeft(_)
        | EventData::RoleChanged(_)
        | EventData::TitleChanged(_)
        | EventData::SettingsChanged(_)
        | EventData::Edited(_)
        | EventData::Deleted(_)
        | EventData::Reaction(_)
        | EventData::Noop(()) => false,
    }
}

/// A frame in a few words: `Message 5 after 3`, `edited 6 after 5`, with ` blank` behind it if the body is withheld;
/// `Ack 5`, `Ack 5 dup`, `Error log.unavailable`, `Lagging 4`, `Reset 1 to 4`; others by their type alone.
pub(crate) fn in_short(frame: &ServerFrame) -> String {
    let blank = |body: &str| if body.is_empty() { " blank" } else { "" };
    match frame {
        ServerFrame::Message(message) => {
            format!("Message {} after {}{}", message.seq, message.prev, blank(&message.body))
        }
        ServerFrame::Event(event) => {
            let body = if let EventData::Edited(edited) = &event.data { &edited.body } else { "-" };
            format!("{} {} after {}{}", event.data.kind(), event.seq, event.prev, blank(body))
        }
        ServerFrame::Ack(ack) => format!("Ack {}{}", ack.seq, if ack.dup { " dup" } else { "" }),
        ServerFrame::Error(error) => format!("Error {}", error.code),
        ServerFrame::Lagging(lagging) => format!("Lagging {}", lagging.behind),
        ServerFrame::Reset(reset) => format!("Reset {} to {}", reset.chat_id, reset.after_seq),
        ServerFrame::Live(_) => "Live".into(),
        ServerFrame::Cursor(_) => "Cursor".into(),
        other => format!("{other:?}"),
    }
}
