//! Rate limits, the queue of passwords, life without Redis, and what must never be in the output.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/http.rs"]
mod support;

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use support::{Client, PASSWORD, World, until};
use xtask::testing::{Isolated, Stack, fresh_dir, off_runtime};

const BEHIND_A_PROXY: (&str, &str) = ("MT_TRUSTED_PROXIES", "127.0.0.0/8");

fn from(world: &World, gateway: usize, address: &str) -> Client {
    world.client(gateway).with("x-forwarded-for", address)
}

async fn login(client: &Client, email: &str, password: &str) -> support::Answer {
    client.post("/v1/auth/login", json!({ "email": email, "password": password })).await
}

#[tokio::test]
async fn addresses_are_limited_on_all_gateways_together() {
    let env = [BEHIND_A_PROXY, ("MT_LIMIT_AUTH_PER_MIN", "5")];
    let world = World::start("addresses", 2, &env).await;
    let mut allowed = 0;
    for n in 0..10 {
        let answer = login(&from(&world, n % 2, "203.0.113.1"), "nobody@example.org", "wrong password").await;
        match answer.status {
            401 => allowed += 1,
            _ => drop(answer.problem(429, "rate.limited")),
        }
    }
    assert_eq!(allowed, 5);
    // Another client is not concerned, and what a client writes into the header itself is not believed.
    login(&from(&world, 0, "203.0.113.2"), "nobody@example.org", "x")
        .await
        .problem(401, "auth.invalid_credentials");
    let liar = from(&world, 0, "198.51.100.7, 203.0.113.1");
    login(&liar, "nobody@example.org", "x").await.problem(429, "rate.limited");
    // An IPv6 client is its /64.
    for n in 0..6 {
        let answer = login(&from(&world, 0, &format!("2001:db8::{n}")), "nobody@example.org", "x").await;
        assert_eq!(answer.status, if n < 5 { 401 } else { 429 });
    }
}

