//! Feeding a session events that are older than the ring: rows of the projection, or entries of a scan of the log.
//!
//! Both are read without the lock, so the hub may have moved on meanwhile. Invariants: nothing is queued to a session
//! that has left its catch-up, stands elsewhere, or is in another epoch than when the reading began; a message that was
//! deleted since the rows were read is fed without its body.

use std::collections::HashSet;

use shared::{
    entitlement::Sight,
    event::{Event, Kind},
    frame::{self, ServerFrame},
    id::{ChatId, Seq},
};
use sql::replay::EventRow;

use super::{
    Hub, State,
    facts::{Revision, revision},
    ring::Verdict,
    sight::Sights,
};
use crate::session::{Lane, Session, wire};

/// Rows of the projection that were read for one session.
#[derive(Debug)]
pub struct Rows {
    /// The hub's epoch when the reading began.
    pub epoch: u32,
    /// The session had been queued all up to here then.
    pub after: Seq,
    /// The rows are all events in `(after, upto]` that the session's user is entitled to.
    pub upto: Seq,
    /// The projection had come to here: the rows know of deletions up to it.
    pub checkpoint: Seq,
    pub events: Vec<EventRow>,
}

impl Hub {
    /// Queues rows of the projection to a session in its catch-up. Does nothing if they do not fit the session any more.
    pub fn feed_rows(&self, session: &Session, rows: &Rows) {
        let now_ms = self.clock.now_ms();
        self.serves(now_ms);
        let state = self.lock();
        if state.epoch != rows.epoch || session.lane() != Lane::CatchUp {
            return;
        }
        if !self.step(session, rows.after, rows.upto) {
            return;
        }
        let deleted = state.deletions_after(rows.events.iter().map(|row| row.chat), rows.checkpoint);
        for row in &rows.events {
            let sight = Sights(&state).of(session.user(), row.chat);
            if let Some(frame) = frame_of(row, &deleted, &sight) {
                session.push_covering(wire::encode(&frame, session.identity.encoding), row.seq, now_ms);
                session.count_replayed(1);
                session.mark_dirty();
            }
        }
        drop(state);
        self.metrics
            .replay_total
            .get_or_create(&vec![("source", "projection")])
            .inc_by(rows.events.len() as u64);
    }

    /// The messages of these chats that valid events after `after` delete, as far as those are in the ring.
    pub fn deletions_after(&self, chats: impl Iterator<Item = ChatId>, after: Seq) -> HashSet<Seq> {
        self.lock().deletions_after(chats, after)
    }

    /// Runs `feed` under the lock if the hub is still in `epoch`. `feed` queues events that were read from the log then.
    pub fn while_in<T>(&self, epoch: u32, feed: impl FnOnce(&Sights<'_>) -> T) -> Option<T> {
        let state = self.lock();
        (state.epoch == epoch).then(|| feed(&Sights(&state)))
    }
}

/// The frame of a row of the projection for a user with this sight. It knows of no deletion that the projection has not
/// seen.
pub fn frame_of_row(row: &EventRow, sight: &Sight) -> Option<ServerFrame> {
    frame_of(row, &HashSet::new(), sight)
}

fn frame_of(row: &EventRow, deleted: &HashSet<Seq>, sight: &Sight) -> Option<ServerFrame> {
    let event = Event::decode(&row.payload).ok()?;
    // An edit holds a body of the message that it edits.
    let message = match revision(&event.fact) {
        Some(Revision::Edit(message)) => message,
        Some(Revision::Delete(_)) | None => row.seq,
    };
    let gone = row.deleted || deleted.contains(&message);
    Some(frame::delivered(row.chat, row.seq, row.prev, row.ts_ms, &sight.shows(&event), gone))
}

impl State {
    /// The messages of these chats that valid events after `after` delete, as far as those are in the ring.
    pub(super) fn deletions_after(&self, chats: impl Iterator<Item = ChatId>, after: Seq) -> HashSet<Seq> {
        let chats: HashSet<ChatId> = chats.collect();
        let deletions = chats.into_iter().flat_map(|chat| {
            self.ring
                .chain(chat)
                .take_while(move |(seq, _)| *seq > after)
                .filter(|(_, entry)| entry.kind == Kind::MessageDeleted && entry.verdict == Verdict::Valid)
                .filter_map(|(_, entry)| Event::decode(&entry.payload).ok())
        });
        let target = |event: Event| match revision(&event.fact)? {
            Revision::Delete(message) => Some(message),
            Revision::Edit(_) => None,
        };
        deletions.filter_map(target).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::stage::*;

    /// A device in its catch-up below the ring, and the rows that it lacks, read just now.
    fn below_ring() -> (Stage, Device, Rows) {
        let mut stage = Stage::with_ring(4_000);
        stage.append(1, 1, created(&[1, 2]));
        stage.load_user(2);
        for _ in 0..50 {
            stage.append(1, 1, sent("hi"));
        }
        let (device, _) = stage.resume(2, Seq(1));
        let (upto, checkpoint) = (stage.hub.floor().seq, stage.hub.position());
        let mut events = stage.log.rows(user(2), Seq(1), checkpoint);
        events.retain(|row| row.seq <= upto);
        (stage, device, Rows { epoch: 0, after: Seq(1), upto, checkpoint, events })
    }

    #[test]
    fn rows_are_queued_once_and_the_ring_goes_on_behind_them() {
        let (stage, mut device, rows) = below_ring();
        stage.hub.feed_rows(&device.session, &rows);
        stage.hub.feed_rows(&device.session, &rows);
        assert_eq!(device.session.fed(), rows.upto);
        assert_eq!(stage.catch_up(&mut device), crate::hub::attach::Step::Live);
        device.hears();
        assert_eq!(device.has(), stage.log.entitled(user(2), stage.log.tip()));
        assert!(device.twice.is_empty());
    }

    #[test]
    fn rows_of_a_former_epoch_or_for_a_live_session_are_dropped() {
        let (mut stage, mut device, rows) = below_ring();
        let live = stage.connect(2);
        live.session.start_at(rows.after);
        stage.hub.feed_rows(&live.session, &rows);
        assert_eq!(live.session.queued_bytes(), 0);
        stage.lose_tail(stage.log.tip());
        device.hears();
        stage.hub.feed_rows(&device.session, &rows);
        assert!(device.hears().is_empty());
    }

    #[test]
    fn a_message_that_was_deleted_since_the_rows_were_read_is_fed_without_its_body() {
        let (mut stage, mut device, rows) = below_ring();
        stage.append(1, 1, deleted(Seq(2), 1));
        stage.hub.feed_rows(&device.session, &rows);
        assert_eq!(device.hears()[..2], ["Message 2 after 1 blank", "Message 3 after 2"]);
    }
}
