//! Accounts over HTTP: register, log in, refresh, log out, devices, tickets.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

#[path = "support/http.rs"]
mod support;

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use support::{Client, PASSWORD, World, until};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

#[tokio::test]
async fn an_account_is_made_and_opened() {
    let world = World::start("account", 1, &[]).await;
    let client = world.client(0);
    let answer = client
        .post(
            "/v1/auth/register",
            json!({ "email": " Ada@Example.org ", "password": PASSWORD, "unknown": 1 }),
        )
        .await;
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("location"), "/v1/me");
    let attributes = "; HttpOnly; SameSite=Strict; Path=/v1/auth; Max-Age=604800";
    assert_eq!(answer.header("set-cookie"), format!("refreshToken={}{attributes}", answer.cookie()));
    let body = answer.ok(201);
    assert_eq!(body["user"]["email"], "ada@example.org");
    assert_eq!((&body["tokenType"], &body["expiresIn"]), (&json!("Bearer"), &json!(900)));
    let name = body["user"]["displayName"].as_str().unwrap();
    assert!(!name.is_empty() && !name.to_lowercase().contains("ada"), "{name} shows the e-mail");

    let again = json!({ "email": "ADA@EXAMPLE.ORG", "password": PASSWORD });
    client.post("/v1/auth/register", again.clone()).await.problem(409, "auth.email_taken");

    let answer = client.post("/v1/auth/login", again).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let login = answer.ok(200);
    assert_eq!(login["user"], body["user"]);
    let ada = client.with_token(login["accessToken"].as_str().unwrap());
    assert_eq!(ada.get("/v1/me").await.ok(200), login["user"]);
    let renamed = ada.patch("/v1/me", json!({ "displayName": " Ada L. " })).await.ok(200);
    assert_eq!(renamed["displayName"], "Ada L.");
    assert_eq!(ada.get("/v1/me").await.ok(200), renamed);
    let found = ada.get("/v1/users?email=ADA%40example.org").await.ok(200);
    assert_eq!(found, json!({ "users": [{ "id": renamed["id"], "displayName": "Ada L." }] }));
    let path = format!("/v1/users/{}", renamed["id"]);
    assert_eq!(ada.get(&path).await.ok(200), found["users"][0]);
    assert_eq!(ada.get("/v1/users?email=nobody@example.org").await.ok(200), json!({ "users": [] }));
    ada.get("/v1/users/9007199254740991").await.problem(404, "user.not_found");
}

#[tokio::test]
async fn bad_requests_are_named() {
    let world = World::start("badrequests", 1, &[]).await;
    let client = world.client(0);
    let fields = |body: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let errors = body["errors"].as_array().unwrap();
        errors.iter().map(|error| (text(&error["field"]), text(&error["code"]))).collect()
    };
    let pair = |field: &str, code: &str| (field.to_owned(), code.to_owned());

    let problem = client.post("/v1/auth/register", json!({})).await.problem(422, "request.invalid");
    assert_eq!(fields(&problem), [pair("email", "missing"), pair("password", "missing")]);
    let body = json!({ "email": 1, "password": "short", "displayName": " ", "device": "Web!" });
    let problem = client.post("/v1/auth/register", body).await.problem(422, "request.invalid");
    let expected = [
        ("email", "mistyped"),
        ("password", "out_of_range"),
        ("displayName", "out_of_range"),
        ("device", "out_of_range"),
    ];
    assert_eq!(fields(&problem), expected.map(|(field, code)| pair(field, code)));
    for email in ["", "ada", "a@b@", "a b@c", "ada@-x", "a\u{0}@b.c", "ä@example.org"] {
        let body = json!({ "email": email, "password": PASSWORD });
        let problem = client.post("/v1/auth/register", body).await.problem(422, "request.invalid");
        assert_eq!(fields(&problem), [pair("email", "out_of_range")], "{email:?}");
    }

    let raw = |body: &str| client.send(Method::POST, "/v1/auth/login", Some(body.as_bytes().to_vec()));
    raw("{\"email\":").await.problem(400, "request.malformed");
    raw("").await.problem(400, "request.malformed");
    raw(&"[".repeat(60_000)).await.problem(400, "request.malformed");
    raw("[]").await.problem(422, "request.invalid");
    raw(&format!("{{\"email\":\"{}\"}}", "x".repeat(65_536))).await.problem(413, "request.too_large");

    client.get("/v1/nothing").await.problem(404, "request.invalid");
    let answer = client.get("/v1/auth/login").await;
    assert_eq!(answer.header("allow"), "POST");
    answer.problem(405, "request.invalid");

    client.get("/v1/me").await.problem(401, "auth.missing");
    client.clone().with("authorization", "Basic YTpi").get("/v1/me").await.problem(401, "auth.missing");
    client.clone().with_token("not.a.token").get("/v1/me").await.problem(401, "auth.invalid_token");
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let traced = client.clone().with("traceparent", &format!("00-{trace}-b7ad6b7169203331-00"));
    assert_eq!(traced.get("/v1/me").await.problem(401, "auth.missing")["traceId"], trace);

    let user = world.user("ada").await;
    for path in ["/v1/users/0", "/v1/users/x", "/v1/chats/9007199254740992", "/v1/chats/-1/messages"] {
        user.client.get(path).await.problem(422, "request.invalid");
    }
    user.client.get("/v1/users").await.problem(422, "request.invalid");
    user.client.get("/v1/users?email=x").await.problem(422, "request.invalid");
    user.client
        .patch("/v1/me", json!({ "displayName": "x".repeat(129) }))
        .await
        .problem(422, "request.invalid");
    user.client.delete("/v1/devices/x").await.problem(422, "request.invalid");
    let stranger = format!("/v1/devices/{}", uuid::Uuid::new_v4());
    user.client.delete(&stranger).await.problem(404, "request.invalid");
}

