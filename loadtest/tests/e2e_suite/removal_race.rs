//! A member is removed on one gateway while they write on another: the log's order alone decides.

use std::{collections::BTreeMap, sync::Arc};

use loadtest::{
    client::{http::Api, socket::Socket},
    provision::Account,
};
use serde_json::{Value, json};
use tokio::{sync::Barrier, task::JoinSet};

use crate::support::cluster::{Build, Cluster, SOON, answer, send_frame};

/// Chats that race at the same time, each with members of its own.
const CHATS: usize = 6;
/// Removals of each chat's sender, with a re-add after each.
const ROUNDS: usize = 500;
/// What the sender says around each removal.
const BURST: usize = 3;

/// One chat's sender, and what became of everything they said.
struct Sender {
    socket: Socket,
    chat: u64,
    acked: BTreeMap<String, u64>,
    refused: Vec<String>,
}

impl Sender {
    /// Says a burst without waiting, then hears the verdicts.
    async fn burst(&mut self) {
        let mut uuids = Vec::with_capacity(BURST);
        for _ in 0..BURST {
            let (uuid, frame) = send_frame(self.chat, "am I still here?");
            self.socket.say(&frame).await.unwrap();
            uuids.push(uuid);
        }
        for uuid in uuids {
            let verdict = answer(&mut self.socket, &json!(uuid), SOON).await;
            if verdict["type"] == "Ack" {
                self.acked.insert(uuid, verdict["seq"].as_u64().unwrap());
            } else {
                assert_eq!(
                    (&verdict["code"], &verdict["temporary"]),
                    (&json!("chat.not_found"), &json!(false))
                );
                self.refused.push(uuid);
            }
        }
    }
}

/// Removes and re-adds the sender, each time in the middle of a burst of theirs.
async fn race(owner: Api, mut sender: Sender, user: u64) -> Sender {
    let members = format!("/v1/chats/{}/members", sender.chat);
    let start = Arc::new(Barrier::new(2));
    let remover = tokio::spawn({
        let start = start.clone();
        async move {
            for _ in 0..ROUNDS {
                start.wait().await;
                let removed = owner.delete(&format!("{members}/{user}")).await.unwrap();
                assert_eq!(removed.status, 204, "{}", removed.text);
                let added = owner.post(&members, &json!({"userIds": [user]})).await.unwrap();
                assert_eq!(added.status, 200, "{}", added.text);
            }
        }
    });
    for _ in 0..ROUNDS {
        start.wait().await;
        sender.burst().await;
    }
    remover.await.unwrap();
    sender
}

/// The durable events that a session of somebody who stays gets, until the chat's `head`.
async fn watch(socket: &mut Socket, chat: u64, head: u64) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let of_chat = |frame: &Value| {
            frame["chatId"] == chat && matches!(frame["type"].as_str(), Some("Message" | "Event"))
        };
        events.push(socket.until(SOON, of_chat).await.unwrap());
        if events.last().is_some_and(|event| event["seq"] == head) {
            return events;
        }
    }
}

/// Nothing by `user` lies between a removal of theirs and the join after it, and the chain is unbroken.
/// Returns the messages by uuid.
fn judge(events: &[Value], user: u64) -> BTreeMap<String, u64> {
    let mut inside = true;
    let mut said = BTreeMap::new();
    for pair in events.windows(2) {
        assert_eq!(pair[1]["prev"], pair[0]["seq"], "a gap before {}", pair[1]);
    }
    for event in events {
        match (event["type"].as_str(), event["kind"].as_str()) {
            (Some("Message"), _) => {
                assert!(inside && event["from"] == user, "said after the removal: {event}");
                said.insert(event["uuid"].as_str().unwrap().to_owned(), event["seq"].as_u64().unwrap());
            }
            (_, Some("memberLeft")) => inside = false,
            (_, Some("memberJoined")) => inside = true,
            _ => {}
        }
    }
    said
}

