//! A device: it reads bytes, applies frames by the rules of docs/protocol.md, and keeps what it stored with its cursor.

use std::{
    collections::{BTreeMap, VecDeque},
    task::Waker,
};

use shared::{
    codec,
    cursor::{Cursor, Sealer},
    frame::{EventData, ServerFrame},
    id::{ChatId, Seq, UserId},
};

use super::book::Book;
use crate::session::wire::Encoding;

/// RFC 6455, 5.2: the first bytes of whole frames. A close has no payload here.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
pub(super) const CLOSE: [u8; 2] = [0x88, 0];

/// The kernel's buffer between a socket and its device.
#[derive(Default)]
pub(super) struct Pipe {
    pub(super) bytes: VecDeque<u8>,
    pub(super) room: usize,
    /// Waits for room, or for the device to go.
    pub(super) writer: Option<Waker>,
    pub(super) device_is_gone: bool,
    pub(super) server_is_gone: bool,
    /// Where the session began, if it resumed from no cursor.
    pub(super) began: Option<Seq>,
    /// In which history the session began.
    pub(super) epoch: u32,
}

impl Pipe {
    pub(super) fn wake(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

/// What survives the end of the app: all that was applied before the cursor, and the cursor, stored together.
#[derive(Clone, Default)]
struct Stored {
    /// The time of an event tells it from another one at the same place in another history.
    has: BTreeMap<(ChatId, Seq), u64>,
    cursor: Option<Cursor>,
}

pub(super) struct Device {
    pub(super) user: UserId,
    pub(super) encoding: Encoding,
    now: Stored,
    stored: Stored,
    /// It has, or will be sent, everything after this.
    base: Seq,
    /// On this connection everything comes from above this.
    at: Seq,
    /// Bytes of a frame that is not whole yet.
    rest: Vec<u8>,
    pub(super) is_live: bool,
    /// In which history the connection's session began.
    pub(super) epoch: u32,
}

/// What the device saw that it must not see.
pub(super) type Violation = String;

impl Device {
    pub(super) fn new(user: UserId, encoding: Encoding) -> Self {
        let (now, stored) = (Stored::default(), Stored::default());
        let (base, at) = (Seq::ZERO, Seq::ZERO);
        Self { user, encoding, now, stored, base, at, rest: Vec::new(), is_live: false, epoch: 0 }
    }

    /// A connection begins. With which cursor it resumes; without one it begins anew.
    pub(super) fn connect(&mut self, restarted: bool, book: &Book) -> Option<Cursor> {
        if restarted {
            self.now = self.stored.clone();
        }
        self.rest.clear();
        self.is_live = false;
        if self.now.cursor.is_none() {
            self.now.has.clear();
        }
        self.now.cursor.inspect(|cursor| {
            self.at = cursor.position.seq;
            if cursor.epoch < book.epoch() {
                self.read_chat_list(book);
            }
        })
    }

    /// A chat that was lost as a whole, or that its user is in no more, is in no `Reset`: the list of chats tells.
    fn read_chat_list(&mut self, book: &Book) {
        let user = self.user;
        self.now.has.retain(|(chat, seq), ts| {
            book.is_member(*chat, user) || book.get(*seq).is_some_and(|judged| judged.entry.ts_ms == *ts)
        });
    }

    /// The session resumed from no cursor, and gets what comes after this.
    pub(super) fn begin(&mut self, at: Seq) {
        (self.base, self.at) = (at, at);
    }

    /// The log has nothing above `cut` any more, so what comes above it has yet to be sent.
    pub(super) fn go_back(&mut self, cut: Seq) {
        self.base = self.base.min(cut);
        self.at = self.at.min(cut);
    }

    /// Reads bytes off the wire. Whether it was told to go.
    pub(super) fn read(&mut self, bytes: &[u8], book: &Book, sealer: &Sealer) -> Result<bool, Violation> {
        self.rest.extend_from_slice(bytes);
        while let Some((start, end)) = whole(&self.rest) {
            let frame: Vec<u8> = self.rest.drain(..end).collect();
            let decoded = match frame[0] {
                TEXT => codec::decode_server_json(&frame[start..]),
                BINARY => codec::decode_server_msgpack(&frame[start..]),
                first if first == CLOSE[0] => return Ok(true),
                other => return Err(format!("not a frame: {other:x}")),
            };
            let frame = decoded.map_err(|error| format!("{error:?}"))?.ok_or("an unknown frame")?;
            self.take(&frame, book, sealer).map_err(|why| format!("user {}: {frame:?}: {why}", self.user))?;
        }
        Ok(false)
    }

    fn take(&mut self, frame: &ServerFrame, book: &Book, sealer: &Sealer) -> Result<(), Violation> {
        let open = |cursor: &str| sealer.open(self.user, cursor).map_err(|error| error.to_string());
        match frame {
            ServerFrame::Message(it) => self.apply(frame, (it.chat_id, it.seq, it.prev, it.ts), false, book),
            ServerFrame::Event(it) => {
                let lets_in = match &it.data {
                    EventData::ChatCreated(_) => true,
                    EventData::MemberJoined(joined) => joined.members.iter().any(|m| m.user_id == self.user),
                    _ => false,
                };
                self.apply(frame, (it.chat_id, it.seq, it.prev, it.ts), lets_in, book)
            }
            ServerFrame::Live(live) => {
                self.is_live = true;
                let cursor = open(&live.cursor)?;
                self.store(cursor, book)
            }
            ServerFrame::Cursor(it) => {
                let cursor = open(&it.cursor)?;
                self.store(cursor, book)
            }
            ServerFrame::Reset(reset) => {
                let cursor = open(&reset.cursor)?;
                let (chat, after) = (reset.chat_id, reset.after_seq);
                self.now.has.retain(|(of, seq), _| *of != chat || *seq <= after);
                self.at = self.at.min(cursor.position.seq);
                self.read_chat_list(book);
                self.store(cursor, book)
            }
            ServerFrame::Lagging(_) => {
                self.is_live = false;
                Ok(())
            }
            ServerFrame::Ping(_) => Ok(()),
            _ => Err("unexpected".into()),
        }
    }

    /// The table of `prev` in docs/protocol.md, and what the log says of the event.
    fn apply(
        &mut self,
        frame: &ServerFrame,
        (chat, seq, prev, ts): (ChatId, Seq, Seq, u64),
        lets_in: bool,
        book: &Book,
    ) -> Result<(), Violation> {
        if seq <= self.at {
            return Err(format!("twice or out of order on one connection, which is at {}", self.at));
        }
        self.at = seq;
        // What the log has lost is taken back by a `Reset` that is yet to come.
        if let Some(judged) = book.get(seq).filter(|judged| judged.entry.ts_ms == ts) {
            if !judged.readers.contains(&self.user) {
                return Err("not its user's".into());
            }
            let frames = book.frames(judged, self.user);
            // A deletion that was lost may have taken the body from a frame that was queued before the cut.
            let was_cut = self.epoch != book.epoch();
            if !frames.contains(frame) && !was_cut {
                return Err(format!("it should be {:?}", frames.first()));
            }
        }
        let head = self.now.has.range((chat, Seq::ZERO)..=(chat, Seq(u64::MAX))).next_back();
        let head = head.map(|((_, head), _)| *head);
        match head {
            Some(head) if seq <= head => {
                if self.now.has.get(&(chat, seq)) != Some(&ts) {
                    return Err(format!("dropped as known, since the chat's head is {head}"));
                }
            }
            Some(head) if prev != head && !lets_in => {
                return Err(format!("a gap: the chat's head is {head}"));
            }
            _ => drop(self.now.has.insert((chat, seq), ts)),
        }
        Ok(())
    }

    /// A cursor covers nothing that the device was not sent before.
    fn store(&mut self, cursor: Cursor, book: &Book) -> Result<(), Violation> {
        let kept = book.kept_of(cursor).seq;
        if let Some(lost) = self.missing(kept, book) {
            return Err(format!("the cursor {cursor:?} covers {lost}, which was not sent"));
        }
        self.now.cursor = Some(cursor);
        self.stored = self.now.clone();
        Ok(())
    }

    /// The first event up to `upto` that it should have and has not.
    pub(super) fn missing(&self, upto: Seq, book: &Book) -> Option<Seq> {
        let mut entitled = book.entitled(self.user, self.base, upto);
        let lost = entitled.find(|judged| {
            let (chat, seq) = (judged.entry.chat.unwrap(), judged.entry.seq);
            self.now.has.get(&(chat, seq)) != Some(&judged.entry.ts_ms)
        });
        lost.map(|judged| judged.entry.seq)
    }

    /// The first event that it has and should not have.
    pub(super) fn surplus(&mut self, book: &Book) -> Option<Seq> {
        self.read_chat_list(book);
        let known = |seq: Seq, ts: u64| {
            book.get(seq).is_some_and(|it| it.entry.ts_ms == ts && it.readers.contains(&self.user))
        };
        self.now.has.iter().find(|((_, seq), ts)| !known(*seq, **ts)).map(|((_, seq), _)| *seq)
    }
}

/// Where the payload of the first frame begins and ends, if the frame is whole.
fn whole(bytes: &[u8]) -> Option<(usize, usize)> {
    let (start, length) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize),
        length => (2, usize::from(length)),
    };
    (bytes.len() >= start + length).then_some((start, start + length))
}
