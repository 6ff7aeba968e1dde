//! The life of a message: replies, edits, deletions and reactions, and that history and replay agree on the result.

use std::collections::BTreeMap;

use loadtest::{client::socket::Socket, provision::Account};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::support::cluster::{Build, Cluster, SOON, ask, open_live, send, send_frame};

const EMOJI: [&str; 21] = [
    "👍", "👎", "🎉", "😀", "😂", "🔥", "🚀", "👀", "💯", "🙏", "🥳", "🤔", "😎", "😍", "😭", "😡", "🍕",
    "☕", "🐛", "✅", "❌",
];

fn edit(chat: u64, seq: u64, body: &str) -> Value {
    json!({"type": "EditMessage", "uuid": uuid::Uuid::now_v7(), "chatId": chat, "seq": seq, "body": body})
}

fn delete(chat: u64, seq: u64) -> Value {
    json!({"type": "DeleteMessage", "uuid": uuid::Uuid::now_v7(), "chatId": chat, "seq": seq})
}

fn react(chat: u64, seq: u64, emoji: &str, on: bool) -> Value {
    json!({"type": "React", "uuid": uuid::Uuid::now_v7(), "chatId": chat, "seq": seq, "emoji": emoji, "on": on})
}

fn reply(chat: u64, to: u64) -> Value {
    let mut frame = send_frame(chat, "an answer").1;
    frame["replyTo"] = json!(to);
    frame
}

async fn acked(socket: &mut Socket, command: &Value) -> u64 {
    let answer = ask(socket, command).await;
    assert_eq!(answer["type"], "Ack", "{command}: {answer}");
    answer["seq"].as_u64().unwrap()
}

async fn refused(socket: &mut Socket, command: &Value, code: &str) {
    let answer = ask(socket, command).await;
    assert_eq!((&answer["type"], &answer["code"]), (&json!("Error"), &json!(code)), "{command}: {answer}");
    assert_eq!(answer["temporary"], false, "{answer}");
}

