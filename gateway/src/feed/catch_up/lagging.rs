//! The span between a lagging projection and the ring, read from the log itself.
//!
//! One scan at a time serves all sessions that wait for it. It folds the chats of those sessions from the
//! projection's checkpoint on, with the same rules as everyone, and feeds each session what it missed. Memory
//! is bounded by the chats of the waiting sessions; a session that does not take its events in time waits for
//! the next scan.

use std::{collections::HashSet, sync::Arc, time::Duration};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use shared::{
    event::{Event, Fact, Head, Kind},
    fold::{self, ChatState},
    frame,
    id::{ChatId, Seq, UserId},
};
use streams::{Entry, Nats, Partition, Scan};

use crate::{
    command::Failure,
    hub::{Hub, facts::joining},
    session::{Lane, Session, wire},
};

/// Sessions that one scan serves.
const MOST: usize = 1_000;
/// How long a scan waits for a reader that is full before it goes on without it.
const READER_PATIENCE: Duration = Duration::from_millis(500);
/// Bytes in an outbox beyond which a scan waits.
const FULL_BYTES: usize = 64 * 1024;

/// The sessions that wait for a scan, and the one scan at a time.
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

    /// Feeds the session up to the ring, by a scan of its own or another's. Returns after one scan; the caller looks
    /// where the session stands.
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
            // Another's scan has served this one while it waited for its turn.
            self.waiting.lock().extend(batch.into_iter().filter(|other| !Arc::ptr_eq(other, session)));
            return Ok(());
        }
        Span::load(self, batch).await?.scan(self).await
    }
}

/// One scan's sessions and the state of their chats.
struct Span {
    after: Seq,
    upto: Seq,
    epoch: u32,
    readers: Vec<Reader>,
    chats: HashMap<ChatId, Folded, FixedState>,
    /// Messages deleted within the span: their bodies are not fed.
    deleted: HashSet<Seq>,
}

struct Reader {
    session: Arc<Session>,
    full: bool,
}

struct Folded {
    state: Option<ChatState>,
    head: Seq,
}

/// What a first look at the span finds: what must be known before anything is fed.
#[derive(Default)]
struct Survey {
    joined: HashSet<ChatId>,
    deleted: HashSet<Seq>,
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
        if let Fact::MessageDeleted(deleted) = &event.fact {
            self.deleted.insert(deleted.seq);
        } else if joining(&event.fact).iter().any(|user| users.contains(user)) {
            self.joined.insert(chat);
        }
    }
}

impl Span {
    /// The chats of all these sessions' users, as of the projection's checkpoint.
    async fn load(from: &Lagging, sessions: Vec<Arc<Session>>) -> Result<Self, Failure> {
        let (epoch, upto) = from.hub.begins();
        let users: HashSet<UserId> = sessions.iter().map(|session| session.user()).collect();
        let ids: Vec<UserId> = users.iter().copied().collect();
        let (checkpoint, memberships) = from.db.memberships_of(&ids, Seq::ZERO).await?;
        let survey = Survey::of(&from.nats, checkpoint.position.seq, upto, &users).await?;
        let mut chats = survey.joined;
        chats.extend(memberships.iter().map(|membership| membership.chat));
        let chats: Vec<ChatId> = chats.into_iter().collect();
        let (checkpoint, states) = from.db.chat_states(&chats, Seq::ZERO).await?;
        let chats =
            states.into_iter().map(|row| (row.chat, Folded { state: row.state, head: row.head })).collect();
        let readers = sessions.into_iter().map(|session| Reader { session, full: false }).collect();
        Ok(Self { after: checkpoint.position.seq, upto, epoch, readers, chats, deleted: survey.deleted })
    }

    async fn scan(mut self, from: &Lagging) -> Result<(), Failure> {
        let mut scan = Scan::new(&from.nats, Partition::FIRST, self.after, self.upto);
        while self.after < self.upto
            && let Some(entries) = scan.next().await.map_err(|_| Failure::log_unavailable())?
        {
            for entry in &entries {
                if from.hub.while_in(self.epoch, || self.feed(&from.hub, entry)).is_none() {
                    return Ok(());
                }
            }
            if let Some(last) = entries.last()
                && from.hub.while_in(self.epoch, || self.covered(last.seq)).is_none()
            {
                return Ok(());
            }
            self.settle().await;
        }
        Ok(())
    }

    fn feed(&mut self, hub: &Hub, entry: &Entry) {
        let Some((chat_id, chat)) = entry.chat.and_then(|id| Some((id, self.chats.get_mut(&id)?))) else {
            return;
        };
        let Ok(event) = Event::decode(&entry.payload) else { return };
        if fold::apply(&mut chat.state, &event).is_err() {
            return;
        }
        let prev = std::mem::replace(&mut chat.head, entry.seq);
        let (target, removed) = match &event.fact {
            Fact::MessageEdited(edited) => (edited.seq, None),
            Fact::MemberLeft(left) => (entry.seq, Some(left.user_id)),
            _ => (entry.seq, None),
        };
        let deleted = self.deleted.contains(&target);
        let frame = frame::delivered(chat_id, entry.seq, prev, entry.ts_ms, &event, deleted);
        let now_ms = hub.clock.now_ms();
        for Reader { session, .. } in self.readers.iter().filter(|reader| reader.wants(entry.seq)) {
            let member = chat.state.as_ref().is_some_and(|state| state.members.contains(session.user()));
            if member || removed == Some(session.user()) {
                let bytes = wire::encode(&frame, session.identity.encoding);
                session.push_covering(bytes, entry.seq, now_ms);
                session.count_replayed(1);
                hub.metrics.replay_total.get_or_create(&vec![("source", "log")]).inc();
                session.mark_dirty();
            }
        }
    }

    /// The readers that still follow have all up to here.
    fn covered(&self, seq: Seq) {
        for reader in self.readers.iter().filter(|reader| reader.wants(seq)) {
            reader.session.set_fed(seq);
        }
    }

    /// Waits for readers that are full, for a while; goes on without those that stay so.
    async fn settle(&mut self) {
        for reader in self.readers.iter_mut().filter(|reader| !reader.full) {
            if reader.session.closing().is_some() || reader.session.is_ended() {
                reader.full = true;
            } else if reader.session.queued_bytes() > FULL_BYTES {
                let drained = reader.session.drained(FULL_BYTES / 2);
                reader.full = tokio::time::timeout(READER_PATIENCE, drained).await.is_err();
            }
        }
    }
}

impl Reader {
    /// Only a session that is still behind, and only what it does not have.
    fn wants(&self, seq: Seq) -> bool {
        !self.full && self.session.lane() == Lane::CatchUp && self.session.fed() < seq
    }
}
