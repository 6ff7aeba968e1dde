//! Loads users' memberships and chats' states into the hub, from the projection.
//!
//! Requests are collected and served in batches, so that a thousand devices that connect at once cost a few queries.
//! The hub brings what is installed up to its own position by the ring, so a load must be as of a sequence within the
//! ring. If the projection is below the ring, the log between them is read once for the whole batch (`extend`). If it
//! is above the hub's position, the load waits until the tail has come so far. If the ring has moved past it, it is
//! loaded again. Never tells a client anything.

mod extend;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use shared::{
    code::Code,
    entitlement::MAX_FORMER_STAYS,
    id::{ChatId, Seq, UserId},
};
use streams::Nats;
use tokio::sync::{mpsc, oneshot};

use super::judge::{Judge, KEYS_PER_QUERY};
use crate::{
    command::Failure,
    hub::{
        Hub,
        install::{LoadedChat, LoadedUser, Stale},
        judge::Looked,
        user::Interval,
    },
};

/// Requests that may wait. A gateway accepts fewer connections than this in the time of one load.
const QUEUE: usize = 16_384;
/// Requests in one batch: a query of this many ids takes a few milliseconds.
const BATCH: usize = 512;
/// Chats in one query.
const CHATS_PER_QUERY: usize = 2_048;
/// A batch is given up after this many loads: the ring moved past each of them, or each found more chats to load.
const ATTEMPTS: usize = 8;
/// A caller waits no longer than this. Then the device reconnects, or the command is sent again.
const PATIENCE: Duration = Duration::from_secs(5);

enum Request {
    User(UserId, oneshot::Sender<Result<(), Failure>>),
    Chat(ChatId, oneshot::Sender<Result<(), Failure>>),
}

/// The handle to ask for users and chats. Cheap to clone.
#[derive(Clone)]
pub struct Loader(mpsc::Sender<Request>);

impl Loader {
    /// The handle and the task that serves it.
    pub fn new(hub: Arc<Hub>, db: sql::Db, nats: Nats) -> (Self, impl Future<Output = ()>) {
        let (sender, requests) = mpsc::channel(QUEUE);
        (Self(sender), serve(hub, db, nats, requests))
    }

    /// Loads a user's memberships and chats.
    ///
    /// # Errors
    /// `server.unavailable`, temporary.
    pub async fn user(&self, user: UserId) -> Result<(), Failure> {
        self.ask(|answer| Request::User(user, answer)).await
    }

    /// Loads a chat, also one that does not exist (yet).
    ///
    /// # Errors
    /// As [`Loader::user`].
    pub async fn chat(&self, chat: ChatId) -> Result<(), Failure> {
        self.ask(|answer| Request::Chat(chat, answer)).await
    }

    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), Failure>>) -> Request,
    ) -> Result<(), Failure> {
        let (answer, outcome) = oneshot::channel();
        self.0.try_send(request(answer)).map_err(|_| unavailable())?;
        match tokio::time::timeout(PATIENCE, outcome).await {
            Ok(Ok(outcome)) => outcome,
            // Too late, or the task that serves requests is gone.
            Err(_) | Ok(Err(_)) => Err(unavailable()),
        }
    }
}

fn unavailable() -> Failure {
    Failure::temporary(Code::ServerUnavailable, 1_000, "the chats cannot be loaded at the moment")
}

async fn serve(hub: Arc<Hub>, db: sql::Db, nats: Nats, mut requests: mpsc::Receiver<Request>) {
    let mut batch = Vec::with_capacity(BATCH);
    while requests.recv_many(&mut batch, BATCH).await > 0 {
        let users: BTreeSet<UserId> = batch.iter().filter_map(Request::user).collect();
        let chats: BTreeSet<ChatId> = batch.iter().filter_map(Request::chat).collect();
        let outcome = Load { hub: &hub, db: &db, nats: &nats }.run(users, chats).await;
        if let Err(failure) = &outcome {
            let source = failure.source.as_deref().map(tracing::field::display);
            tracing::warn!(%failure, source, requests = batch.len(), "load failed");
        }
        let outcome = outcome.map_err(Failure::once_logged);
        for request in batch.drain(..) {
            // One chat that can't be loaded does not hold up the others.
            let is_here = match &request {
                Request::User(user, _) => hub.knows(*user),
                Request::Chat(chat, _) => hub.missing(std::iter::once(*chat)).is_empty(),
            };
            let (Request::User(_, answer) | Request::Chat(_, answer)) = request;
            drop(answer.send(if is_here { Ok(()) } else { outcome.clone() }));
        }
    }
}

impl Request {
    fn user(&self) -> Option<UserId> {
        if let Self::User(user, _) = self { Some(*user) } else { None }
    }

    fn chat(&self) -> Option<ChatId> {
        if let Self::Chat(chat, _) = self { Some(*chat) } else { None }
    }
}

/// One batch of requests.
struct Load<'a> {
    hub: &'a Hub,
    db: &'a sql::Db,
    nats: &'a Nats,
}