#[tokio::test]
async fn a_stranger_cannot_lock_the_owner_out() {
    let env = [BEHIND_A_PROXY, ("MT_LIMIT_LOGIN_FAILURES_PER_MIN", "5")];
    let world = World::start("lockout", 2, &env).await;
    let home = from(&world, 0, "203.0.113.1");
    let owner = home.register("ada").await;
    let mut guesses = 0;
    for n in 0..20 {
        let stranger = from(&world, n % 2, &format!("198.51.100.{n}"));
        match login(&stranger, &owner.email.to_uppercase(), "wrong guess").await.status {
            401 => guesses += 1,
            429 => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(guesses, 5, "however many addresses the stranger has");
    for _ in 0..10 {
        login(&home, &owner.email, PASSWORD).await.ok(200);
    }
    // The owner's own mistakes count as well, and only mistakes.
    for _ in 0..5 {
        login(&home, &owner.email, "mistyped it").await.problem(401, "auth.invalid_credentials");
    }
    login(&home, &owner.email, PASSWORD).await.problem(429, "rate.limited");
}

#[tokio::test]
async fn lookups_and_commands_are_limited() {
    let env = [
        ("MT_LIMIT_LOOKUPS_PER_MIN", "3"),
        ("MT_LIMIT_HTTP_COMMANDS_PER_S", "1"),
        ("MT_LIMIT_HTTP_COMMANDS_BURST", "2"),
    ];
    let world = World::start("lookups", 1, &env).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    for _ in 0..3 {
        ada.client.get(&format!("/v1/users/{}", bob.id)).await.ok(200);
    }
    ada.client.get("/v1/users?email=bob@example.org").await.problem(429, "rate.limited");
    bob.client.get(&format!("/v1/users/{}", ada.id)).await.ok(200);

    let chat = bob.client.post("/v1/chats", json!({ "type": 1, "memberIds": [ada.id] })).await.ok(201);
    let path = format!("/v1/chats/{}/messages", chat["id"]);
    let mut refused = None;
    for n in 0..6 {
        let body = json!({ "uuid": uuid::Uuid::now_v7(), "body": format!("message {n}") });
        let answer = ada.client.post(&path, body).await;
        if answer.status == 429 {
            refused = Some(answer);
        }
    }
    refused.expect("a burst is refused").problem(429, "rate.limited");
    bob.client.get(&path).await.ok(200);
}

#[tokio::test]
async fn reads_are_limited() {
    let env = [("MT_LIMIT_READS_PER_S", "1"), ("MT_LIMIT_READS_BURST", "3")];
    let world = World::start("reads", 1, &env).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    for path in ["/v1/chats", "/v1/me", "/v1/devices"] {
        ada.client.get(path).await.ok(200);
    }
    ada.client.get("/v1/chats").await.problem(429, "rate.limited");
    // Neither what they change nor what others read is concerned.
    ada.client.post("/v1/chats", json!({ "type": 1, "memberIds": [bob.id] })).await.ok(201);
    bob.client.get("/v1/chats").await.ok(200);
    until("a second has passed", async || ada.client.get("/v1/chats").await.status == 200).await;
}

#[tokio::test]
async fn whoever_may_not_add_members_learns_nothing_about_accounts() {
    let env = [("MT_LIMIT_HTTP_COMMANDS_PER_S", "1"), ("MT_LIMIT_HTTP_COMMANDS_BURST", "12")];
    let world = World::start("oracle", 1, &env).await;
    let (ada, bob, eve) = (world.user("ada").await, world.user("bob").await, world.user("eve").await);
    let group = json!({ "type": 2, "memberIds": [bob.id], "title": "tea" });
    let group = ada.client.post("/v1/chats", group).await.ok(201)["id"].clone();
    let add = async |user: &support::User, chat: &Value, id: u64| {
        user.client.post(&format!("/v1/chats/{chat}/members"), json!({ "userIds": [id] })).await
    };
    for id in [eve.id, 9_007_199_254_740_991] {
        add(&eve, &json!(999_999), id).await.problem(404, "chat.not_found");
        add(&eve, &group, id).await.problem(404, "chat.not_found");
        // A plain member adds nobody.
        add(&bob, &group, id).await.problem(403, "chat.forbidden");
    }
    add(&ada, &group, 9_007_199_254_740_991).await.problem(422, "request.invalid");
    add(&ada, &group, eve.id).await.ok(200);
    let mut limited = 0;
    for _ in 0..10 {
        limited += u32::from(add(&eve, &json!(999_999), bob.id).await.status == 429);
    }
    assert!(limited > 0, "every try is a command");
}

#[tokio::test]
async fn every_way_to_try_ids_and_e_mails_is_one_limit() {
    let env =
        [BEHIND_A_PROXY, ("MT_LIMIT_LOOKUPS_PER_MIN", "4"), ("MT_LIMIT_LOOKUPS_PER_ADDRESS_PER_MIN", "9")];
    let world = World::start("tries", 2, &env).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let at = |gateway: usize, user: &support::User, address: &str| {
        user.at(&world, gateway).with("x-forwarded-for", address)
    };
    let home = at(0, &ada, "203.0.113.1");
    let members = |ids: &[u64]| json!({ "type": 2, "memberIds": ids });
    home.get("/v1/users?email=nobody@example.org").await.ok(200);
    home.get("/v1/users/9007199254740991").await.problem(404, "user.not_found");
    home.post("/v1/chats", members(&[9_007_199_254_740_990])).await.problem(422, "request.invalid");
    home.post("/v1/chats", json!({ "type": 1, "memberIds": [9_007_199_254_740_990_u64] }))
        .await
        .problem(422, "request.invalid");
    let elsewhere = at(1, &ada, "203.0.113.2");
    elsewhere.get("/v1/users?email=nobody@example.org").await.problem(429, "rate.limited");
    elsewhere.get("/v1/users/9007199254740991").await.problem(429, "rate.limited");
    // Who has no try left does not learn either whether an id is somebody's.
    elsewhere.post("/v1/chats", members(&[9_007_199_254_740_990])).await.problem(429, "rate.limited");
    elsewhere.post("/v1/chats", members(&[bob.id])).await.problem(429, "rate.limited");
    // Ids that exist are no tries, however many are named, and neither is anybody with whom she shares a chat.
    let other = at(0, &bob, "203.0.113.3");
    for _ in 0..6 {
        other.post("/v1/chats", members(&[ada.id])).await.ok(201);
    }
    let chat = other.post("/v1/chats", members(&[ada.id])).await.ok(201);
    until("they share a chat", async || elsewhere.get(&format!("/v1/users/{}", bob.id)).await.status == 200)
        .await;
    for _ in 0..5 {
        elsewhere.get(&format!("/v1/users/{}", bob.id)).await.ok(200);
    }
    elsewhere.get(&format!("/v1/chats/{}/members", chat["id"])).await.ok(200);

    // Ids from the times when they were counted up are tries whether they are somebody's or not, and all of them count.
    other.post("/v1/chats", members(&[1, 2, 3, 4, 5, 6])).await.problem(422, "request.invalid");
    other.get("/v1/users?email=nobody@example.org").await.problem(429, "rate.limited");

    // However long a list is, an address owes nothing for it.
    let eve = world.user("eve").await;
    let list: Vec<u64> = (0..3_000).map(|n| 9_007_199_254_000_000 + n).collect();
    at(0, &eve, "203.0.113.4").post("/v1/chats", members(&list)).await.problem(422, "request.invalid");
    at(0, &eve, "203.0.113.4").post("/v1/chats", members(&list)).await.problem(429, "rate.limited");
    let kim = world.user("kim").await;
    until("the address has earned a try", async || {
        at(1, &kim, "203.0.113.4").get("/v1/users/9007199254740991").await.status == 404
    })
    .await;

    // And the address as a whole: four tries of Ada's were from there.
    let register = async |n: usize| {
        let body = json!({ "email": bob.email, "password": PASSWORD });
        from(&world, n % 2, "203.0.113.1").post("/v1/auth/register", body).await.status
    };
    let mut told = 0;
    while register(told).await == 409 {
        told += 1;
    }
    // A slow machine may earn a try or two meanwhile.
    assert!((5..=7).contains(&told), "{told}");
}

#[tokio::test]
async fn clients_force_traces_when_they_are_logged_in_and_now_and_then() {
    // Nobody listens there: the spans are lost, and the log shows which of its events are traced.
    let env = [
        ("MT_OTLP_ENDPOINT", "http://127.0.0.1:9"),
        ("MT_TRACE_RATIO", "0"),
        ("MT_LIMIT_FORCED_TRACES_PER_MIN", "2"),
    ];
    let world = World::start("forced", 1, &env).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let chat = ada.client.post("/v1/chats", json!({ "type": 1, "memberIds": [bob.id] })).await.ok(201);
    let path = format!("/v1/chats/{}/messages", chat["id"]);
    let id = |n: usize| format!("{:032x}", n + 1);
    for n in 0..5 {
        let client = ada.client.clone().with("traceparent", &format!("00-{}-b7ad6b7169203331-01", id(n)));
        client.post(&path, json!({ "uuid": uuid::Uuid::now_v7(), "body": "traced?" })).await.ok(201);
    }
    ada.client.post(&path, json!({ "uuid": uuid::Uuid::now_v7(), "body": "not traced" })).await.ok(201);
    // The id is taken over even if the trace is not recorded, for those who are not logged in, too.
    let anonymous = world.client(0).with("traceparent", &format!("00-{}-b7ad6b7169203331-01", id(9)));
    assert_eq!(anonymous.get("/v1/me").await.problem(401, "auth.missing")["traceId"], id(9));

    let settings = streams::NatsSettings {
        nats_url: world.isolated.nats_url().to_owned(),
        stream_prefix: world.isolated.stream_prefix().to_owned(),
        ..streams::NatsSettings::default()
    };
    let nats = streams::Nats::connect(&settings, "tests").await.unwrap();
    let partition = streams::Partition::FIRST;
    let last = nats.bounds(partition).await.unwrap().last;
    let mut scan = streams::Scan::new(&nats, partition, shared::id::Seq::ZERO, last);
    let mut traced = Vec::new();
    while let Some(batch) = scan.next().await.unwrap() {
        traced.extend(
            batch.into_iter().filter_map(|entry| entry.traceparent).map(|text| text[3..35].to_owned()),
        );
    }
    assert_eq!(traced, [id(0), id(1)]);
}

#[tokio::test]
async fn members_put_into_chats_are_limited() {
    let world = World::start("memberrows", 2, &[("MT_LIMIT_MEMBER_ROWS_PER_MIN", "4")]).await;
    let (ada, bob, eve) = (world.user("ada").await, world.user("bob").await, world.user("eve").await);
    let trio = json!({ "type": 2, "memberIds": [bob.id, eve.id] });
    let chat = ada.client.post("/v1/chats", trio.clone()).await.ok(201);
    // The fourth place is free, and what is on top of it is owed, on all gateways.
    ada.at(&world, 1).post("/v1/chats", trio.clone()).await.ok(201);
    let solo = ada.client.post("/v1/chats", json!({ "type": 2, "memberIds": [] })).await;
    assert!(solo.header("retry-after").parse::<u64>().unwrap() > 15, "two are owed: {solo:?}");
    solo.problem(429, "rate.limited");
    let members = format!("/v1/chats/{}/members", chat["id"]);
    ada.client.delete(&format!("{members}/{}", eve.id)).await.ok(204);
    for gateway in [0, 1] {
        let client = ada.at(&world, gateway);
        client.post(&members, json!({ "userIds": [eve.id] })).await.problem(429, "rate.limited");
        let direct = json!({ "type": 1, "memberIds": [eve.id] });
        client.post("/v1/chats", direct).await.problem(429, "rate.limited");
        client.post("/v1/chats", trio.clone()).await.problem(429, "rate.limited");
    }
    let chats = ada.client.get("/v1/chats").await.ok(200);
    assert_eq!(chats["chats"].as_array().unwrap().len(), 2, "a refusal appended something");
    bob.client.post("/v1/chats", trio).await.ok(201);
}

#[tokio::test]
async fn connects_are_limited_and_resumes_less() {
    let env = [("MT_LIMIT_CONNECTS_PER_MIN", "2"), ("MT_LIMIT_RESUMES_PER_MIN", "4")];
    let world = World::start("connects", 2, &env).await;
    let user = world.user("ada").await;
    let cursor = user.client.get("/v1/chats").await.ok(200)["cursor"].as_str().unwrap().to_owned();
    let connect = async |gateway: usize, query: &str| {
        let url =
            format!("{}/v1/ws?token={}{query}", world.urls[gateway].replace("http://", "ws://"), user.token);
        match tokio_tungstenite::connect_async(url).await {
            Ok(_) => 101,
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                assert!(response.headers().contains_key("retry-after"));
                response.status().as_u16()
            }
            Err(other) => panic!("{other}"),
        }
    };
    let mut answers = Vec::new();
    for n in 0..3 {
        answers.push(connect(n % 2, "").await);
    }
    assert_eq!(answers, [101, 101, 429]);
    for n in 0..4 {
        assert_eq!(connect(n % 2, &format!("&cursor={cursor}")).await, 101);
    }
    assert_eq!(connect(0, &format!("&cursor={cursor}")).await, 429);
    assert_eq!(connect(0, "&cursor=made-up").await, 429, "a cursor that is none opens nothing");
}

#[tokio::test]
async fn a_hundred_logins_at_once_hurt_nobody_else() {
    let env = [
        ("MT_BCRYPT_COST", "12"),
        ("MT_BCRYPT_PARALLEL", "1"),
        ("MT_BCRYPT_QUEUE", "8"),
        // Nine hashes, on a busy machine.
        ("MT_BCRYPT_WAIT_MS", "19000"),
    ];
    let world = World::start("hashing", 1, &env).await;
    let user = world.user("ada").await;
    let mut logins = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (client, email) = (world.client(0), user.email.clone());
        logins.spawn(async move { login(&client, &email, PASSWORD).await });
    }
    let mut slowest = Duration::ZERO;
    let (mut opened, mut busy) = (0, 0);
    while !logins.is_empty() {
        let start = Instant::now();
        user.client.get("/v1/me").await.ok(200);
        slowest = slowest.max(start.elapsed());
        while let Some(answer) = logins.try_join_next() {
            let answer = answer.unwrap();
            match answer.status {
                200 => opened += 1,
                _ => {
                    busy += 1;
                    answer.problem(503, "server.unavailable");
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(opened >= 9 && busy > 0 && opened + busy == 100, "{opened} opened, {busy} refused");
    // One of two cores hashes; a request that has to wait for a hash would take 250 ms and more.
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
}

#[tokio::test]
async fn owners_log_in_from_known_places_while_strangers_try_passwords() {
    let env = [
        BEHIND_A_PROXY,
        ("MT_BCRYPT_COST", "10"),
        ("MT_BCRYPT_PARALLEL", "1"),
        ("MT_BCRYPT_QUEUE", "32"),
        ("MT_LIMIT_AUTH_PER_MIN", "5"),
        ("MT_LIMIT_LOGIN_FAILURES_PER_MIN", "5"),
    ];
    let world = World::start("underattack", 1, &env).await;
    let home = from(&world, 0, "203.0.113.1");
    let (ada, bob) = (home.register("ada").await, home.register("bob").await);
    // Bob's phone is logged in to his account, and is on its way.
    let phone = from(&world, 0, "203.0.113.2").with("cookie", &format!("refreshToken={}", bob.refresh));
    let start = Instant::now();
    login(&home, &bob.email, PASSWORD).await.ok(200);
    let alone = start.elapsed();
    let mut attack = tokio::task::JoinSet::new();
    for n in 0..72 {
        let stranger = from(&world, 0, &format!("198.51.100.{n}"));
        attack.spawn(async move {
            let mut told = Vec::new();
            for guess in 0..5 {
                let email = format!("victim-{n}-{guess}@example.org");
                let answer = login(&stranger, &email, "wrong guess").await;
                if answer.status == 503 {
                    told.push(answer.header("retry-after").parse::<u64>().unwrap());
                }
            }
            told
        });
    }
    let waiting = async || {
        let metrics = world.client(0).get("/metrics").await.text;
        let line = metrics.lines().find_map(|line| line.strip_prefix("gateway_bcrypt_queue "));
        line.is_some_and(|waiting| waiting.parse::<u64>().unwrap() >= 20)
    };
    until("the queue of strangers is long", waiting).await;
    let mut slowest = Duration::ZERO;
    for (client, email) in [(&home, &ada.email), (&phone, &bob.email), (&home, &ada.email)] {
        let start = Instant::now();
        login(client, email, PASSWORD).await.ok(200);
        slowest = slowest.max(start.elapsed());
    }
    assert!(waiting().await, "the attack goes on");
    // Behind all strangers it would be more than twenty times as long as alone.
    assert!(slowest < alone * 8 + Duration::from_secs(1), "{slowest:?}, alone {alone:?}");
    attack.abort_all();
}

#[tokio::test]
async fn without_redis_the_limits_hold_and_tickets_do_not() {
    let (mut stack, isolated) = off_runtime(|| {
        let stack = Stack::start(&fresh_dir("noredis").unwrap()).unwrap();
        let isolated = Isolated::on("noredis", &stack.addresses()).unwrap();
        (stack, isolated)
    });
    let env = [BEHIND_A_PROXY, ("MT_LIMIT_AUTH_PER_MIN", "5"), ("MT_LIMIT_LOOKUPS_PER_MIN", "60")];
    let world = World::start_on(|_| Ok(isolated), "noredis", 1, &env).await;
    let user = from(&world, 0, "203.0.113.9").register("ada").await;
    let ticket = async || user.client.send(Method::POST, "/v1/ws/ticket", None).await;
    ticket().await.ok(201);
    off_runtime(|| stack.redis.kill9().unwrap());

    ticket().await.problem(503, "server.unavailable");
    let start = Instant::now();
    let mut allowed = 0;
    for _ in 0..8 {
        match login(&from(&world, 0, "203.0.113.1"), &user.email, PASSWORD).await.status {
            200 => allowed += 1,
            429 => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(allowed, 5, "limited in the process");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let ready = world.client(0).get("/readyz").await.ok(200);
    assert_eq!((&ready["ready"], ready["checks"]["redis"] == "ok"), (&json!(true), false), "{ready}");
    let metrics = world.client(0).get("/metrics").await;
    let fallbacks = metrics.text.lines().find(|line| line.starts_with("gateway_limiter_fallbacks_total "));
    assert!(fallbacks.is_some_and(|line| !line.ends_with(" 0")), "{fallbacks:?}");
    // A logout is a logout all the same.
    from(&world, 0, "203.0.113.3").with_cookie("/v1/auth/logout", &user.refresh).await.ok(204);
    user.client.get("/v1/me").await.problem(401, "auth.revoked");

    off_runtime(|| stack.redis.restart().unwrap());
    let other = from(&world, 0, "203.0.113.10").register("bob").await;
    until("tickets are back", async || {
        other.client.send(Method::POST, "/v1/ws/ticket", None).await.status == 201
    })
    .await;
}

#[tokio::test]
async fn no_secret_is_in_the_output() {
    let world =
        World::start("secrets", 1, &[("MT_LOG", "trace,tungstenite=debug,h2=info,tokio=info,mio=info")])
            .await;
    let user = world.user("ada").await;
    let peer = world.user("bob").await;
    let body = "the body of a message nobody else may read";
    let chat = user.client.post("/v1/chats", json!({ "type": 1, "memberIds": [peer.id] })).await.ok(201);
    let path = format!("/v1/chats/{}/messages", chat["id"]);
    user.client.post(&path, json!({ "uuid": uuid::Uuid::now_v7(), "body": body })).await.ok(201);
    let ticket = user.client.send(Method::POST, "/v1/ws/ticket", None).await.ok(201);
    let ticket = ticket["ticket"].as_str().unwrap().to_owned();
    let wrong = "a wrong password, typed in public";
    login(&world.client(0), &user.email, wrong).await.problem(401, "auth.invalid_credentials");
    user.client.get(&format!("/v1/users?email={}", peer.email)).await.ok(200);
    let next = world.client(0).with_cookie("/v1/auth/refresh", &user.refresh).await.cookie();
    for query in
        [format!("ticket={ticket}"), format!("token={}", user.token), format!("token={}x", user.token)]
    {
        world.client(0).get(&format!("/v1/ws?{query}")).await.problem(426, "request.invalid");
    }
    for query in [format!("ticket={ticket}"), format!("token={}", user.token)] {
        let url = format!("{}/v1/ws?{query}&device=web", world.urls[0].replace("http://", "ws://"));
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let frame = json!({ "type": "SendMessage", "uuid": uuid::Uuid::now_v7(), "chatId": chat["id"], "body": body });
        socket.send(frame.to_string().into()).await.unwrap();
        let acked = async { while !socket.next().await.unwrap().unwrap().to_string().contains("Ack") {} };
        tokio::time::timeout(support::PATIENCE, acked).await.unwrap();
    }
    world.client(0).with_cookie("/v1/auth/logout", &next).await.ok(204);
    let metrics = world.client(0).get("/metrics").await.text;
    let output = world.logs() + &metrics;
    assert!(output.contains("listening") && metrics.contains("gateway_http_requests_total"), "{metrics}");
    for (what, secret) in [
        ("password", PASSWORD),
        ("wrong password", wrong),
        ("e-mail", &user.email),
        ("peer's e-mail", &peer.email),
        ("access token", &user.token),
        ("refresh token", &user.refresh),
        ("next refresh token", &next),
        ("ticket", &ticket),
        ("body", body),
    ] {
        assert!(!output.contains(secret), "the {what} is in the output");
    }
}

#[tokio::test]
async fn every_documented_route_exists() {
    let world = World::start("openapi", 1, &[]).await;
    let client = world.client(0);
    let document = client.get("/openapi.json").await.ok(200);
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let mut documented = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let concrete = path.replace("{id}", "1").replace("{userId}", "1");
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let answer = client.send(method.clone(), &concrete, None).await;
            let absent =
                answer.status == 405 || (answer.status == 404 && answer.text.contains("no such route"));
            assert!(!absent, "{method} {path}: {answer:?}");
            assert!(operation["responses"].as_object().is_some_and(|all| !all.is_empty()), "{method} {path}");
            documented.push(format!("{method} {path}"));
        }
    }
    documented.sort();
    assert_eq!(documented, CALLS);
    let references = document.to_string();
    for schema in ["Chat", "Message", "Member", "Problem", "LoggedIn", "Ack"] {
        assert!(document["components"]["schemas"][schema].is_object(), "{schema}");
        assert!(references.contains(&format!("#/components/schemas/{schema}\"")), "{schema}");
    }
    assert_complete(&document, &document);
}

/// The calls of the contract.
const CALLS: [&str; 27] = [
    "DELETE /v1/chats/{id}/members/{userId}",
    "DELETE /v1/devices/{id}",
    "GET /.well-known/jwks.json",
    "GET /healthz",
    "GET /metrics",
    "GET /openapi.json",
    "GET /readyz",
    "GET /v1/chats",
    "GET /v1/chats/{id}",
    "GET /v1/chats/{id}/members",
    "GET /v1/chats/{id}/messages",
    "GET /v1/devices",
    "GET /v1/me",
    "GET /v1/users",
    "GET /v1/users/{id}",
    "GET /v1/ws",
    "PATCH /v1/chats/{id}",
    "PATCH /v1/chats/{id}/members/{userId}",
    "PATCH /v1/me",
    "POST /v1/auth/login",
    "POST /v1/auth/logout",
    "POST /v1/auth/refresh",
    "POST /v1/auth/register",
    "POST /v1/chats",
    "POST /v1/chats/{id}/members",
    "POST /v1/chats/{id}/messages",
    "POST /v1/ws/ticket",
];

/// Every reference leads somewhere.
fn assert_complete(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
            fields.values().for_each(|value| assert_complete(document, value));
        }
        Value::Array(items) => items.iter().for_each(|value| assert_complete(document, value)),
        _ => {}
    }
}
