//! Feeds sessions from the log itself, where the projection lags behind the ring.
//!
//! The events between the projection's checkpoint and the ring's floor are in the log alone. One scan of that span at a
//! time serves all sessions that wait for it. It loads the chats of the waiting sessions as of the checkpoint, folds
//! the scanned entries as the projection will, and queues each valid event to the members that have yet to get it. The body of
//! a message that a later valid event deletes is withheld, so the span is folded once before, if it may hold deletions.
//! Memory is bounded by the chats of the waiting sessions. A session whose outbox stays full is left out and waits for
//! the next scan.

use std::{collections::HashSet, sync::Arc, time::Duration};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use shared::{
    event::{Event, Head, Kind},
    fold::ChatState,
    frame,
    id::{ChatId, Seq, UserId},
};
use streams::{Entry, Nats, Partition, Scan};

use super::super::judge::Judge;
use crate::{
    command::Failure,
    hub::{
        Hub,
        facts::{Revision, joining, leaving, revision},
        sight::Sights,
    },
    session::{Lane, Session, wire},
};

/// The most sessions that one scan serves.
const MOST: usize = 1_000;
/// How long a scan waits for a session whose outbox is full before it goes on without it.
const READER_PATIENCE: Duration = Duration::from_millis(500);
/// With more bytes than this in its outbox, a session counts as full and the scan waits for it.
const FULL_BYTES: usize = 64 * 1024;

/// The sessions that wait for a scan. `turn` lets one scan run at a time.
pub(super) struct Lagging {
    hub: Arc<Hub>,
    db: sql::Db,
    nats: Nats,
    waiting: Mutex<Vec<Arc<Session>>>,
    turn: tokio::sync::Mutex<()>,
}