impl Load<'_> {
    async fn run(&self, mut users: BTreeSet<UserId>, mut chats: BTreeSet<ChatId>) -> Result<(), Failure> {
        for _ in 0..ATTEMPTS {
            let pin = self.hub.pin();
            users.retain(|user| !self.hub.knows(*user));
            let mut loaded = self.users(&users, pin.floor).await?;
            let intervals = loaded.iter().flat_map(|user| &user.intervals);
            let within = intervals.filter(|interval| interval.reaches_above(pin.floor));
            chats.extend(within.map(|interval| interval.chat));
            // Where the projection lags behind the ring, memberships change in the log between them. Whether such a change
            // is valid is for the chat's state to say, so that of a chat which the hub has is loaded as well.
            let lags = loaded.iter().any(|user| user.upto < pin.floor);
            let wanted =
                if lags { chats.iter().copied().collect() } else { self.hub.missing(chats.iter().copied()) };
            let mut states = self.chats(&wanted, pin.floor).await?;
            let past = (self.hub, self.db, self.nats);
            let (unjudged, judge) = extend::to_ring(past, pin.floor, &mut states, &mut loaded).await?;
            if !unjudged.is_empty() {
                chats.extend(unjudged);
                continue;
            }
            self.passed(&states, &loaded).await?;
            self.look(&mut states, pin.floor, &judge).await?;
            if self.install(states, loaded, pin.epoch, &mut chats) {
                return Ok(());
            }
        }
        Err(unavailable())
    }

    /// Installs all it can; `false` if anything is left to be loaded again.
    fn install(
        &self,
        states: Vec<LoadedChat>,
        users: Vec<LoadedUser>,
        epoch: u32,
        chats: &mut BTreeSet<ChatId>,
    ) -> bool {
        let mut complete = true;
        for chat in states {
            complete &= self.hub.install_chat(chat, epoch).is_ok();
        }
        for user in users {
            match self.hub.install_user(&user, epoch) {
                Ok(()) => {}
                Err(Stale::Ring) => complete = false,
                Err(Stale::Chats(unknown)) => {
                    complete = false;
                    chats.extend(unknown);
                }
            }
        }
        complete
    }

    /// Waits until the hub has come as far as the load: the projection may be ahead of this gateway's tail.
    async fn passed(&self, chats: &[LoadedChat], users: &[LoadedUser]) -> Result<(), Failure> {
        let upto = chats.iter().map(|chat| chat.upto).chain(users.iter().map(|user| user.upto)).max();
        let passed = self.hub.passed(upto.unwrap_or_default());
        tokio::time::timeout(PATIENCE, passed).await.map_err(|_| unavailable())
    }

    /// Finds the first copies of the entries of the ring after the load that the ring cannot judge by itself. The
    /// projection knows them up to its checkpoint, and `judge` knows those from there to `floor`.
    async fn look(&self, chats: &mut [LoadedChat], floor: Seq, judge: &Judge) -> Result<(), Failure> {
        let doubtful = self.hub.doubtful(chats.iter().map(|chat| (chat.chat, chat.upto)));
        let (mut upto, mut looked) = (None, HashMap::<ChatId, HashMap<Seq, Option<Seq>>>::new());
        for piece in doubtful.chunks(KEYS_PER_QUERY) {
            let keys: Vec<_> = piece.iter().map(|(_, key)| (key.chat, key.actor, key.uuid)).collect();
            let (checkpoint, stored) = self.db.first_copies(&keys).await?;
            // The projection had come at least as far when it was asked for the later pieces.
            upto.get_or_insert(checkpoint.position.seq.max(floor));
            let stored: HashMap<_, _> = stored.into_iter().collect();
            for ((seq, _), key) in piece.iter().zip(&keys) {
                looked.entry(key.0).or_default().insert(*seq, judge.first_copy(key, *seq, &stored));
            }
        }
        for chat in chats {
            if let Some(firsts) = looked.remove(&chat.chat) {
                chat.looked = Looked { upto: upto.unwrap_or(floor), firsts };
            }
        }
        Ok(())
    }

    async fn users(&self, users: &BTreeSet<UserId>, floor: Seq) -> Result<Vec<LoadedUser>, Failure> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<UserId> = users.iter().copied().collect();
        let (checkpoint, memberships) = self.db.memberships_of(&ids, floor, MAX_FORMER_STAYS).await?;
        let upto = checkpoint.position.seq;
        let mut loaded: BTreeMap<UserId, LoadedUser> =
            ids.into_iter().map(|user| (user, LoadedUser { user, upto, intervals: Vec::new() })).collect();
        for sql::states::Membership { user, chat, from, to, .. } in memberships {
            if let Some(loaded) = loaded.get_mut(&user) {
                loaded.intervals.push(Interval { chat, from, to });
            }
        }
        Ok(loaded.into_values().collect())
    }

    async fn chats(&self, chats: &[ChatId], floor: Seq) -> Result<Vec<LoadedChat>, Failure> {
        let mut loaded = Vec::with_capacity(chats.len());
        for piece in chats.chunks(CHATS_PER_QUERY) {
            let (checkpoint, states) = self.db.chat_states(piece, floor).await?;
            loaded.extend(states.into_iter().map(|snapshot| LoadedChat {
                chat: snapshot.chat,
                state: snapshot.state,
                upto: checkpoint.position.seq,
                head: snapshot.head,
                floor,
                floor_head: snapshot.floor_head,
                void: snapshot.void,
                looked: Looked::default(),
            }));
        }
        Ok(loaded)
    }
}

#[cfg(test)]
mod tests;
