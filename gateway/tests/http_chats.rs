//! Chats over HTTP: direct ones and groups, members, messages, history.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/http.rs"]
mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{User, World};
use uuid::Uuid;

async fn group(owner: &User, members: &[u64]) -> Value {
    let body = json!({ "type": 2, "memberIds": members, "title": "Team" });
    owner.client.post("/v1/chats", body).await.ok(201)
}

fn message(body: &str) -> Value {
    json!({ "uuid": Uuid::now_v7(), "body": body })
}

fn bodies(history: &Value) -> Vec<String> {
    let messages = history["messages"].as_array().unwrap();
    messages.iter().map(|message| message["body"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_pair_has_one_direct_chat() {
    let world = World::start("direct", 2, &[]).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let answer = ada.client.post("/v1/chats", json!({ "type": 1, "memberIds": [bob.id] })).await;
    let location = answer.header("location").to_owned();
    let chat = answer.ok(201);
    assert_eq!(location, format!("/v1/chats/{}", chat["id"]));
    assert_eq!(chat["type"], 1);
    assert_eq!(chat["memberIds"], json!([ada.id.min(bob.id), ada.id.max(bob.id)]));
    assert_eq!((&chat["memberCount"], &chat["title"]), (&json!(2), &Value::Null));
    assert_eq!((&chat["lastMessage"], &chat["unread"]), (&Value::Null, &json!(0)));
    assert!(chat["createdTs"].as_u64().unwrap() > 1_700_000_000_000);
    assert!(chat.get("stale").is_none(), "{chat}");

    // The caller's own id among the members changes nothing, and the other side finds the same chat.
    let again = json!({ "type": 1, "memberIds": [ada.id, bob.id] });
    assert_eq!(ada.client.post("/v1/chats", again.clone()).await.ok(200)["id"], chat["id"]);
    assert_eq!(bob.at(&world, 1).post("/v1/chats", again).await.ok(200)["id"], chat["id"]);
    assert_eq!(ada.client.get(&location).await.ok(200), chat);

    for members in [json!([]), json!([ada.id]), json!([bob.id, bob.id + 1_000_000])] {
        let body = json!({ "type": 1, "memberIds": members });
        ada.client.post("/v1/chats", body).await.problem(422, "request.invalid");
    }
    let titled = json!({ "type": 1, "memberIds": [bob.id], "title": "x" });
    ada.client.post("/v1/chats", titled).await.problem(422, "request.invalid");
}

#[tokio::test]
async fn two_who_race_get_one_direct_chat() {
    let world = World::start("directrace", 2, &[]).await;
    let ada = world.user("ada").await;
    for _ in 0..10 {
        let bob = world.user("bob").await;
        let (here, there) = (ada.at(&world, 0), bob.at(&world, 1));
        let (one, other) = tokio::join!(
            here.post("/v1/chats", json!({ "type": 1, "memberIds": [bob.id] })),
            there.post("/v1/chats", json!({ "type": 1, "memberIds": [ada.id] }))
        );
        let mut statuses = [one.status, other.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 201], "{one:?} {other:?}");
        assert_eq!(one.json()["id"], other.json()["id"]);
    }
}

#[tokio::test]
async fn a_group_lives() {
    let world = World::start("group", 2, &[]).await;
    let (ada, bob, eve) = (world.user("ada").await, world.user("bob").await, world.user("eve").await);
    let chat = group(&ada, &[bob.id]).await;
    assert_eq!(
        (&chat["title"], &chat["role"], &chat["history"]),
        (&json!("Team"), &json!("owner"), &json!("all"))
    );
    let path = format!("/v1/chats/{}", chat["id"]);
    let members = format!("{path}/members");
    let bob_there = bob.at(&world, 1);
    assert_eq!(bob_there.get(&path).await.ok(200)["role"], "member");

    // Titles and settings are the admins'.
    bob_there.patch(&path, json!({ "title": "Mine" })).await.problem(403, "chat.forbidden");
    let renamed = ada.client.patch(&path, json!({ "title": " Crew ", "history": "join" })).await.ok(200);
    assert_eq!((&renamed["title"], &renamed["history"]), (&json!("Crew"), &json!("join")));
    assert_eq!(bob_there.get(&path).await.ok(200)["title"], "Crew");
    for body in [json!({ "title": "" }), json!({ "history": "some" }), json!({ "title": 1 })] {
        ada.client.patch(&path, body).await.problem(422, "request.invalid");
    }

    // A stranger sees nothing.
    eve.client.get(&path).await.problem(404, "chat.not_found");
    eve.client.get(&members).await.problem(404, "chat.not_found");
    eve.client.get(&format!("{path}/messages")).await.problem(404, "chat.not_found");
    eve.client.post(&format!("{path}/messages"), message("hi")).await.problem(404, "chat.not_found");
    eve.client.patch(&path, json!({ "title": "x" })).await.problem(404, "chat.not_found");
    eve.client.post(&members, json!({ "userIds": [eve.id] })).await.problem(404, "chat.not_found");

    // Members come, rise, fall and go.
    bob_there.post(&members, json!({ "userIds": [eve.id] })).await.problem(403, "chat.forbidden");
    ada.client
        .post(&members, json!({ "userIds": [eve.id + 1_000_000] }))
        .await
        .problem(422, "request.invalid");
    ada.client.post(&members, json!({ "userIds": [] })).await.problem(422, "request.invalid");
    let ack = ada.client.post(&members, json!({ "userIds": [eve.id] })).await.ok(200);
    assert_eq!(ack["chatId"], chat["id"]);
    eve.at(&world, 1).get(&path).await.ok(200);
    let listed = bob_there.get(&members).await.ok(200);
    let roles = |listed: &Value| -> Vec<(u64, String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let list = listed["members"].as_array().unwrap();
        assert!(list.iter().all(|member| member["joinedTs"].as_u64().is_some()));
        list.iter()
            .map(|m| (m["userId"].as_u64().unwrap(), text(&m["displayName"]), text(&m["role"])))
            .collect()
    };
    let row = |user: &User, name: &str, role: &str| (user.id, name.to_owned(), role.to_owned());
    let mut rows = vec![row(&ada, "ada", "owner"), row(&bob, "bob", "member"), row(&eve, "eve", "member")];
    rows.sort_unstable();
    assert_eq!(roles(&listed), rows);
    let first = bob_there.get(&format!("{members}?limit=2")).await.ok(200);
    assert_eq!(first["members"].as_array().unwrap().len(), 2);
    let next = first["nextPage"].as_str().unwrap();
    let second = bob_there.get(&format!("{members}?limit=2&page={next}")).await.ok(200);
    assert_eq!((roles(&second), &second["nextPage"]), (rows.split_off(2), &Value::Null));
    bob_there.get(&format!("{members}?page=x")).await.problem(422, "request.invalid");

    let of = |user: &User| format!("{members}/{}", user.id);
    ada.client.patch(&of(&bob), json!({ "role": "admin" })).await.ok(200);
    assert_eq!(bob_there.get(&path).await.ok(200)["role"], "admin");
    ada.client.patch(&of(&bob), json!({ "role": "king" })).await.problem(422, "request.invalid");
    bob_there.patch(&of(&ada), json!({ "role": "member" })).await.problem(403, "chat.forbidden");
    let nobody = format!("{members}/{}", eve.id + 1_000_000);
    ada.client.patch(&nobody, json!({ "role": "admin" })).await.problem(404, "member.not_found");
    ada.client.delete(&nobody).await.problem(404, "member.not_found");
    ada.client.delete(&of(&ada)).await.problem(409, "chat.last_owner");
    ada.client.patch(&of(&ada), json!({ "role": "member" })).await.problem(409, "chat.last_owner");
    bob_there.delete(&of(&eve)).await.ok(204);
    eve.client.get(&path).await.problem(404, "chat.not_found");
    bob_there.delete(&of(&bob)).await.ok(204);
    bob_there.get(&path).await.problem(404, "chat.not_found");
    assert_eq!(ada.client.get(&path).await.ok(200)["memberCount"], 1);
    // The last one may always go.
    ada.client.delete(&of(&ada)).await.ok(204);
    ada.client.get(&path).await.problem(404, "chat.not_found");
}

#[tokio::test]
async fn an_idempotency_key_makes_one_group() {
    let world = World::start("idempotency", 2, &[]).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let body = json!({ "type": 2, "memberIds": [bob.id] });
    let key = Uuid::new_v4().to_string();
    let create = async |gateway: usize| {
        ada.at(&world, gateway).with("idempotency-key", &key).post("/v1/chats", body.clone()).await
    };
    let (one, other) = tokio::join!(create(0), create(1));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201], "{one:?} {other:?}");
    assert_eq!(one.json()["id"], other.json()["id"]);
    assert_eq!(create(0).await.ok(200)["id"], one.json()["id"]);
    assert_ne!(group(&ada, &[bob.id]).await["id"], one.json()["id"]);
    let bad = ada.client.clone().with("idempotency-key", "once").post("/v1/chats", body).await;
    bad.problem(422, "request.invalid");

    // The key stands for what was asked first, whoever is a member by now.
    let eve = world.user("eve").await;
    let (key, members) = (Uuid::new_v4().to_string(), [bob.id, eve.id]);
    let keyed = |gateway| ada.at(&world, gateway).with("idempotency-key", &key);
    let first = json!({ "type": 2, "memberIds": members, "title": "Team", "history": "join" });
    let chat = keyed(0).post("/v1/chats", first.clone()).await.ok(201);
    let path = format!("/v1/chats/{}", chat["id"]);
    ada.client.patch(&path, json!({ "title": "Crew" })).await.ok(200);
    ada.client.delete(&format!("{path}/members/{}", eve.id)).await.ok(204);
    let turned = json!({ "type": 2, "memberIds": [eve.id, bob.id], "title": " Team ", "history": "join" });
    for gateway in [0, 1] {
        for same in [&first, &turned] {
            assert_eq!(keyed(gateway).post("/v1/chats", same.clone()).await.ok(200)["id"], chat["id"]);
        }
        for other in [
            json!({ "type": 2, "memberIds": members, "title": "Crew", "history": "join" }),
            json!({ "type": 2, "memberIds": members, "history": "join" }),
            json!({ "type": 2, "memberIds": members, "title": "Team" }),
            json!({ "type": 2, "memberIds": [bob.id], "title": "Team", "history": "join" }),
            json!({ "type": 1, "memberIds": [bob.id] }),
        ] {
            keyed(gateway).post("/v1/chats", other).await.problem(409, "command.uuid_reused");
        }
    }
    // Another user's key is another key.
    bob.client.clone().with("idempotency-key", &key).post("/v1/chats", first).await.ok(201);

    for bad in [
        json!({ "type": 3, "memberIds": [] }),
        json!({ "type": "2", "memberIds": [] }),
        json!({ "memberIds": [] }),
        json!({ "type": 2 }),
        json!({ "type": 2, "memberIds": [0] }),
        json!({ "type": 2, "memberIds": [bob.id + 1_000_000] }),
        json!({ "type": 2, "memberIds": [], "title": "" }),
        json!({ "type": 2, "memberIds": [], "history": "none" }),
    ] {
        ada.client.post("/v1/chats", bad).await.problem(422, "request.invalid");
    }
}