#[tokio::test]
async fn an_unknown_email_and_a_wrong_password_look_the_same() {
    let world = World::start("samelook", 1, &[("MT_BCRYPT_COST", "10")]).await;
    let user = world.user("ada").await;
    let try_login = async |email: &str| {
        let start = Instant::now();
        let body = json!({ "email": email, "password": "not the password" });
        let answer = world.client(0).post("/v1/auth/login", body).await;
        let elapsed = start.elapsed();
        let mut problem = answer.problem(401, "auth.invalid_credentials");
        problem.as_object_mut().unwrap().remove("traceId");
        (problem, elapsed)
    };
    let mut fastest = [Duration::MAX; 3];
    let mut bodies = Vec::new();
    for _ in 0..5 {
        for (index, email) in
            [user.email.as_str(), "nobody@example.org", "no e-mail at all"].iter().enumerate()
        {
            let (body, elapsed) = try_login(email).await;
            bodies.push(body);
            fastest[index] = fastest[index].min(elapsed);
        }
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
    let [known, unknown, malformed] = fastest;
    assert!(unknown * 2 > known && malformed * 2 > known, "{fastest:?}");
}

/// Runs a statement about one user in the database, and returns the first column of the first row.
async fn in_database<T>(world: &World, statement: &str, user: u64) -> T
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    let (database, connection) =
        tokio_postgres::connect(&world.isolated.postgres_url(), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let found = database.query_one(statement, &[&(user as i64)]).await.unwrap().get(0);
    drop(database);
    connection.await.unwrap().unwrap();
    found
}

async fn hash_of(world: &World, user: u64) -> String {
    in_database(world, "SELECT password_hash FROM users WHERE id = $1", user).await
}

/// One gateway more, with settings of its own, once it is ready.
async fn another_gateway(world: &mut World, env: &[(&str, &str)]) -> Client {
    let mut settings = support::PLAIN.to_vec();
    settings.extend_from_slice(env);
    let (service, address) =
        xtask::testing::off_runtime(|| world.isolated.spawn("gateway", "gateway-more", &settings).unwrap());
    world.gateways.push(service);
    let client = Client::new(&format!("http://{address}"));
    until("the other gateway is ready", async || client.get("/readyz").await.status == 200).await;
    client
}

#[tokio::test]
async fn a_revocation_holds_for_the_life_of_the_token_at_gateways_whose_own_tokens_are_short() {
    let mut world = World::start("longtoken", 1, &[("MT_ACCESS_TTL_S", "3600")]).await;
    let user = world.user("ada").await;
    // A minute ago, before the other gateway was there.
    let revoke =
        "UPDATE token_families SET revoked_ts = (extract(epoch FROM now()) - 60) * 1000 WHERE user_id = $1
                  RETURNING did";
    let _family: uuid::Uuid = in_database(&world, revoke, user.id).await;
    let other = another_gateway(&mut world, &[("MT_ACCESS_TTL_S", "1")]).await;
    other.with_token(&user.token).get("/v1/me").await.problem(401, "auth.revoked");
}

#[tokio::test]
async fn a_changed_cost_tells_no_account_and_logins_renew_hashes() {
    let mut world = World::start("newcost", 1, &[("MT_BCRYPT_COST", "11")]).await;
    let user = world.user("ada").await;
    assert!(hash_of(&world, user.id).await.starts_with("$2b$11$"));
    // A gateway with another cost, which it takes over from the accounts while nobody logs in.
    let client = another_gateway(&mut world, &[]).await;
    let failed = async |email: &str| {
        let start = Instant::now();
        let body = json!({ "email": email, "password": "not the password" });
        client.post("/v1/auth/login", body).await.problem(401, "auth.invalid_credentials");
        start.elapsed()
    };
    let mut fastest = [Duration::MAX; 2];
    until("unknown e-mails take as long", async || failed("nobody@example.org").await.as_millis() > 20).await;
    for _ in 0..5 {
        for (fastest, email) in fastest.iter_mut().zip([user.email.as_str(), "nobody@example.org"]) {
            *fastest = failed(email).await.min(*fastest);
        }
    }
    let [known, unknown] = fastest;
    assert!(unknown * 2 > known && known * 2 > unknown, "{fastest:?}");
    let body = json!({ "email": user.email, "password": PASSWORD });
    client.post("/v1/auth/login", body.clone()).await.ok(200);
    assert!(hash_of(&world, user.id).await.starts_with("$2b$04$"));
    client.post("/v1/auth/login", body).await.ok(200);
}

#[tokio::test]
async fn a_refresh_token_works_once() {
    let world = World::start("refresh", 2, &[]).await;
    let user = world.user("ada").await;
    let client = world.client(0);
    let answer = client.with_cookie("/v1/auth/refresh", &user.refresh).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let next = answer.cookie();
    assert_ne!(next, user.refresh);
    let body = answer.ok(200);
    assert_eq!((&body["tokenType"], &body["expiresIn"]), (&json!("Bearer"), &json!(900)));
    let fresh = body["accessToken"].as_str().unwrap();
    client.clone().with_token(fresh).get("/v1/me").await.ok(200);

    // The old one was stolen: nothing of this family is good any more, anywhere.
    world.client(1).with_cookie("/v1/auth/refresh", &user.refresh).await.problem(401, "auth.revoked");
    client.with_cookie("/v1/auth/refresh", &next).await.problem(401, "auth.revoked");
    for gateway in [0, 1] {
        let client = world.client(gateway).with_token(fresh);
        until("the access token is refused", async || client.get("/v1/me").await.status == 401).await;
        client.get("/v1/me").await.problem(401, "auth.revoked");
    }
    client.send(Method::POST, "/v1/auth/refresh", None).await.problem(401, "auth.missing");
    client.with_cookie("/v1/auth/refresh", "made-up").await.problem(401, "auth.invalid_token");
}

#[tokio::test]
async fn of_two_refreshes_at_once_one_wins() {
    let world = World::start("refreshrace", 2, &[]).await;
    for _ in 0..10 {
        let user = world.user("ada").await;
        let (first, second) = (world.client(0), world.client(1));
        let (one, other) = tokio::join!(
            first.with_cookie("/v1/auth/refresh", &user.refresh),
            second.with_cookie("/v1/auth/refresh", &user.refresh)
        );
        let mut statuses = [one.status, other.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 401], "{one:?} {other:?}");
        let winner = if one.status == 200 { one } else { other };
        first.with_cookie("/v1/auth/refresh", &winner.cookie()).await.problem(401, "auth.revoked");
    }
}

