//! HTTP while something is away: Postgres, NATS; and clients that dawdle.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/http.rs"]
mod support;

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use support::{PASSWORD, World, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use xtask::testing::{Isolated, Stack, fresh_dir, off_runtime};

/// Servers of its own, for a test that hurts them.
async fn private(name: &str, env: &[(&str, &str)]) -> (World, Stack) {
    let (stack, isolated) = off_runtime(|| {
        let stack = Stack::start(&fresh_dir(name).unwrap()).unwrap();
        let isolated = Isolated::on(name, &stack.addresses()).unwrap();
        (stack, isolated)
    });
    (World::start_on(|_| Ok(isolated), name, 1, env).await, stack)
}

#[tokio::test]
async fn without_postgres_clients_are_told_to_wait() {
    let (world, mut stack) = private("nopostgres", &[("MT_POSTGRES_TIMEOUT_MS", "1000")]).await;
    let user = world.user("ada").await;
    let chat = user.client.post("/v1/chats", json!({ "type": 2, "memberIds": [] })).await.ok(201);
    let history = format!("/v1/chats/{}/messages", chat["id"]);
    // In order: these throw-away servers commit asynchronously, and a crash would take the account with it.
    off_runtime(|| stack.postgres.stop().unwrap());
    let login = json!({ "email": user.email, "password": PASSWORD });
    world.client(0).post("/v1/auth/login", login.clone()).await.problem(503, "server.unavailable");
    world.client(0).with_cookie("/v1/auth/refresh", &user.refresh).await.problem(503, "server.unavailable");
    user.client.get("/v1/me").await.problem(503, "server.unavailable");
    user.client.get(&history).await.problem(503, "server.unavailable");
    let ready = world.client(0).get("/readyz").await.ok(503);
    assert!(ready["checks"]["postgres"].as_str().unwrap().starts_with("down"), "{ready}");
    world.client(0).get("/healthz").await;
    // The log has no need of it.
    let message = json!({ "uuid": uuid::Uuid::now_v7(), "body": "still here" });
    user.client.post(&history, message).await.ok(201);

    off_runtime(|| stack.postgres.restart().unwrap());
    until("logins work again", async || {
        world.client(0).post("/v1/auth/login", login.clone()).await.status == 200
    })
    .await;
    until("history is there again", async || {
        let answer = user.client.get(&history).await;
        answer.status == 200 && answer.text.contains("still here")
    })
    .await;
    world.client(0).with_cookie("/v1/auth/refresh", &user.refresh).await.ok(200);
}

#[tokio::test]
async fn without_nats_history_is_stale_and_sending_waits() {
    let (world, mut stack) = private("nonats", &[]).await;
    let user = world.user("ada").await;
    let chat = user.client.post("/v1/chats", json!({ "type": 2, "memberIds": [] })).await.ok(201);
    let history = format!("/v1/chats/{}/messages", chat["id"]);
    let send = async |body: &str, uuid: uuid::Uuid| {
        user.client.post(&history, json!({ "uuid": uuid, "body": body })).await
    };
    send("before", uuid::Uuid::now_v7()).await.ok(201);
    user.client.get(&history).await.ok(200);
    off_runtime(|| stack.nats.kill9().unwrap());
    let lost = uuid::Uuid::now_v7();
    let (sent, read) = tokio::join!(send("meanwhile", lost), user.client.get(&history));
    sent.problem(503, "log.unavailable");
    let read = read.ok(200);
    assert_eq!((&read["stale"], &read["messages"][0]["body"]), (&json!(true), &json!("before")));
    let ready = world.client(0).get("/readyz").await.ok(503);
    assert!(ready["checks"]["nats"].as_str().unwrap().starts_with("down"), "{ready}");
    world
        .client(0)
        .post("/v1/auth/login", json!({ "email": user.email, "password": PASSWORD }))
        .await
        .ok(200);

    off_runtime(|| stack.nats.restart().unwrap());
    until("sending works again", async || matches!(send("meanwhile", lost).await.status, 200 | 201)).await;
    let answer = send("meanwhile", lost).await;
    assert_eq!(answer.ok(200)["dup"], true);
    let read = user.client.get(&history).await.ok(200);
    assert_eq!(read["messages"].as_array().unwrap().len(), 2, "{read}");
}

#[tokio::test]
async fn a_client_that_dawdles_is_cut_off() {
    let env =
        [("MT_HEADER_TIMEOUT_MS", "300"), ("MT_KEEP_ALIVE_MS", "2000"), ("MT_REQUEST_TIMEOUT_MS", "600")];
    let world = World::start("dawdle", 1, &env).await;
    let addr: SocketAddr = world.urls[0].strip_prefix("http://").unwrap().parse().unwrap();
    let answer_to = async |request: &str| {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        let _ended = tokio::time::timeout(Duration::from_secs(10), read).await.expect("the connection ends");
        answer
    };
    assert!(!answer_to("GET /v1/me HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.contains("200 OK"));
    let idle = answer_to("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(idle.starts_with("HTTP/1.1 200"), "an idle connection is closed after its answer: {idle}");
    // It is kept for longer than the head of a first request may take.
    let mut kept = TcpStream::connect(addr).await.unwrap();
    let begun = std::time::Instant::now();
    for _ in 0..2 {
        kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            assert!(kept.read_buf(&mut answer).await.unwrap() > 0, "it was closed");
        }
        // Time itself is tested: the pause is longer than a first head may take, and shorter than the keep-alive.
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    let mut rest = String::new();
    tokio::time::timeout(Duration::from_secs(10), kept.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    let head = "POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    let slow = answer_to(head).await;
    assert!(slow.starts_with("HTTP/1.1 503") && slow.contains("application/problem+json"), "{slow}");
    world.client(0).get("/healthz").await;
}

#[tokio::test]
async fn a_gateway_without_descriptors_goes_on_when_it_has_some() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let world = World::start("descriptors", 1, &[]).await;
    let pid = Pid::from_raw(i32::try_from(world.gateways[0].pid()).unwrap());
    let used = std::fs::read_dir(format!("/proc/{}/fd", world.gateways[0].pid())).unwrap().count() as u64;
    let scarce = Rlimit { current: Some(used + 8), ..getrlimit(Resource::Nofile) };
    let plenty = prlimit(pid, Resource::Nofile, scarce).unwrap();
    let addr = world.urls[0].strip_prefix("http://").unwrap();
    let mut crowd = Vec::new();
    for _ in 0..40 {
        crowd.push(TcpStream::connect(addr).await.unwrap());
    }
    until("the gateway complains", async || world.logs().contains("cannot accept connections")).await;
    drop(crowd);
    world.client(0).get("/healthz").await;
    prlimit(pid, Resource::Nofile, plenty).unwrap();
    world.user("ada").await;
}