#[tokio::test]
async fn messages_are_sent_once_and_read_everywhere() {
    let world = World::start("messages", 2, &[]).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let chat = group(&ada, &[bob.id]).await;
    let path = format!("/v1/chats/{}/messages", chat["id"]);
    let bob_there = bob.at(&world, 1);

    let first = message("one");
    let answer = ada.client.post(&path, first.clone()).await;
    let location = answer.header("location").to_owned();
    let ack = answer.ok(201);
    assert_eq!((&ack["uuid"], &ack["chatId"], &ack["dup"]), (&first["uuid"], &chat["id"], &json!(false)));
    let at_location = bob_there.get(&location).await.ok(200);
    assert_eq!(at_location["messages"][0]["seq"], ack["seq"]);
    let repeated = ada.at(&world, 1).post(&path, first.clone()).await.ok(200);
    assert_eq!(
        (&repeated["seq"], &repeated["ts"], &repeated["dup"]),
        (&ack["seq"], &ack["ts"], &json!(true))
    );
    let other = json!({ "uuid": first["uuid"], "body": "something else" });
    ada.client.post(&path, other).await.problem(409, "command.uuid_reused");

    // What was acked before a read began is in it, whichever gateway is asked.
    for n in 2..=30 {
        ada.client.post(&path, message(&n.to_string())).await.ok(201);
        let newest = bob_there.get(&format!("{path}?limit=1")).await.ok(200);
        assert_eq!(bodies(&newest), [n.to_string()]);
        assert!(newest.get("stale").is_none(), "{newest}");
    }

    let page = bob_there.get(&format!("{path}?limit=3")).await.ok(200);
    assert_eq!((bodies(&page), &page["more"]), (vec!["30".into(), "29".into(), "28".into()], &json!(true)));
    let before = &page["messages"][2]["seq"];
    let page = bob_there.get(&format!("{path}?before={before}&limit=2")).await.ok(200);
    assert_eq!(bodies(&page), ["27", "26"]);
    let page = bob_there.get(&format!("{path}?after={before}")).await.ok(200);
    assert_eq!((bodies(&page), &page["more"]), (vec!["29".into(), "30".into()], &json!(false)));
    for query in
        ["before=1&after=1", "limit=0", "limit=201", "limit=x", "before=-1", "after=9007199254740992"]
    {
        bob_there.get(&format!("{path}?{query}")).await.problem(422, "request.invalid");
    }

    let reply = json!({ "uuid": Uuid::now_v7(), "body": "re: @bob", "replyTo": ack["seq"],
        "mentions": [{ "userId": bob.id, "start": 4, "length": 4 }] });
    ada.client.post(&path, reply.clone()).await.ok(201);
    let newest = bob_there.get(&format!("{path}?limit=1")).await.ok(200);
    let newest = &newest["messages"][0];
    assert_eq!((&newest["replyTo"], &newest["mentions"]), (&ack["seq"], &reply["mentions"]));
    assert_eq!((&newest["from"], &newest["uuid"]), (&json!(ada.id), &reply["uuid"]));
    assert!(newest.get("deleted").is_none() && newest.get("editedTs").is_none(), "{newest}");

    for bad in [
        json!({ "body": "x" }),
        json!({ "uuid": "x", "body": "x" }),
        json!({ "uuid": Uuid::now_v7() }),
        json!({ "uuid": Uuid::now_v7(), "body": " \n" }),
        json!({ "uuid": Uuid::now_v7(), "body": "x".repeat(16_385) }),
        json!({ "uuid": Uuid::now_v7(), "body": "x", "replyTo": "1" }),
        json!({ "uuid": Uuid::now_v7(), "body": "x", "mentions": [{ "userId": 1, "start": 0, "length": 2 }] }),
        json!({ "uuid": Uuid::now_v7(), "body": "x", "mentions": [{ "userId": 0, "start": 0, "length": 1 }] }),
    ] {
        ada.client.post(&path, bad).await.problem(422, "request.invalid");
    }
    let bad_reply = json!({ "uuid": Uuid::now_v7(), "body": "x", "replyTo": 9_007_199_254_740_991_u64 });
    ada.client.post(&path, bad_reply).await.problem(422, "message.bad_reply");
    // The first published example works verbatim.
    let example = json!({ "uuid": "client-generated-uuid", "body": "Hello, World!" });
    ada.client.post(&path, example).await.ok(201);
}

