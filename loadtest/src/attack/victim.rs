//! The honest user: sends a message ten times a second, reads over HTTP, logs in anew, and notes what each took.

use std::{
    fmt,
    future::Future,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::field::Field;
use crate::{
    client::{
        http::Api,
        socket::{Connect, Socket},
    },
    latency::{Summary, histogram, summary},
    provision::{Account, register},
};

/// An address that no attacker has.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 9, 9));
const PASSWORD: &str = "a-long-and-honest-password";
const MESSAGE_EVERY: Duration = Duration::from_millis(100);
const CALL_EVERY: Duration = Duration::from_millis(500);
/// Within the five calls a minute that an address has.
const LOGIN_EVERY: Duration = Duration::from_secs(15);
/// Beyond this a person has given up.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Victim {
    email: String,
    account: Account,
    chat: u64,
}

/// What one kind of work took.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Took {
    #[serde(flatten)]
    summary: Summary,
    failed: u64,
}

/// What the honest user felt.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Felt {
    messages: Took,
    calls: Took,
    logins: Took,
}

impl fmt::Display for Felt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |f: &mut fmt::Formatter<'_>, what: &str, took: &Took| {
            let Summary { count, p50_ms, p99_ms, max_ms, .. } = took.summary;
            write!(
                f,
                "{what} {count}, {} failed, p50 {p50_ms:.1} p99 {p99_ms:.1} max {max_ms:.0} ms",
                took.failed
            )
        };
        one(f, "messages", &self.messages)?;
        one(f, "; calls", &self.calls)?;
        one(f, "; logins", &self.logins)
    }
}

impl Victim {
    /// Registers, and has a group to talk in.
    pub(super) async fn arrive(field: &Field) -> Result<Self> {
        let api = Api::from(ADDRESS, field.url())?;
        let email = format!("honest{}@example.org", std::process::id());
        let account = register(&api, &email, PASSWORD).await.context("register the honest user")?;
        let chat = api.with_token(&account.access_token).create_group(&[account.user_id], "honest").await?;
        Ok(Self { email, account, chat })
    }

    /// Begins to use the product as ever.
    pub(super) fn watch(&self, field: &Field) -> Result<Witness> {
        let api = Api::from(ADDRESS, field.url())?;
        let (messages, calls, logins) = (Arc::default(), Arc::default(), Arc::default());
        let mut tasks = JoinSet::new();
        let (url, token, chat) = (field.url().to_owned(), self.account.access_token.clone(), self.chat);
        tasks.spawn(talk(url, token, chat, Arc::clone(&messages)));
        let member = api.with_token(&self.account.access_token);
        let path = format!("/v1/chats/{}/messages?limit=10", self.chat);
        tasks.spawn(repeat(CALL_EVERY, Arc::clone(&calls), move || {
            let (member, path) = (member.clone(), path.clone());
            async move { member.get(&path).await?.ok().map(drop) }
        }));
        let login = json!({"email": self.email, "password": PASSWORD});
        tasks.spawn(repeat(LOGIN_EVERY, Arc::clone(&logins), move || {
            let (api, login) = (api.clone(), login.clone());
            async move { api.post("/v1/auth/login", &login).await?.ok().map(drop) }
        }));
        Ok(Witness { tasks, messages, calls, logins })
    }
}

/// Works beside the attack.
pub(super) struct Witness {
    tasks: JoinSet<()>,
    messages: Arc<Mutex<Tally>>,
    calls: Arc<Mutex<Tally>>,
    logins: Arc<Mutex<Tally>>,
}

impl Witness {
    pub(super) async fn end(mut self) -> Felt {
        self.tasks.shutdown().await;
        let took = |tally: &Mutex<Tally>| {
            let tally = tally.lock();
            Took { summary: summary(&tally.times), failed: tally.failed }
        };
        Felt { messages: took(&self.messages), calls: took(&self.calls), logins: took(&self.logins) }
    }
}

struct Tally {
    times: Histogram<u64>,
    failed: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { times: histogram(), failed: 0 }
    }
}

impl Tally {
    fn note(&mut self, took: Duration, went_well: bool) {
        if went_well {
            self.times.saturating_record(took.as_micros() as u64);
        } else {
            self.failed += 1;
        }
    }
}

async fn repeat<F: Future<Output = Result<()>>>(
    every: Duration,
    tally: Arc<Mutex<Tally>>,
    work: impl Fn() -> F,
) {
    let mut pace = tokio::time::interval(every);
    loop {
        pace.tick().await;
        let begun = Instant::now();
        let went_well = matches!(tokio::time::timeout(PATIENCE, work()).await, Ok(Ok(())));
        tally.lock().note(begun.elapsed(), went_well);
    }
}

/// Sends on one socket, and on a new one whenever that fails.
async fn talk(url: String, token: String, chat: u64, tally: Arc<Mutex<Tally>>) {
    let mut pace = tokio::time::interval(MESSAGE_EVERY);
    let mut open: Option<Socket> = None;
    loop {
        pace.tick().await;
        let begun = Instant::now();
        let sent = tokio::time::timeout(PATIENCE, say(&url, &token, chat, open.take())).await;
        let went_well = matches!(sent, Ok(Ok(_)));
        open = sent.ok().and_then(Result::ok);
        tally.lock().note(begun.elapsed(), went_well);
    }
}

async fn say(url: &str, token: &str, chat: u64, open: Option<Socket>) -> Result<Socket> {
    let mut socket = match open {
        Some(socket) => socket,
        None => {
            let connect = Connect { source: Some(ADDRESS), ..Connect::new(url, token) };
            let mut socket = connect.open().await?;
            socket.expect("Live", PATIENCE).await?;
            socket
        }
    };
    let uuid = Uuid::now_v7().to_string();
    socket.say(&json!({"type": "SendMessage", "uuid": uuid, "chatId": chat, "body": "still here"})).await?;
    let answer =
        socket.until(PATIENCE, |frame| frame["uuid"] == uuid.as_str() && frame["type"] != "Message").await?;
    if answer["type"] == "Ack" { Ok(socket) } else { bail!("{answer}") }
}