/// The sender's own view: the own removal is followed by nothing but the next join.
fn judge_own(events: &[Value]) {
    for pair in events.windows(2) {
        if pair[0]["kind"] == "memberLeft" {
            assert_eq!(pair[1]["kind"], "memberJoined", "after the own removal: {}", pair[1]);
        }
    }
}

/// All that a resume from `cursor` brings.
async fn replay(cluster: &Cluster, gateway: usize, account: &Account, cursor: &str) -> Vec<Value> {
    let mut socket = cluster.connect(gateway, account).with("cursor", cursor).open().await.unwrap();
    let mut events = Vec::new();
    loop {
        let frame = socket.frame(SOON).await.unwrap();
        match frame["type"].as_str() {
            Some("Message" | "Event") => events.push(frame),
            Some("Live") => return events,
            _ => {}
        }
    }
}

/// Commands that passed the gateways' checks and were void by their place in the log: the race itself.
async fn void(cluster: &Cluster) -> i64 {
    let url = cluster.env("MT_POSTGRES_URL");
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let count = client.query_one("SELECT count(*) FROM refused", &[]).await.unwrap().get(0);
    drop(client);
    connection.await.unwrap().unwrap();
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_said_after_a_removal_is_delivered_or_kept() {
    // Who watches reads only when the race is over.
    let patient = [
        ("MT_OUTBOX_FRAMES", "65536"),
        ("MT_OUTBOX_BYTES", "67108864"),
        ("MT_HEARTBEAT_MS", "600000"),
        ("MT_STALL_MS", "600000"),
    ];
    let build = Build::new("removal_race").gateways(2);
    let build = patient.iter().fold(build, |build, (name, value)| build.env(name, value));
    let mut cluster = build.start().await;
    let accounts = cluster.accounts(2 * CHATS).await;
    let (owners, senders) = accounts.split_at(CHATS);
    let mut races = JoinSet::new();
    let mut starts = Vec::new();
    for (n, (owner, sender)) in owners.iter().zip(senders).enumerate() {
        let (watcher, cursor) = cluster.live(n % 2, owner).await;
        let (_, own_cursor) = cluster.live(0, sender).await;
        let chat = cluster.group(&[owner, sender]).await;
        let (socket, _) = cluster.live(n % 2, sender).await;
        // Always the other gateway than the sender's.
        let api = cluster.api(1 - n % 2, owner);
        let sender_of = Sender { socket, chat, acked: BTreeMap::new(), refused: Vec::new() };
        let user = sender.user_id;
        races.spawn(async move { (n, race(api, sender_of, user).await) });
        starts.push((watcher, cursor, own_cursor));
    }
    let (mut acked, mut refused) = (0, 0);
    while let Some(done) = races.join_next().await {
        let (n, sender) = done.unwrap();
        let (watcher, cursor, own_cursor) = &mut starts[n];
        let (owner, user) = (&owners[n], senders[n].user_id);
        let chat = cluster.api(0, owner).get(&format!("/v1/chats/{}", sender.chat)).await.unwrap().json();
        let live = watch(watcher, sender.chat, chat["lastSeq"].as_u64().unwrap()).await;
        assert_eq!(judge(&live, user), sender.acked, "delivered is what was acked");
        for gateway in [0, 1] {
            assert_eq!(replay(&cluster, gateway, owner, cursor).await, live, "replayed at {gateway}");
            judge_own(&replay(&cluster, gateway, &senders[n], own_cursor).await);
            let (history, stale) = cluster.api(gateway, owner).history(sender.chat).await.unwrap();
            let kept: BTreeMap<String, u64> =
                history.iter().map(|message| (message.uuid.to_string(), message.seq)).collect();
            assert!(!stale);
            assert_eq!(kept, sender.acked, "kept is what was acked");
        }
        assert!(sender.refused.iter().all(|uuid| !sender.acked.contains_key(uuid)));
        acked += sender.acked.len();
        refused += sender.refused.len();
    }
    let void = void(&cluster).await;
    println!("{} removals: {acked} acked, {refused} refused, {void} of them by the log", CHATS * ROUNDS);
    assert!(acked > 0 && void > 0, "no race: {acked} acked, {refused} refused, {void} by the log");
}