#[tokio::test]
async fn the_list_is_by_activity_and_paged() {
    let world = World::start("list", 2, &[]).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(group(&ada, &[bob.id]).await["id"].as_u64().unwrap());
    }
    let send = async |chat: u64| {
        ada.client.post(&format!("/v1/chats/{chat}/messages"), message("hello")).await.ok(201);
    };
    send(ids[1]).await;
    send(ids[3]).await;
    send(ids[3]).await;
    let there = bob.at(&world, 1);
    let first = there.get("/v1/chats?limit=3").await.ok(200);
    let list = |page: &Value| -> Vec<u64> {
        page["chats"].as_array().unwrap().iter().map(|chat| chat["id"].as_u64().unwrap()).collect()
    };
    assert_eq!(list(&first), [ids[3], ids[1], ids[4]]);
    assert_eq!((&first["chats"][0]["unread"], &first["chats"][2]["unread"]), (&json!(2), &json!(0)));
    assert_eq!(first["chats"][0]["lastMessage"]["body"], "hello");
    assert!(first["cursor"].as_str().is_some_and(|cursor| !cursor.is_empty()));
    let next = first["nextPage"].as_str().unwrap();
    let second = there.get(&format!("/v1/chats?limit=3&page={next}")).await.ok(200);
    assert_eq!((list(&second), &second["nextPage"]), (vec![ids[2], ids[0]], &Value::Null));
    let mine = ada.client.get("/v1/chats?limit=1").await.ok(200);
    assert_eq!(mine["chats"][0]["unread"], 0, "sending is reading");
    for query in ["limit=0", "limit=201", "page=x", "page=bQAAAAAAAAAB"] {
        there.get(&format!("/v1/chats?{query}")).await.problem(422, "request.invalid");
    }
    assert_eq!(world.user("eve").await.client.get("/v1/chats").await.ok(200)["chats"], json!([]));
}