async fn socket(world: &World, gateway: usize, query: &str) -> Result<WebSocket, u16> {
    let url = format!("{}/v1/ws?{query}", world.urls[gateway].replace("http://", "ws://"));
    match tokio_tungstenite::connect_async(url.into_client_request().unwrap()).await {
        Ok((socket, _)) => Ok(socket),
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(other) => panic!("{other}"),
    }
}

type WebSocket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn close_code(socket: &mut WebSocket) -> Option<u16> {
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Close(frame) = message {
            return frame.map(|frame| frame.code.into());
        }
    }
    None
}

#[tokio::test]
async fn a_logout_ends_everything_within_a_second() {
    let world = World::start("logout", 2, &[]).await;
    let user = world.user("ada").await;
    let mut sockets = Vec::new();
    for gateway in [0, 1] {
        sockets.push(socket(&world, gateway, &format!("token={}&device=web", user.token)).await.unwrap());
    }
    let body = json!({ "email": user.email, "password": PASSWORD, "device": "phone:1" });
    let other = world.client(0).post("/v1/auth/login", body).await.ok(200);
    let answer = world.client(0).with_cookie("/v1/auth/logout", &user.refresh).await;
    let start = Instant::now();
    assert!(answer.header("set-cookie").starts_with("refreshToken=; "), "{answer:?}");
    answer.ok(204);
    for socket in &mut sockets {
        let code = tokio::time::timeout(Duration::from_secs(1), close_code(socket)).await;
        assert_eq!(code.expect("closed within a second"), Some(4503));
    }
    for gateway in [0, 1] {
        user.at(&world, gateway).get("/v1/me").await.problem(401, "auth.revoked");
        assert_eq!(socket(&world, gateway, &format!("token={}", user.token)).await.err(), Some(401));
    }
    assert!(start.elapsed() < Duration::from_secs(2));
    world.client(0).with_cookie("/v1/auth/refresh", &user.refresh).await.problem(401, "auth.revoked");
    world.client(0).with_cookie("/v1/auth/logout", &user.refresh).await.problem(401, "auth.invalid_token");
    world.client(0).send(Method::POST, "/v1/auth/logout", None).await.problem(401, "auth.missing");

    // The other login is another family.
    let phone = world.client(1).with_token(other["accessToken"].as_str().unwrap());
    let devices = phone.get("/v1/devices").await.ok(200);
    let devices = devices["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!((&devices[0]["device"], &devices[0]["current"]), (&json!("phone:1"), &json!(true)));
    assert!(devices[0]["createdTs"].as_u64().is_some() && devices[0]["lastSeenTs"].as_u64().is_some());
}

#[tokio::test]
async fn a_device_logs_another_out() {
    let world = World::start("devices", 2, &[]).await;
    let laptop = world.user("ada").await;
    let body = json!({ "email": laptop.email, "password": PASSWORD, "device": "phone" });
    let answer = world.client(1).post("/v1/auth/login", body).await;
    let phone_refresh = answer.cookie();
    let phone = world.client(1).with_token(answer.ok(200)["accessToken"].as_str().unwrap());
    let listed = laptop.client.get("/v1/devices").await.ok(200);
    let listed = listed["devices"].as_array().unwrap();
    let (mine, other): (Vec<_>, Vec<_>) = listed.iter().partition(|device| device["current"] == true);
    assert_eq!((mine.len(), other.len()), (1, 1));
    let id = other[0]["id"].as_str().unwrap();

    let stranger = world.user("eve").await;
    stranger.client.delete(&format!("/v1/devices/{id}")).await.problem(404, "request.invalid");
    phone.get("/v1/me").await.ok(200);

    laptop.client.delete(&format!("/v1/devices/{id}")).await.ok(204);
    until("the phone is logged out", async || phone.get("/v1/me").await.status == 401).await;
    phone.get("/v1/me").await.problem(401, "auth.revoked");
    phone.with_cookie("/v1/auth/refresh", &phone_refresh).await.problem(401, "auth.revoked");
    laptop.client.get("/v1/me").await.ok(200);
    laptop.client.delete(&format!("/v1/devices/{id}")).await.problem(404, "request.invalid");
}

#[tokio::test]
async fn a_revocation_without_a_signal_is_found() {
    let world = World::start("nosignal", 1, &[]).await;
    let user = world.user("ada").await;
    let mut open = socket(&world, 0, &format!("token={}", user.token)).await.unwrap();
    let revoke = "UPDATE token_families SET revoked_ts = extract(epoch FROM now()) * 1000 WHERE user_id = $1
                  RETURNING did";
    let _family: uuid::Uuid = in_database(&world, revoke, user.id).await;
    let start = Instant::now();
    until("the token is refused", async || user.client.get("/v1/me").await.status == 401).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    user.client.get("/v1/me").await.problem(401, "auth.revoked");
    let code = tokio::time::timeout(Duration::from_secs(1), close_code(&mut open)).await;
    assert_eq!(code.expect("closed"), Some(4503));
}

#[tokio::test]
async fn an_access_token_ends() {
    let world = World::start("expiry", 1, &[("MT_ACCESS_TTL_S", "1")]).await;
    let user = world.user("ada").await;
    until("the token has ended", async || user.client.get("/v1/me").await.status == 401).await;
    let answer = user.client.get("/v1/me").await;
    assert!(answer.header("www-authenticate").contains("invalid_token"));
    answer.problem(401, "auth.expired");
    let body = world.client(0).with_cookie("/v1/auth/refresh", &user.refresh).await.ok(200);
    assert_eq!(body["expiresIn"], 1);
}

#[tokio::test]
async fn a_ticket_opens_one_socket() {
    let world = World::start("ticket", 2, &[]).await;
    let user = world.user("ada").await;
    let answer = user.client.send(Method::POST, "/v1/ws/ticket", None).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("location"), "/v1/ws");
    let body = answer.ok(201);
    assert_eq!(body["expiresInMs"], 30_000);
    let ticket = body["ticket"].as_str().unwrap();
    let mut open = socket(&world, 1, &format!("ticket={ticket}")).await.unwrap();
    let welcome = open.next().await.unwrap().unwrap().into_text().unwrap();
    let welcome: Value = serde_json::from_str(&welcome).unwrap();
    assert_eq!((&welcome["type"], &welcome["userId"]), (&json!("Welcome"), &json!(user.id)));
    for gateway in [0, 1] {
        assert_eq!(socket(&world, gateway, &format!("ticket={ticket}")).await.err(), Some(401));
    }
    world.client(0).send(Method::POST, "/v1/ws/ticket", None).await.problem(401, "auth.missing");
}

