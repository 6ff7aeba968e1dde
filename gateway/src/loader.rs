//! Loads what the hub lacks: users' memberships and chats' states, from the projection and the log behind it.
//!
//! Requests are collected and served together, so that a thousand devices that connect at once cost a few
//! queries. Invariant: what is installed is as of a sequence at or above the ring's floor; when the projection
//! lags behind the ring, the log between them is read once for the whole batch.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use shared::{
    code::Code,
    event::Event,
    fold,
    id::{ChatId, Seq, UserId},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    command::Failure,
    hub::{
        Hub,
        install::{LoadedChat, LoadedUser, Stale},
        user::Interval,
    },
};

/// Requests that may wait: more than the connections that a gateway accepts in the time of one load.
const QUEUE: usize = 16_384;
/// Requests served together: a query of this many ids takes a few milliseconds.
const BATCH: usize = 512;
/// A batch that the ring keeps overtaking is given up after this many loads.
const ATTEMPTS: usize = 8;
/// A caller waits no longer than this; a device comes back, a command is retried.
const PATIENCE: Duration = Duration::from_secs(5);

enum Request {
    User(UserId, oneshot::Sender<Result<(), Failure>>),
    Chat(ChatId, oneshot::Sender<Result<(), Failure>>),
}

/// The handle; see the module.
#[derive(Clone)]
pub struct Loader(mpsc::Sender<Request>);

impl Loader {
    /// The handle and the task that serves it.
    pub fn new(hub: Arc<Hub>, db: sql::Db, log: streams::read::Reader) -> (Self, impl Future<Output = ()>) {
        let (sender, requests) = mpsc::channel(QUEUE);
        (Self(sender), serve(hub, db, log, requests))
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

    async fn ask(&self, request: impl FnOnce(oneshot::Sender<Result<(), Failure>>) -> Request) -> Result<(), Failure> {
        let (answer, outcome) = oneshot::channel();
        self.0.try_send(request(answer)).map_err(|_| unavailable())?;
        match tokio::time::timeout(PATIENCE, outcome).await {
            Ok(Ok(outcome)) => outcome,
            _ => Err(unavailable()),
        }
    }
}

fn unavailable() -> Failure {
    Failure::temporary(Code::ServerUnavailable, 1_000, "the chats cannot be loaded at the moment")
}

async fn serve(hub: Arc<Hub>, db: sql::Db, log: streams::read::Reader, mut requests: mpsc::Receiver<Request>) {
    let mut batch = Vec::with_capacity(BATCH);
    while requests.recv_many(&mut batch, BATCH).await > 0 {
        let users: BTreeSet<UserId> = batch.iter().filter_map(Request::user).collect();
        let chats: BTreeSet<ChatId> = batch.iter().filter_map(Request::chat).collect();
        let outcome = Load { hub: &hub, db: &db, log: &log }.run(users, chats).await;
        if let Err(failure) = &outcome {
            tracing::warn!(%failure, requests = batch.len(), "load failed");
        }
        for request in batch.drain(..) {
            let (Request::User(_, answer) | Request::Chat(_, answer)) = request;
            drop(answer.send(outcome.clone()));
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

struct Load<'a> {
    hub: &'a Hub,
    db: &'a sql::Db,
    log: &'a streams::read::Reader,
}

impl Load<'_> {
    async fn run(&self, users: BTreeSet<UserId>, mut chats: BTreeSet<ChatId>) -> Result<(), Failure> {
        for _ in 0..ATTEMPTS {
            let pin = Pin::new(self.hub);
            let (users, loaded) = self.users(&users, pin.floor).await?;
            chats.extend(loaded.iter().flat_map(|user| user.intervals.iter().map(|interval| interval.chat)));
            let missing = self.missing(&chats);
            let states = self.chats(&missing, pin.floor).await?;
            let stale = self.install(states, loaded, &mut chats);
            drop(pin);
            if !stale && users == 0 {
                return Ok(());
            }
        }
        Err(unavailable())
    }

    /// Installs all it can; whether anything is left to be loaded again.
    fn install(&self, states: Vec<LoadedChat>, users: Vec<LoadedUser>, chats: &mut BTreeSet<ChatId>) -> bool {
        let mut stale = false;
        for chat in states {
            stale |= self.hub.install_chat(chat).is_err();
        }
        for user in users {
            match self.hub.install_user(&user) {
                Ok(()) => {}
                Err(Stale::Ring) => stale = true,
                Err(Stale::Chats(unknown)) => {
                    stale = true;
                    chats.extend(unknown);
                }
            }
        }
        stale
    }

    fn missing(&self, chats: &BTreeSet<ChatId>) -> Vec<ChatId> {
        let state = self.hub.lock();
        chats.iter().copied().filter(|chat| state.loaded(*chat).is_none()).collect()
    }
}