/// A read waits two seconds at most, and this projector gathers for four, unless it hears that somebody waits.
#[tokio::test]
async fn a_read_does_not_wait_until_the_projector_has_gathered() {
    let world = World::start("gathers", 1, &[("MT_PROJECTOR_INTERVAL_MS", "4000")]).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let chat = group(&ada, &[bob.id]).await;
    let path = format!("/v1/chats/{}/messages", chat["id"]);
    for sent in 1..=5 {
        ada.client.post(&path, message("hi")).await.ok(201);
        let history = bob.client.get(&path).await.ok(200);
        assert_eq!((bodies(&history).len(), history.get("stale")), (sent, None));
    }
}

#[tokio::test]
async fn what_cannot_be_proven_fresh_says_so() {
    let mut world = World::start("stale", 1, &[]).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let chat = group(&ada, &[bob.id]).await;
    let path = format!("/v1/chats/{}/messages", chat["id"]);
    ada.client.post(&path, message("before")).await.ok(201);
    assert_eq!(bodies(&bob.client.get(&path).await.ok(200)), ["before"]);
    let projector = world.projector.take().unwrap();
    let mut projector = tokio::task::spawn_blocking(move || {
        let mut projector = projector;
        projector.kill9().unwrap();
        projector
    })
    .await
    .unwrap();
    ada.client.post(&path, message("after")).await.ok(201);
    let history = bob.client.get(&path).await.ok(200);
    assert_eq!((bodies(&history), &history["stale"]), (vec!["before".to_owned()], &json!(true)));
    assert_eq!(bob.client.get("/v1/chats").await.ok(200)["stale"], true);
    // A chat that only the log knows is still one.
    let created = group(&ada, &[bob.id]).await;
    assert_eq!((&created["stale"], &created["role"]), (&json!(true), &json!("owner")));

    projector.restart().unwrap();
    world.projector = Some(projector);
    support::until("history is fresh", async || bob.client.get(&path).await.ok(200).get("stale").is_none())
        .await;
    assert_eq!(bodies(&bob.client.get(&path).await.ok(200)), ["after", "before"]);
    tokio::time::timeout(Duration::from_secs(5), async {
        let path = format!("/v1/chats/{}", created["id"]);
        assert!(bob.client.get(&path).await.ok(200).get("stale").is_none());
    })
    .await
    .unwrap();
}