#[tokio::test]
async fn foreign_pages_are_refused() {
    let world = World::start("origin", 1, &[("MT_ALLOWED_ORIGINS", "https://chat.example")]).await;
    let user = world.user("ada").await;
    let from = |origin: &str| world.client(0).with("origin", origin);
    for path in ["/v1/auth/refresh", "/v1/auth/logout"] {
        from("https://evil.example").with_cookie(path, &user.refresh).await.problem(403, "auth.mismatch");
    }
    let answer = from("https://chat.example").with_cookie("/v1/auth/refresh", &user.refresh).await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://chat.example");
    assert_eq!(answer.header("access-control-allow-credentials"), "true");
    let next = answer.cookie();
    answer.ok(200);
    from(&world.urls[0]).with_cookie("/v1/auth/logout", &next).await.ok(204);
    let preflight = from("https://chat.example").with("access-control-request-method", "PATCH");
    let answer = preflight.send(Method::OPTIONS, "/v1/me", None).await;
    assert!(answer.header("access-control-allow-methods").contains("PATCH"), "{answer:?}");
    // A method like the others, unless it is the preflight of an allowed origin for a route that exists.
    let method = "access-control-request-method";
    for (client, path, status) in [
        (preflight.with(method, "PATCH"), "/v1/nothing", 404),
        (world.client(0), "/v1/nothing", 404),
        (world.client(0), "/v1/chats", 405),
        (from("https://chat.example"), "/v1/chats", 405),
        (world.client(0).with(method, "POST"), "/v1/chats", 405),
        (from("https://evil.example").with(method, "POST"), "/v1/chats", 405),
    ] {
        let answer = client.send(Method::OPTIONS, path, None).await;
        assert_eq!(answer.status, status, "{path} {answer:?}");
        if status == 405 {
            let allow = answer.header("allow");
            assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
        }
    }
    let upgrade = from("https://evil.example").with_token(&user.token);
    upgrade.get("/v1/ws").await.problem(403, "auth.mismatch");
}

