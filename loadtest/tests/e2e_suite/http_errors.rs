//! The HTTP error table from outside: status, code, headers, and no internal detail.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    cluster::{Build, Cluster},
    wait::secs,
};
use loadtest::client::http::{Api, Reply};
use reqwest::Method;

fn problem(reply: &Reply, status: u16, code: &str, what: &str) {
    assert_eq!((reply.status.as_u16(), reply.code()), (status, code.to_owned()), "{what}: {}", reply.text);
    assert_eq!(reply.header("content-type"), "application/problem+json", "{what}");
    let body = reply.json();
    assert_eq!(body["status"], json!(status), "{what}: {body}");
    for field in ["type", "title", "traceId"] {
        assert!(body[field].is_string(), "{what}: no {field} in {body}");
    }
    match status {
        401 => assert!(!reply.header("www-authenticate").is_empty(), "{what}"),
        429 | 503 => assert!(!reply.header("retry-after").is_empty(), "{what}"),
        422 => assert!(body["errors"].as_array().is_some_and(|errors| !errors.is_empty()), "{what}: {body}"),
        _ => {}
    }
}

async fn raw(api: &Api, method: Method, path: &str, body: &str) -> Reply {
    let request = api.request(method, path).header("content-type", "application/json").body(body.to_owned());
    api.send(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mistake_is_a_problem_with_its_code() {
    let mut cluster = Build::new("http").start().await;
    let accounts = cluster.accounts(3).await;
    let (alice, bob, eve) = (&accounts[0], &accounts[1], &accounts[2]);
    let chat = cluster.group(&[alice, bob]).await;
    let api = cluster.api(0, alice);
    let anonymous = cluster.anonymous(0);
    let messages = format!("/v1/chats/{chat}/messages");

    problem(&anonymous.get("/v1/nowhere").await.unwrap(), 404, "request.invalid", "unknown route");
    let wrong = api.delete("/v1/me").await.unwrap();
    assert_eq!(wrong.status, 405, "{}", wrong.text);
    assert!(wrong.header("allow").contains("GET") && wrong.header("allow").contains("PATCH"));
    for path in ["/v1/me", "/v1/chats", "/v1/users?email=a@example.org", "/v1/devices", &messages] {
        problem(&anonymous.get(path).await.unwrap(), 401, "auth.missing", path);
        let bad = anonymous.with_token("garbage").get(path).await.unwrap();
        problem(&bad, 401, "auth.invalid_token", path);
    }
    for (method, path) in [(Method::POST, "/v1/chats"), (Method::POST, &messages), (Method::PATCH, "/v1/me")]
    {
        for text in ["{", "", "nonsense", "[1,", "\"\\ud800\""] {
            problem(
                &raw(&api, method.clone(), path, text).await,
                400,
                "request.malformed",
                &format!("{path} {text}"),
            );
        }
        problem(&raw(&api, method.clone(), path, &"x".repeat(70_000)).await, 413, "request.too_large", path);
    }
    for body in [
        json!({}),
        json!({"type": 3, "memberIds": [bob.user_id]}),
        json!({"type": "2", "memberIds": [bob.user_id]}),
        json!({"type": 2, "memberIds": "all"}),
        json!({"type": 2, "memberIds": [0]}),
        json!({"type": 2, "memberIds": [-1]}),
        json!({"type": 2, "memberIds": [1.5]}),
        json!({"type": 2, "memberIds": [9_007_199_254_740_992_u64]}),
        json!({"type": 2, "memberIds": [999_999_999]}),
        json!({"type": 1, "memberIds": []}),
        json!({"type": 1, "memberIds": [bob.user_id, eve.user_id]}),
        json!({"type": 1, "memberIds": [alice.user_id]}),
        json!({"type": 2, "memberIds": [bob.user_id], "title": 7}),
    ] {
        let reply = api.post("/v1/chats", &body).await.unwrap();
        assert_eq!(reply.status, 422, "{body}: {}", reply.text);
    }
    for query in [
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=-1",
        "before=x",
        "after=-1",
        "before=5&after=1",
        "before=0x1",
    ] {
        let reply = api.get(&format!("{messages}?{query}")).await.unwrap();
        problem(&reply, 422, "request.invalid", query);
    }
    for body in [
        json!({}),
        json!({"uuid": "x", "body": "y"}),
        json!({"uuid": Uuid::now_v7()}),
        json!({"uuid": Uuid::now_v7(), "body": 5}),
    ] {
        let reply = api.post(&messages, &body).await.unwrap();
        assert_eq!(reply.status, 422, "{body}: {}", reply.text);
    }
    // No member or no such chat: the same. What is no id at all is a mistake of the request.
    for (id, status, code) in [
        ("999999999", 404, "chat.not_found"),
        (&chat.to_string(), 404, "chat.not_found"),
        ("0", 422, "request.invalid"),
        ("x", 422, "request.invalid"),
        ("-1", 422, "request.invalid"),
        ("9007199254740992", 422, "request.invalid"),
    ] {
        let outsider = cluster.api(0, eve).get(&format!("/v1/chats/{id}/messages")).await.unwrap();
        problem(&outsider, status, code, id);
    }
    problem(&api.get("/v1/users/999999999").await.unwrap(), 404, "user.not_found", "unknown user");
    let (history, _) = api.history(chat).await.unwrap();
    assert!(history.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_and_tokens_fail_as_specified() {
    let mut cluster = Build::new("http_auth").gateways(2).start().await;
    let alice = cluster.registered("alice").await;
    let api = cluster.anonymous(0);
    let register = async |email: &str, password: &str| {
        api.post("/v1/auth/register", &json!({"email": email, "password": password})).await.unwrap()
    };
    problem(&register("ALICE@example.org", "long enough").await, 409, "auth.email_taken", "same in capitals");
    for (email, password) in [
        ("no-at-sign", "long enough"),
        ("", "long enough"),
        ("two@@example.org", "long enough"),
        ("short@example.org", "1234567"),
        ("long@example.org", &"x".repeat(257)),
    ] {
        problem(&register(email, password).await, 422, "request.invalid", email);
    }
    let login = async |email: &str, password: &str| {
        api.post("/v1/auth/login", &json!({"email": email, "password": password})).await.unwrap()
    };
    let wrong = login("alice@example.org", "wrong password").await;
    let unknown = login("nobody@example.org", "wrong password").await;
    problem(&wrong, 401, "auth.invalid_credentials", "wrong password");
    let without_trace = |reply: &Reply| -> Value {
        let mut body = reply.json();
        body.as_object_mut().unwrap().remove("traceId");
        body
    };
    assert_eq!(without_trace(&wrong), without_trace(&unknown));

    let good = login("Alice@Example.org", "correct horse alice").await;
    assert_eq!(good.status, 200, "{}", good.text);
    assert_eq!(good.header("cache-control"), "no-store");
    let cookie = good.header("set-cookie").to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/v1/auth", "Max-Age=604800"] {
        assert!(cookie.contains(part), "{part} in the cookie");
    }
    let token = good.json()["accessToken"].as_str().unwrap().to_owned();
    let value = cookie.split(';').next().unwrap().to_owned();
    cluster.secret(&value);
    cluster.secret(&token);

    // Rotation: the old one, used again at the other gateway, takes the whole family down.
    let refresh = async |gateway: usize, cookie: &str| {
        let api = cluster.anonymous(gateway);
        let request = api.request(Method::POST, "/v1/auth/refresh").header("cookie", cookie);
        api.send(request.header("origin", api.base())).await.unwrap()
    };
    let rotated = refresh(0, &value).await;
    assert_eq!(rotated.status, 200, "{}", rotated.text);
    let next = rotated.header("set-cookie").split(';').next().unwrap().to_owned();
    assert_ne!(next, value);
    problem(&refresh(1, &value).await, 401, "auth.revoked", "used twice");
    problem(&refresh(0, &next).await, 401, "auth.revoked", "its successor");
    crate::support::wait::until("the family's tokens are refused", secs(3), async || {
        let reply = cluster.anonymous(1).with_token(&token).get("/v1/me").await.unwrap();
        reply.code() == "auth.revoked"
    })
    .await;
    // Another login of the same account is another family.
    let me = cluster.api(1, &alice.account).get("/v1/me").await.unwrap();
    assert_eq!(me.status, 200, "{}", me.text);
    assert!(!me.json()["displayName"].as_str().unwrap().contains('@'));
    problem(&refresh(0, "refreshToken=garbage").await, 401, "auth.invalid_token", "no such token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_has_one_direct_chat_whoever_asks() {
    let mut cluster = Build::new("direct").gateways(2).start().await;
    let accounts = cluster.accounts(2).await;
    let mut creations = tokio::task::JoinSet::new();
    for n in 0..12 {
        let (own, other) = (accounts[n % 2].clone(), accounts[(n + 1) % 2].user_id);
        let api = cluster.api(n / 2 % 2, &own);
        creations.spawn(async move {
            api.post("/v1/chats", &json!({"type": 1, "memberIds": [other]})).await.unwrap()
        });
    }
    let replies = creations.join_all().await;
    let ids: std::collections::BTreeSet<u64> =
        replies.iter().map(|reply| reply.json()["id"].as_u64().unwrap_or_default()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
    assert!(replies.iter().all(|reply| matches!(reply.status.as_u16(), 200 | 201)));
    idempotent_groups(&cluster, &accounts[0], accounts[1].user_id).await;
}

async fn idempotent_groups(cluster: &Cluster, account: &loadtest::provision::Account, other: u64) {
    let key = Uuid::new_v4().to_string();
    let mut ids = std::collections::BTreeSet::new();
    for gateway in [0, 1, 0] {
        let api = cluster.api(gateway, account);
        let body = json!({"type": 2, "memberIds": [other], "title": "once"});
        let request = api.request(Method::POST, "/v1/chats").header("idempotency-key", &key).json(&body);
        let reply = api.send(request).await.unwrap();
        assert!(reply.status.is_success(), "{}", reply.text);
        ids.insert(reply.json()["id"].as_u64().unwrap());
        // A read after the write, at the other gateway.
        let list = cluster.api(1 - gateway, account).get("/v1/chats").await.unwrap().json();
        let listed: Vec<u64> =
            list["chats"].as_array().unwrap().iter().map(|chat| chat["id"].as_u64().unwrap()).collect();
        assert!(ids.iter().all(|id| listed.contains(id)), "{list}");
    }
    assert_eq!(ids.len(), 1);
}