async fn direct(user: &User, peer: &User) -> String {
    let chat = user.client.post("/v1/chats", json!({ "type": 1, "memberIds": [peer.id] })).await.json();
    format!("/v1/chats/{}/messages", chat["id"])
}

/// A group of `owner` with `other` is refused because of `other` alone, and nothing of it is left.
#[track_caller]
fn is_kept_out(answer: support::Answer, other: &User) {
    assert_eq!(answer.problem(403, "member.refused")["userIds"], json!([other.id]));
}

#[tokio::test]
async fn who_may_add_a_user_is_up_to_them() {
    let world = World::start("invites", 2, &[]).await;
    let (ada, bob, eve) = (world.user("ada").await, world.user("bob").await, world.user("eve").await);
    let create = async |by: &User, members: &[u64]| {
        by.client.post("/v1/chats", json!({ "type": 2, "memberIds": members })).await
    };
    assert_eq!(bob.client.get("/v1/me").await.ok(200)["groupInvites"], "everyone");
    let key = Uuid::now_v7().to_string();
    let keyed = ada.client.clone().with("idempotency-key", &key);
    let team = json!({ "type": 2, "memberIds": [bob.id] });
    let first = keyed.post("/v1/chats", team.clone()).await.ok(201);

    for wrong in [json!("friends"), json!(1), json!("")] {
        let body = json!({ "groupInvites": wrong });
        bob.client.patch("/v1/me", body).await.problem(422, "request.invalid");
    }
    let invites = async |user: &User, who: &str| {
        let me = user.at(&world, 1).patch("/v1/me", json!({ "groupInvites": who })).await.ok(200);
        assert_eq!(me["groupInvites"], who);
    };
    invites(&bob, "nobody").await;
    let me = bob.client.patch("/v1/me", json!({ "displayName": "Bob" })).await.ok(200);
    assert_eq!((&me["displayName"], &me["groupInvites"]), (&json!("Bob"), &json!("nobody")));
    // All or none, also when the group exists, and whoever else would come.
    is_kept_out(create(&ada, &[bob.id, eve.id]).await, &bob);
    let chat = create(&ada, &[eve.id]).await.ok(201);
    let members = format!("/v1/chats/{}/members", chat["id"]);
    let add = async |gateway: usize, user: &User| {
        ada.at(&world, gateway).post(&members, json!({ "userIds": [user.id] })).await
    };
    is_kept_out(add(0, &bob).await, &bob);
    let chats = eve.client.get("/v1/chats").await.ok(200);
    assert_eq!((chats["chats"].as_array().unwrap().len(), &chats["chats"][0]["memberCount"]), (1, &json!(2)));
    // What was created before stays, for a retry too, and one's own groups are one's own doing.
    assert_eq!(keyed.post("/v1/chats", team).await.ok(200)["id"], first["id"]);
    create(&bob, &[ada.id]).await.ok(201);

    // A direct chat that a stranger began makes nobody a contact, however much the stranger writes in it.
    invites(&bob, "contacts").await;
    is_kept_out(add(1, &bob).await, &bob);
    let talk = direct(&ada, &bob).await;
    ada.client.post(&talk, message("hello")).await.ok(201);
    is_kept_out(add(0, &bob).await, &bob);
    bob.at(&world, 1).post(&talk, message("who is it?")).await.ok(201);
    add(0, &bob).await.ok(200);
    // One's own does, from the start.
    invites(&eve, "contacts").await;
    is_kept_out(create(&ada, &[eve.id]).await, &eve);
    direct(&eve, &ada).await;
    create(&ada, &[eve.id]).await.ok(201);
    is_kept_out(create(&bob, &[eve.id]).await, &eve);
    // A group in common does not.
    invites(&eve, "nobody").await;
    is_kept_out(create(&ada, &[eve.id]).await, &eve);
}