impl Lagging {
    pub(super) fn new(hub: Arc<Hub>, db: sql::Db, nats: Nats) -> Self {
        Self { hub, db, nats, waiting: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Feeds the session up to the ring, by a scan of this call or by another call's. Returns after one scan, which
    /// may have left the session out: the caller looks at where the session has come to.
    ///
    /// # Errors
    /// Temporary, if the log or the projection can't be read.
    pub(super) async fn read(&self, session: &Arc<Session>) -> Result<(), Failure> {
        let fed = session.fed();
        {
            let mut waiting = self.waiting.lock();
            if !waiting.iter().any(|other| Arc::ptr_eq(other, session)) {
                waiting.push(session.clone());
            }
        }
        let _turn = self.turn.lock().await;
        let batch: Vec<Arc<Session>> = {
            let mut waiting = self.waiting.lock();
            let most = waiting.len().min(MOST);
            waiting.drain(..most).collect()
        };
        if session.fed() > fed || batch.is_empty() {
            // Another call's scan has fed this session while it waited for its turn.
            self.waiting.lock().extend(batch.into_iter().filter(|other| !Arc::ptr_eq(other, session)));
            return Ok(());
        }
        Span::load(self, batch).await?.scan(self).await
    }
}

/// One scan: its range, the sessions that it feeds, and the states of their chats.
struct Span {
    after: Seq,
    upto: Seq,
    epoch: u32,
    readers: Vec<Reader>,
    chats: Chats,
    /// The messages that valid events of the span or the ring delete. Their bodies are withheld.
    deleted: HashSet<Seq>,
}

type Chats = HashMap<ChatId, Folded, FixedState>;

/// A session that the scan feeds.
struct Reader {
    session: Arc<Session>,
    /// Where the scan has brought it; the session's own position must agree at each step.
    at: Seq,
    /// The scan goes on without it: it takes nothing, is closed, or stands elsewhere by now.
    left: bool,
}

/// A chat as of the entry that the scan has come to.
#[derive(Clone)]
struct Folded {
    state: Option<ChatState>,
    head: Seq,
}

/// Found by a first pass over the span, since the later ones need it from their first entry on.
#[derive(Default)]
struct Survey {
    /// Chats that some of the sessions' users may join within the span.
    joined: HashSet<ChatId>,
    /// Chats in which some entry of the span deletes a message, if it is valid.
    deleting: HashSet<ChatId>,
}

impl Survey {
    async fn of(nats: &Nats, after: Seq, upto: Seq, users: &HashSet<UserId>) -> Result<Self, Failure> {
        let mut survey = Self::default();
        let mut scan = Scan::new(nats, Partition::FIRST, after, upto);
        while let Some(entries) = scan.next().await.map_err(|_| Failure::log_unavailable())? {
            for entry in &entries {
                survey.note(entry, users);
            }
        }
        Ok(survey)
    }

    fn note(&mut self, entry: &Entry, users: &HashSet<UserId>) {
        let (Some(chat), Ok((head, _))) = (entry.chat, Head::read(&entry.payload)) else { return };
        if !head.kind.changes_members() && head.kind != Kind::MessageDeleted {
            return;
        }
        let Ok(event) = Event::decode(&entry.payload) else { return };
        if head.kind == Kind::MessageDeleted {
            self.deleting.insert(chat);
        } else if joining(&event.fact).iter().any(|user| users.contains(user)) {
            self.joined.insert(chat);
        }
    }
}

/// The messages of these chats that valid events in `(after, upto]` delete.
async fn deletions(from: &Lagging, after: Seq, upto: Seq, mut chats: Chats) -> Result<HashSet<Seq>, Failure> {
    let mut deleted = HashSet::new();
    if chats.is_empty() {
        return Ok(deleted);
    }
    let mut judge = Judge::default();
    let mut scan = Scan::new(&from.nats, Partition::FIRST, after, upto);
    while let Some(entries) = scan.next().await.map_err(|_| Failure::log_unavailable())? {
        judge
            .look((&from.hub, &from.db), &entries, |chat| chats.contains_key(&chat).then_some(after))
            .await?;
        for entry in &entries {
            let Some((id, chat)) = entry.chat.and_then(|id| Some((id, chats.get_mut(&id)?))) else {
                continue;
            };
            let Ok(event) = Event::decode(&entry.payload) else { continue };
            let is_valid = judge.fold(&mut chat.state, id, entry.seq, &event).is_ok();
            if let Some(Revision::Delete(message)) = revision(&event.fact).filter(|_| is_valid) {
                deleted.insert(message);
            }
        }
    }
    Ok(deleted)
}

impl Span {
    /// Loads the chats of these sessions' users as of the projection's checkpoint. The span begins there.
    async fn load(from: &Lagging, sessions: Vec<Arc<Session>>) -> Result<Self, Failure> {
        let (epoch, upto) = from.hub.begins();
        let users: HashSet<UserId> = sessions.iter().map(|session| session.user()).collect();
        let ids: Vec<UserId> = users.iter().copied().collect();
        let (checkpoint, memberships) = from.db.memberships_of(&ids, Seq::ZERO, 0).await?;
        let survey = Survey::of(&from.nats, checkpoint.position.seq, upto, &users).await?;
        let mut chats = survey.joined.clone();
        chats.extend(memberships.iter().map(|membership| membership.chat));
        let chats: Vec<ChatId> = chats.into_iter().collect();
        let (checkpoint, states) = from.db.chat_states(&chats, Seq::ZERO).await?;
        let chats: Chats =
            states.into_iter().map(|row| (row.chat, Folded { state: row.state, head: row.head })).collect();
        if checkpoint.epoch > epoch {
            // The log has lost its tail. The states may be of the new history, which this gateway has yet to enter.
            return Err(Failure::projection_behind());
        }
        let after = checkpoint.position.seq;
        let deleting = chats.iter().filter(|(chat, _)| survey.deleting.contains(*chat));
        let deleting: Chats = deleting.map(|(chat, folded)| (*chat, folded.clone())).collect();
        let mut deleted = deletions(from, after, upto, deleting).await?;
        deleted.extend(from.hub.deletions_after(chats.keys().copied(), upto));
        let readers = sessions.into_iter().filter_map(|session| Reader::from(session, after)).collect();
        Ok(Self { after, upto, epoch, readers, chats, deleted })
    }

    /// Reads the span and feeds the sessions. Ends early if the hub enters another epoch meanwhile, since the entries
    /// may be void then.
    async fn scan(mut self, from: &Lagging) -> Result<(), Failure> {
        let (after, epoch, mut judge) = (self.after, self.epoch, Judge::default());
        let mut scan = Scan::new(&from.nats, Partition::FIRST, after, self.upto);
        while self.after < self.upto
            && let Some(entries) = scan.next().await.map_err(|_| Failure::log_unavailable())?
        {
            let known = |chat| self.chats.contains_key(&chat).then_some(after);
            judge.look((&from.hub, &from.db), &entries, known).await?;
            for entry in &entries {
                let feed = |sights: &Sights<'_>| self.feed((&from.hub, sights), &mut judge, entry);
                if from.hub.while_in(epoch, feed).is_none() {
                    return Ok(());
                }
            }
            if let Some(last) = entries.last()
                && from.hub.while_in(self.epoch, |_| self.covered(&from.hub, last.seq)).is_none()
            {
                return Ok(());
            }
            self.settle().await;
        }
        Ok(())
    }

    /// Folds an entry and queues it to the sessions that are to get it.
    fn feed(&mut self, (hub, sights): (&Hub, &Sights<'_>), judge: &mut Judge, entry: &Entry) {
        let Some((chat_id, chat)) = entry.chat.and_then(|id| Some((id, self.chats.get_mut(&id)?))) else {
            return;
        };
        let Ok(event) = Event::decode(&entry.payload) else { return };
        if judge.fold(&mut chat.state, chat_id, entry.seq, &event).is_err() {
            return;
        }
        let prev = std::mem::replace(&mut chat.head, entry.seq);
        let target = match revision(&event.fact) {
            Some(Revision::Edit(message)) => message,
            Some(Revision::Delete(_)) | None => entry.seq,
        };
        // A user who is removed is no member any more, and is to hear of it.
        let removed = leaving(&event.fact);
        let deleted = self.deleted.contains(&target);
        let now_ms = hub.clock.now_ms();
        for reader in self.readers.iter_mut().filter(|reader| reader.wants(entry.seq)) {
            let session = reader.session.clone();
            let member = chat.state.as_ref().is_some_and(|state| state.members.contains(session.user()));
            if member || removed == Some(session.user()) {
                if !reader.step(hub, entry.seq) {
                    continue;
                }
                let sight = sights.of(session.user(), chat_id);
                let shown = sight.shows(&event);
                let frame = frame::delivered(chat_id, entry.seq, prev, entry.ts_ms, &shown, deleted);
                let bytes = wire::encode(&frame, session.identity.encoding);
                session.push_covering(bytes, entry.seq, now_ms);
                session.count_replayed(1);
                hub.metrics.replay_total.get_or_create(&vec![("source", "log")]).inc();
                session.mark_dirty();
            }
        }
    }

    /// The readers that still follow have all up to here.
    fn covered(&mut self, hub: &Hub, seq: Seq) {
        for reader in self.readers.iter_mut().filter(|reader| reader.wants(seq)) {
            reader.step(hub, seq);
        }
    }

    /// Gives full sessions a moment to be written, and goes on without those that stay full.
    async fn settle(&mut self) {
        for reader in self.readers.iter_mut().filter(|reader| !reader.left) {
            if reader.session.closing().is_some() || reader.session.is_ended() {
                reader.left = true;
            } else if reader.session.queued_bytes() > FULL_BYTES {
                let drained = reader.session.drained(FULL_BYTES / 2);
                reader.left = tokio::time::timeout(READER_PATIENCE, drained).await.is_err();
            }
        }
    }
}

impl Reader {
    /// A session that a scan of everything after `after` can feed. One that stands below would miss what lies between:
    /// the projection, which has come to `after`, feeds it first.
    fn from(session: Arc<Session>, after: Seq) -> Option<Self> {
        let at = session.fed();
        (at >= after).then_some(Self { session, at, left: false })
    }

    /// Only a session that is still behind, and only what it does not have.
    fn wants(&self, seq: Seq) -> bool {
        !self.left && self.session.lane() == Lane::CatchUp && self.at < seq
    }

    /// Moves the session on to `to`. `false`: it stands elsewhere by now, and the scan goes on without it.
    fn step(&mut self, hub: &Hub, to: Seq) -> bool {
        self.left = !hub.step(&self.session, self.at, to);
        if !self.left {
            self.at = to;
        }
        !self.left
    }
}

#[cfg(test)]
mod tests;