async fn last_seq(cluster: &Cluster, account: &Account, chat: u64) -> u64 {
    let chat = cluster.api(0, account).get(&format!("/v1/chats/{chat}")).await.unwrap().json();
    chat["lastSeq"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_nowhere() {
    let mut cluster = Build::new("message_rules").gateways(2).start().await;
    let accounts = cluster.accounts(3).await;
    let [owner, member, stranger] = &accounts[..] else { unreachable!() };
    let chat = cluster.group(&[owner, member]).await;
    let elsewhere = cluster.group(&[owner, member]).await;
    let (mut owners, _) = cluster.live(0, owner).await;
    let (mut members, _) = cluster.live(1, member).await;
    let (mut strangers, _) = cluster.live(1, stranger).await;
    let owned = send(&mut owners, chat, "the owner's").await;
    let gone = send(&mut owners, chat, "gone").await;
    let other_chat = send(&mut owners, elsewhere, "in another chat").await;
    let reaction = acked(&mut members, &react(chat, owned, "🎉", true)).await;
    acked(&mut owners, &delete(chat, gone)).await;
    let head = last_seq(&cluster, owner, chat).await;

    refused(&mut members, &edit(chat, owned, "mine now"), "message.not_author").await;
    refused(&mut members, &delete(chat, owned), "message.not_author").await;
    for socket in [&mut members, &mut owners] {
        refused(socket, &edit(chat, gone, "back again"), "message.deleted").await;
        refused(socket, &react(chat, gone, "👍", true), "message.deleted").await;
        refused(socket, &react(chat, gone, "👍", false), "message.deleted").await;
        refused(socket, &delete(chat, gone), "message.deleted").await;
        // What is no message of this chat can be neither answered nor changed.
        for seq in [other_chat, reaction, head + 1_000] {
            refused(socket, &reply(chat, seq), "message.bad_reply").await;
            refused(socket, &edit(chat, seq, "x"), "message.not_found").await;
            refused(socket, &delete(chat, seq), "message.not_found").await;
            refused(socket, &react(chat, seq, "👍", true), "message.not_found").await;
        }
        for emoji in ["", "a", "👍👍", "👍 ", ":+1:", "\u{200d}"] {
            refused(socket, &react(chat, owned, emoji, true), "command.invalid").await;
        }
        // Invisible characters alone are no message, and a mention cuts no character.
        for body in ["\u{200B}\u{2060}", "\u{3164}", "\u{202E}"] {
            refused(socket, &send_frame(chat, body).1, "command.invalid").await;
        }
        let mut cut = send_frame(chat, "😀ab").1;
        cut["mentions"] = json!([{"userId": owner.user_id, "start": 1, "length": 2}]);
        refused(socket, &cut, "command.invalid").await;
    }
    for command in
        [edit(chat, owned, "x"), delete(chat, owned), react(chat, owned, "👍", true), reply(chat, owned)]
    {
        refused(&mut strangers, &command, "chat.not_found").await;
    }
    assert_eq!(last_seq(&cluster, owner, chat).await, head, "a refusal appended something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_deletes_anyones_message_and_edits_only_the_own() {
    let mut cluster = Build::new("admin_deletes").gateways(2).start().await;
    let accounts = cluster.accounts(3).await;
    let [owner, admin, member] = &accounts[..] else { unreachable!() };
    let chat = cluster.group(&[owner, admin, member]).await;
    let path = format!("/v1/chats/{chat}/members/{}", admin.user_id);
    let reply = cluster.api(0, owner).patch(&path, &json!({"role": "admin"})).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text);
    let (mut owners, _) = cluster.live(0, owner).await;
    let (mut admins, _) = cluster.live(1, admin).await;
    let owned = send(&mut owners, chat, "even the owner's").await;
    refused(&mut admins, &edit(chat, owned, "x"), "message.not_author").await;
    acked(&mut admins, &delete(chat, owned)).await;
    let page = cluster.api(0, member).get(&format!("/v1/chats/{chat}/messages")).await.unwrap().json();
    assert_eq!((&page["messages"][0]["body"], &page["messages"][0]["deleted"]), (&json!(""), &json!(true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_has_twenty_different_emoji() {
    let mut cluster = Build::new("emoji").gateways(2).start().await;
    let accounts = cluster.accounts(2).await;
    let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
    let (mut alices, _) = cluster.live(0, &accounts[0]).await;
    let (mut bobs, _) = cluster.live(1, &accounts[1]).await;
    let seq = send(&mut alices, chat, "popular").await;
    let (last, first) = EMOJI.split_last().unwrap();
    for emoji in first {
        acked(&mut alices, &react(chat, seq, emoji, true)).await;
    }
    for socket in [&mut alices, &mut bobs] {
        refused(socket, &react(chat, seq, last, true), "limit.exceeded").await;
        // One that is there is no new one.
        acked(socket, &react(chat, seq, first[3], true)).await;
        acked(socket, &react(chat, seq, last, false)).await;
    }
    let page = cluster.api(1, &accounts[1]).get(&format!("/v1/chats/{chat}/messages")).await.unwrap().json();
    assert_eq!(page["messages"][0]["reactions"].as_array().unwrap().len(), first.len(), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emoji_is_one_reaction_however_it_was_typed() {
    let mut cluster = Build::new("typed").gateways(2).start().await;
    let accounts = cluster.accounts(2).await;
    let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
    let (mut alices, _) = cluster.live(0, &accounts[0]).await;
    let (mut bobs, _) = cluster.live(1, &accounts[1]).await;
    let seq = send(&mut alices, chat, "loved").await;
    let plain = react(chat, seq, "\u{2764}", true);
    let first = acked(&mut alices, &plain).await;
    acked(&mut bobs, &react(chat, seq, "\u{2764}\u{FE0F}", true)).await;
    assert_eq!(acked(&mut alices, &plain).await, first, "a retry is the same command");
    let shown = async |cluster: &Cluster| {
        let path = format!("/v1/chats/{chat}/messages");
        let page = cluster.api(1, &accounts[1]).get(&path).await.unwrap().json();
        page["messages"][0]["reactions"].clone()
    };
    let [alice, bob] = [&accounts[0], &accounts[1]].map(|account| account.user_id);
    let both = json!([{"emoji": "\u{2764}\u{FE0F}", "count": 2, "userIds": [alice, bob]}]);
    assert_eq!(shown(&cluster).await, both);
    acked(&mut bobs, &react(chat, seq, "\u{2764}", false)).await;
    assert_eq!(shown(&cluster).await[0]["userIds"], json!([alice]));
}

/// What a client makes of the durable events of a chat: its messages as history shows them.
#[derive(Default)]
struct Replica {
    messages: BTreeMap<u64, Value>,
    /// By message: emoji and user, in the order in which they were put on.
    reactions: BTreeMap<u64, Vec<(String, u64)>>,
}

impl Replica {
    fn apply(&mut self, event: &Value) {
        let data = &event["data"];
        let target = data["seq"].as_u64().unwrap_or_default();
        match (event["type"].as_str(), event["kind"].as_str()) {
            (Some("Message"), _) => self.sent(event),
            (_, Some("edited")) => self.edited(target, data, &event["ts"]),
            (_, Some("deleted")) => self.deleted(target),
            (_, Some("reaction")) => self.reacted(target, data, event["from"].as_u64().unwrap()),
            _ => {}
        }
    }

    fn sent(&mut self, event: &Value) {
        let mut message = event.clone();
        let fields = message.as_object_mut().unwrap();
        fields.remove("type");
        fields
            .retain(|name, value| name != "mentions" || value.as_array().is_some_and(|all| !all.is_empty()));
        self.messages.insert(event["seq"].as_u64().unwrap(), message);
    }

    fn edited(&mut self, target: u64, data: &Value, ts: &Value) {
        let Some(message) = self.messages.get_mut(&target) else { return };
        message["body"] = data["body"].clone();
        message["editedTs"] = ts.clone();
        message.as_object_mut().unwrap().remove("mentions");
        if data["mentions"].as_array().is_some_and(|all| !all.is_empty()) {
            message["mentions"] = data["mentions"].clone();
        }
    }

    fn deleted(&mut self, target: u64) {
        let Some(message) = self.messages.get_mut(&target) else { return };
        message["body"] = json!("");
        message["deleted"] = json!(true);
        message.as_object_mut().unwrap().remove("mentions");
        self.reactions.remove(&target);
    }

    fn reacted(&mut self, target: u64, data: &Value, user: u64) {
        let all = self.reactions.entry(target).or_default();
        let one = (data["emoji"].as_str().unwrap().to_owned(), user);
        if data["on"] == false {
            all.retain(|other| *other != one);
        } else if !all.contains(&one) {
            all.push(one);
        }
    }

    /// As history shows them, oldest first.
    fn shown(&self) -> Vec<Value> {
        let shown = self.messages.iter().map(|(seq, message)| {
            let mut message = message.clone();
            let mut groups: Vec<(&str, Vec<u64>)> = Vec::new();
            for (emoji, user) in self.reactions.get(seq).into_iter().flatten() {
                match groups.iter_mut().find(|(known, _)| known == emoji) {
                    Some((_, users)) => users.push(*user),
                    None => groups.push((emoji, vec![*user])),
                }
            }
            let reaction = |(emoji, users): &(&str, Vec<u64>)| json!({"emoji": emoji, "count": users.len(), "userIds": users});
            if !groups.is_empty() {
                message["reactions"] = groups.iter().map(reaction).collect();
            }
            message
        });
        shown.collect()
    }
}

/// The history over HTTP, as it came.
async fn history(cluster: &Cluster, gateway: usize, account: &Account, chat: u64) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let path = format!("/v1/chats/{chat}/messages?after={after}&limit=200");
        let page = cluster.api(gateway, account).get(&path).await.unwrap().json();
        assert!(page["stale"].is_null(), "{page}");
        all.extend(page["messages"].as_array().unwrap().iter().cloned());
        after = all.last().map_or(0, |message| message["seq"].as_u64().unwrap());
        if page["more"] == false {
            return all;
        }
    }
}

/// What a device with this cursor is sent before it is live.
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

/// The whole chat in pages of `Fetch`.
async fn fetched(cluster: &Cluster, gateway: usize, account: &Account, chat: u64) -> Vec<Value> {
    let (mut socket, _) = open_live(&cluster.connect(gateway, account)).await;
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let uuid = uuid::Uuid::now_v7();
        let fetch = json!({"type": "Fetch", "uuid": uuid, "chatId": chat, "after": after, "limit": 90});
        let page = ask(&mut socket, &fetch).await;
        events.extend(page["events"].as_array().unwrap_or_else(|| panic!("{page}")).iter().cloned());
        after = events.last().map_or(0, |event| event["seq"].as_u64().unwrap());
        if page["more"] == false {
            return events;
        }
    }
}

/// Steps of the random history.
const STEPS: usize = 600;

/// Random life in one chat by two members at two gateways; returns the bodies that nobody may see any more.
async fn live_a_little(sockets: &mut [Socket], chat: u64, users: &[u64], rng: &mut StdRng) -> Vec<String> {
    let mut mine: Vec<BTreeMap<u64, Vec<String>>> = vec![BTreeMap::new(); sockets.len()];
    let mut gone = Vec::new();
    for step in 0..STEPS {
        let who = rng.random_range(0..sockets.len());
        let body = format!("body-{step}-{:08x}", rng.random::<u32>());
        let own: Vec<u64> = mine[who].keys().copied().collect();
        let all: Vec<u64> = mine.iter().flat_map(BTreeMap::keys).copied().collect();
        let pick = |from: &[u64], rng: &mut StdRng| from.get(rng.random_range(0..from.len().max(1))).copied();
        match (rng.random_range(0..10), pick(&own, rng), pick(&all, rng)) {
            (4 | 5, Some(seq), _) => {
                acked(&mut sockets[who], &edit(chat, seq, &body)).await;
                mine[who].entry(seq).or_default().push(body);
            }
            (6, Some(seq), _) => {
                acked(&mut sockets[who], &delete(chat, seq)).await;
                gone.extend(mine[who].remove(&seq).unwrap_or_default());
            }
            (7..=9, _, Some(seq)) => {
                let (emoji, on) = (EMOJI[rng.random_range(0..6)], rng.random_bool(0.7));
                acked(&mut sockets[who], &react(chat, seq, emoji, on)).await;
            }
            (kind, _, target) => {
                let mut frame = send_frame(chat, &body).1;
                if let (0, Some(target)) = (kind, target) {
                    frame["replyTo"] = json!(target);
                } else if kind == 1 {
                    frame["mentions"] = json!([{"userId": users[1 - who], "start": 0, "length": 4}]);
                }
                let seq = acked(&mut sockets[who], &frame).await;
                mine[who].insert(seq, vec![body]);
            }
        }
    }
    gone
}

fn check(what: &str, events: &[Value], history: &[Value], gone: &[String]) {
    let mut replica = Replica::default();
    events.iter().for_each(|event| replica.apply(event));
    let shown = replica.shown();
    assert_eq!(shown.len(), history.len(), "{what}");
    for (mine, theirs) in shown.iter().zip(history) {
        assert_eq!(mine, theirs, "{what}");
    }
    let text = Value::from(events.to_vec()).to_string();
    let seen: Vec<&String> = gone.iter().filter(|body| text.contains(body.as_str())).collect();
    assert!(seen.is_empty(), "{what}: of deleted messages: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_and_replay_agree_on_what_became_of_every_message() {
    let mut cluster = Build::new("replica").gateways(2).start().await;
    // From its ring this one serves next to nothing.
    let tiny = cluster.add_gateway(&[("MT_RING_BYTES", "4096")]).await;
    let accounts = cluster.accounts(3).await;
    let [alice, bob, reader] = &accounts[..] else { unreachable!() };
    let mut cursors: Vec<String> = vec![cluster.live(0, reader).await.1];
    let chat = cluster.group(&[alice, bob, reader]).await;
    let mut sockets = vec![cluster.live(0, alice).await.0, cluster.live(1, bob).await.0];
    let users = [alice.user_id, bob.user_id];
    let mut rng = StdRng::seed_from_u64(20);
    let mut gone = live_a_little(&mut sockets, chat, &users, &mut rng).await;

    let (mut watcher, middle) = cluster.live(tiny, reader).await;
    cursors.push(middle);
    let early = fetched(&cluster, 0, reader, chat).await;
    gone.extend(live_a_little(&mut sockets, chat, &users, &mut rng).await);
    let shown = history(&cluster, 0, reader, chat).await;
    assert!(!gone.is_empty() && shown.iter().any(|message| !message["reactions"].is_null()));
    assert_eq!(history(&cluster, tiny, reader, chat).await, shown);

    // Who was there: what came before by Fetch, and the rest live.
    let head = last_seq(&cluster, reader, chat).await;
    let mut seen = early;
    while seen.last().is_none_or(|event| event["seq"] != head) {
        let durable = |frame: &Value| matches!(frame["type"].as_str(), Some("Message" | "Event"));
        seen.push(watcher.until(SOON, durable).await.unwrap());
    }
    check("live", &seen, &shown, &[]);
    for gateway in [0, 1, tiny] {
        let whole = replay(&cluster, gateway, reader, &cursors[0]).await;
        check(&format!("replay at {gateway}"), &whole, &shown, &gone);
        let pages = fetched(&cluster, gateway, reader, chat).await;
        check(&format!("fetch at {gateway}"), &pages, &shown, &gone);
        // Only the second half again, over what was seen of the first.
        let rest = replay(&cluster, gateway, reader, &cursors[1]).await;
        let first = seen.iter().take_while(|event| event["seq"] != rest[0]["seq"]);
        let both: Vec<Value> = first.chain(&rest).cloned().collect();
        check(&format!("resumed at {gateway}"), &both, &shown, &[]);
        let text = Value::from(rest).to_string();
        assert!(gone.iter().all(|body| !text.contains(body.as_str())), "resumed at {gateway}");
    }
    let text = Value::from(shown).to_string() + &cluster.api(1, reader).get("/v1/chats").await.unwrap().text;
    assert!(gone.iter().all(|body| !text.contains(body.as_str())), "a deleted body in history");
}