#[tokio::test]
async fn strangers_fill_half_of_a_users_groups_at_most() {
    let world = World::start("strangers", 2, &[("MT_GROUPS_PER_USER", "4")]).await;
    let (ada, eve, ben) = (world.user("ada").await, world.user("eve").await, world.user("ben").await);
    let create = async |by: &User, gateway: usize| {
        let members: &[u64] = if by.id == ada.id { &[] } else { &[ada.id] };
        by.at(&world, gateway).post("/v1/chats", json!({ "type": 2, "memberIds": members })).await
    };
    let first = create(&eve, 0).await.ok(201);
    create(&ben, 1).await.ok(201);
    for (stranger, gateway) in [(&eve, 0), (&eve, 1), (&ben, 0)] {
        is_kept_out(create(stranger, gateway).await, &ada);
    }
    let own = json!({ "type": 2, "memberIds": [] });
    let bens = ben.client.post("/v1/chats", own).await.ok(201);
    let members = format!("/v1/chats/{}/members", bens["id"]);
    is_kept_out(ben.client.post(&members, json!({ "userIds": [ada.id] })).await, &ada);
    // The other half is for what the user begins, and their contacts.
    create(&ada, 0).await.ok(201);
    let talk = direct(&ada, &ben).await;
    ada.client.post(&talk, message("add me")).await.ok(201);
    ben.client.post(&members, json!({ "userIds": [ada.id] })).await.ok(200);
    assert_eq!(ada.client.get("/v1/chats?limit=9").await.ok(200)["chats"].as_array().unwrap().len(), 5);
    for friend in [&ada, &ben] {
        create(friend, 1).await.problem(422, "limit.exceeded");
    }
    // A group that was left makes room at once.
    ada.client.delete(&format!("/v1/chats/{}/members/{}", first["id"], ada.id)).await.ok(204);
    create(&ben, 1).await.ok(201);
}
