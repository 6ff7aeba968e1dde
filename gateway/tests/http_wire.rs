//! What a client sees on the wire: heads, bodies that are too long, connections that end.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/http.rs"]
mod support;

use reqwest::Method;
use serde_json::json;
use support::{PASSWORD, World};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A connection on which everything is written as it stands.
struct Wire(TcpStream);

impl Wire {
    async fn open(world: &World) -> Self {
        let address = world.urls[0].strip_prefix("http://").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.replace('\n', "\r\n").as_bytes()).await.unwrap();
    }

    /// Everything that comes until the server ends the connection.
    async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        self.0.read_to_end(&mut all).await.unwrap();
        String::from_utf8(all).unwrap()
    }

    /// What comes until it holds this text.
    async fn until(&mut self, end: &str) -> String {
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).contains(end) {
            let read =
                tokio::time::timeout(support::PATIENCE, self.0.read_buf(&mut all)).await.unwrap().unwrap();
            assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&all));
        }
        String::from_utf8(all).unwrap().to_lowercase()
    }
}

async fn ask(world: &World, text: &str) -> String {
    let mut wire = Wire::open(world).await;
    wire.say(text).await;
    let ended = tokio::time::timeout(support::PATIENCE, wire.rest());
    ended.await.unwrap_or_else(|_| panic!("it stays open after {text}")).to_lowercase()
}

#[tokio::test]
async fn a_body_that_is_too_long_gets_its_answer_and_no_reset() {
    let world = World::start("toolong", 1, &[]).await;
    let body = vec![b'x'; 3 << 20];
    for round in 0..20 {
        let mut wire = Wire::open(&world).await;
        let chunked = round % 2 == 1;
        let length = if chunked {
            "transfer-encoding: chunked".to_owned()
        } else {
            format!("content-length: {}", body.len())
        };
        wire.say(&format!("POST /v1/auth/login HTTP/1.1\nhost: a\n{length}\n\n")).await;
        if chunked {
            wire.say(&format!("{:x}\n", body.len())).await;
        }
        // All of it, without a look at the answer.
        wire.0.write_all(&body).await.unwrap();
        wire.say(if chunked { "\n0\n\n" } else { "" }).await;
        let answer = wire.until("request.too_large").await;
        assert!(answer.starts_with("http/1.1 413"), "{answer}");
        // The connection is as good as before.
        wire.say("GET /healthz HTTP/1.1\nhost: a\nconnection: close\n\n").await;
        assert!(wire.rest().await.contains("HTTP/1.1 200"));
    }
    // Of what is longer than anybody would send, the answer comes at once, and says that the connection ends.
    let mut wire = Wire::open(&world).await;
    wire.say("POST /v1/auth/login HTTP/1.1\nhost: a\ncontent-length: 1000000000\n\n").await;
    let answer = wire.until("request.too_large").await;
    assert!(answer.contains("\nconnection: close\r"), "{answer}");
}

#[tokio::test]
async fn a_body_is_asked_for_after_the_checks() {
    let world = World::start("continue", 1, &[("MT_LIMIT_AUTH_PER_MIN", "2")]).await;
    let body = json!({ "displayName": "Ada" }).to_string();
    let user = world.user("ada").await;
    let head = |method: &str, path: &str, more: &str, length: usize| {
        format!("{method} {path} HTTP/1.1\nhost: a\nexpect: 100-continue\ncontent-length: {length}\n{more}\n")
    };
    let bearer = format!("authorization: Bearer {}\n", user.token);
    let mut wire = Wire::open(&world).await;
    wire.say(&head("PATCH", "/v1/me", &bearer, body.len())).await;
    assert!(wire.until("\r\n\r\n").await.starts_with("http/1.1 100 continue"));
    wire.say(&body).await;
    assert!(wire.until("}").await.starts_with("http/1.1 200"));

    let typed = format!("{bearer}content-type: text/plain\n");
    for (method, path, more, length, status) in [
        ("PATCH", "/v1/me", "", 20, 401),
        ("PATCH", "/v1/me", bearer.as_str(), 100_000, 413),
        ("PATCH", "/v1/me", typed.as_str(), 20, 415),
        ("POST", "/v1/auth/login", "origin: https://evil.example\n", 20, 403),
        ("GET", "/v1/nothing", "", 20, 404),
    ] {
        let answer = ask(&world, &head(method, path, more, length)).await;
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{answer}");
        assert!(answer.contains("\nconnection: close\r"), "{answer}");
    }
    let login = head("POST", "/v1/auth/login", "", 20);
    for _ in 0..2 {
        let mut wire = Wire::open(&world).await;
        wire.say(&login).await;
        // A body with a mistake tries no password, and is not counted; one that is not sent is.
        wire.until("\r\n\r\n").await;
    }
    let answer = ask(&world, &login).await;
    assert!(answer.starts_with("http/1.1 429") && !answer.contains("100 continue"), "{answer}");
}