#[tokio::test]
async fn the_published_key_is_the_one_in_the_tokens() {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let world = World::start("jwks", 1, &[]).await;
    let user = world.user("ada").await;
    let keys = Client::new(&world.urls[0]).get("/.well-known/jwks.json").await.ok(200);
    let header = URL_SAFE_NO_PAD.decode(user.token.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!((&header["alg"], &header["kid"]), (&json!("ES256"), &keys["keys"][0]["kid"]));
    let key = serde_json::from_value(keys["keys"][0].clone()).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(&key).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&["mini-telegram"]);
    let claims = jsonwebtoken::decode::<Value>(&user.token, &key, &validation).unwrap().claims;
    assert_eq!(claims["sub"], user.id.to_string());
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 900);
    assert!(claims["did"].is_string() && claims["iss"] == "mini-telegram");
    assert!(keys["keys"][0].get("d").is_none());
}

#[tokio::test]
async fn an_operator_provisions_accounts() {
    let world = World::start("provision", 1, &[]).await;
    let run = |args: &[&str]| xtask::testing::off_runtime(|| world.isolated.output("gateway", args).unwrap());
    let output = run(&["provision", "--users", "3", "--prefix", "bench", "--ttl-s", "60"]);
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    for line in &lines {
        let client = world.client(0).with_token(line["accessToken"].as_str().unwrap());
        let me = client.get("/v1/me").await.ok(200);
        assert_eq!(me["id"], line["userId"]);
        assert!(me["displayName"].as_str().unwrap().starts_with("bench"));
        // No password opens it.
        let login = json!({ "email": me["email"], "password": "" });
        world.client(0).post("/v1/auth/login", login).await.problem(401, "auth.invalid_credentials");
    }
    assert!(!run(&["provision", "--users", "1", "--prefix", "a b"]).status.success());
}
