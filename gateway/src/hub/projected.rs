//! Feeding a session what is older than the ring: rows of the projection, or entries of a scan of the log.
//!
//! Both are read without the lock, so the hub may have moved on meanwhile. Invariant: nothing is queued to a session that
//! is in another lane, at another place, or in another history of the log than when the reading began.

use std::collections::HashSet;

use shared::{
    event::{Event, Fact, Kind},
    frame::{self, ServerFrame},
    id::{ChatId, Seq},
};
use sql::replay::EventRow;

use super::{Hub, State, ring::Verdict};
use crate::session::{Lane, Session, wire};

/// What was read of the projection for one session.
#[derive(Debug)]
pub struct Rows {
    /// The hub's epoch when the reading began.
    pub epoch: u32,
    /// Where the session stood then.
    pub after: Seq,
    /// The rows' events are all of the session's user in `(after, upto]`.
    pub upto: Seq,
    /// What the rows say of deletions is as of here.
    pub checkpoint: Seq,
    pub events: Vec<EventRow>,
}

impl Hub {
    /// Queues rows of the projection to a session in its catch-up. They are dropped if they fit it no more.
    pub fn feed_rows(&self, session: &Session, rows: &Rows) {
        let now_ms = self.clock.now_ms();
        self.serves(now_ms);
        let state = self.lock();
        if state.epoch != rows.epoch || session.lane() != Lane::CatchUp || session.fed() != rows.after {
            return;
        }
        let deleted = state.deletions_after(rows.events.iter().map(|row| row.chat), rows.checkpoint);
        for row in &rows.events {
            if let Some(frame) = frame_of(row, &deleted) {
                session.push_covering(wire::encode(&frame, session.identity.encoding), row.seq, now_ms);
                session.count_replayed(1);
                session.mark_dirty();
            }
        }
        session.set_fed(rows.upto);
        drop(state);
        self.metrics
            .replay_total
            .get_or_create(&vec![("source", "projection")])
            .inc_by(rows.events.len() as u64);
    }

    /// Runs `feed` under the lock, unless the hub has left the history `epoch`: for those who feed sessions from the log.
    pub fn while_in<T>(&self, epoch: u32, feed: impl FnOnce() -> T) -> Option<T> {
        let state = self.lock();
        (state.epoch == epoch).then(feed)
    }
}

/// The frame of a row of the projection, as the projection alone knows it.
pub fn frame_of_row(row: &EventRow) -> Option<ServerFrame> {
    frame_of(row, &HashSet::new())
}

fn frame_of(row: &EventRow, deleted: &HashSet<Seq>) -> Option<ServerFrame> {
    let event = Event::decode(&row.payload).ok()?;
    let target = match &event.fact {
        Fact::MessageEdited(edited) => edited.seq,
        _ => row.seq,
    };
    let gone = row.deleted || deleted.contains(&target);
    Some(frame::delivered(row.chat, row.seq, row.prev, row.ts_ms, &event, gone))
}

impl State {
    /// The messages of these chats that the ring knows to be deleted by events after `after`.
    fn deletions_after(&self, chats: impl Iterator<Item = ChatId>, after: Seq) -> HashSet<Seq> {
        let chats: HashSet<ChatId> = chats.collect();
        let deletions = chats.into_iter().flat_map(|chat| {
            self.ring
                .chain(chat)
                .take_while(move |(seq, _)| *seq > after)
                .filter(|(_, entry)| entry.kind == Kind::MessageDeleted && entry.verdict == Verdict::Valid)
                .filter_map(|(_, entry)| Event::decode(&entry.payload).ok())
        });
        let target = |event: Event| match event.fact {
            Fact::MessageDeleted(deleted) => Some(deleted.seq),
            _ => None,
        };
        deletions.filter_map(target).collect()
    }
}