#[tokio::test]
async fn personal_answers_are_not_kept_and_no_type_is_guessed() {
    let world = World::start("headers", 1, &[]).await;
    let user = world.user("ada").await;
    for path in ["/v1/me", "/v1/chats", "/v1/devices", "/v1/users?email=a@b", "/v1/nothing", "/v1/chats/1"] {
        let answer = user.client.get(path).await;
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    }
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json", "/.well-known/jwks.json", "/nothing"] {
        assert_eq!(user.client.get(path).await.header("x-content-type-options"), "nosniff", "{path}");
    }
}

#[tokio::test]
async fn a_request_names_one_host_and_a_body_its_type() {
    let world = World::start("strict", 1, &[]).await;
    for hosts in ["", "host: a\nhost: a\n", "host: a b\n", "host: x@a\n"] {
        let answer = ask(&world, &format!("GET /healthz HTTP/1.1\n{hosts}connection: close\n\n")).await;
        assert!(
            answer.starts_with("http/1.1 400") && answer.contains("request.malformed"),
            "{hosts}: {answer}"
        );
    }
    let answer = ask(&world, "GET /healthz HTTP/1.0\n\n").await;
    assert!(answer.starts_with("http/1.0 200"), "{answer}");
    let user = world.user("ada").await;
    let body = json!({ "displayName": "Ada" }).to_string().into_bytes();
    for (kind, status) in
        [("application/json", 200), ("application/json; charset=utf-8", 200), ("text/plain", 415)]
    {
        let client = user.client.clone().with("content-type", kind);
        assert_eq!(client.send(Method::PATCH, "/v1/me", Some(body.clone())).await.status, status, "{kind}");
    }
    for (site, status) in [("same-origin", 401), ("none", 401), ("same-site", 403), ("cross-site", 403)] {
        let client = world.client(0).with("sec-fetch-site", site);
        let login = json!({ "email": user.email, "password": "not the password" });
        assert_eq!(client.post("/v1/auth/login", login).await.status, status, "{site}");
    }
}

#[tokio::test]
async fn a_planted_cookie_does_not_win_and_a_refused_refresh_leaves_the_newer_one() {
    let world = World::start("planted", 1, &[]).await;
    let (user, eve) = (world.user("ada").await, world.user("eve").await);
    let refresh = async |cookies: &[&str]| {
        let cookies: Vec<String> = cookies.iter().map(|token| format!("refreshToken={token}")).collect();
        let client = world.client(0).with("cookie", &cookies.join("; "));
        client.send(Method::POST, "/v1/auth/refresh", None).await
    };
    let answer = refresh(&["planted", &user.refresh]).await;
    let ours = answer.cookie();
    answer.ok(200);
    let answer = refresh(&[&ours, "planted"]).await;
    let ours = answer.cookie();
    answer.ok(200);
    // Somebody else's token beside ours: nobody is logged in, and nobody is logged out.
    for cookies in [[&ours, &eve.refresh], [&eve.refresh, &ours]] {
        let answer = refresh(&cookies.map(String::as_str)).await;
        assert!(!answer.headers.contains_key("set-cookie"), "{answer:?}");
        answer.problem(401, "auth.invalid_token");
    }
    refresh(&["a", "b", "c", "d", &ours]).await.problem(401, "auth.invalid_token");
    let answer = refresh(&["a", "b", "c", &ours]).await;
    let ours = answer.cookie();
    answer.ok(200);
    let logout = world.client(0).with("cookie", &format!("refreshToken=planted; refreshToken={ours}"));
    logout.send(Method::POST, "/v1/auth/logout", None).await.ok(204);
    let answer = refresh(&[&ours]).await;
    assert!(!answer.headers.contains_key("set-cookie"), "a newer login may have set it: {answer:?}");
    answer.problem(401, "auth.revoked");
    let login = json!({ "email": user.email, "password": PASSWORD });
    world.client(0).post("/v1/auth/login", login).await.ok(200);
}

#[tokio::test]
async fn what_is_no_http_is_answered_and_closed() {
    let world = World::start("nohttp", 1, &[]).await;
    for text in ["nonsense\n\n", "GET / HTTP/1.1\nbad header\n\n", "GET / HTTP/3.0\nhost: a\n\n"] {
        let answer = ask(&world, text).await;
        assert!(
            answer.starts_with("http/1.1 400") && answer.contains("\nconnection: close\r"),
            "{text}: {answer}"
        );
    }
}
