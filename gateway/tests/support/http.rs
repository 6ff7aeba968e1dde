//! What the HTTP tests share: gateways and a projector in a corner of the suite's servers, and a client.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use xtask::{
    service::Service,
    testing::{Isolated, off_runtime},
};

/// Cheap hashes, and no limits: what most tests want.
pub const PLAIN: &[(&str, &str)] = &[
    ("MT_BCRYPT_COST", "4"),
    ("MT_BCRYPT_QUEUE", "1000"),
    ("MT_LIMIT_AUTH_PER_MIN", "0"),
    ("MT_LIMIT_LOGIN_FAILURES_PER_MIN", "0"),
    ("MT_LIMIT_CONNECTS_PER_MIN", "0"),
    ("MT_LIMIT_LOOKUPS_PER_MIN", "0"),
    ("MT_LIMIT_LOOKUPS_PER_ADDRESS_PER_MIN", "0"),
    ("MT_LIMIT_HTTP_COMMANDS_PER_S", "0"),
    ("MT_LIMIT_MEMBER_ROWS_PER_MIN", "0"),
    ("MT_LIMIT_READS_PER_S", "0"),
    ("MT_LOG", "debug"),
];

/// Patience with a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that one test runs.
pub struct World {
    pub gateways: Vec<Service>,
    pub urls: Vec<String>,
    pub projector: Option<Service>,
    pub isolated: Isolated,
}

impl World {
    /// Gateways with these settings on top of [`PLAIN`], and a projector.
    pub async fn start(name: &str, gateways: usize, env: &[(&str, &str)]) -> Self {
        Self::start_on(Isolated::new, name, gateways, env).await
    }

    pub async fn start_on(
        isolated: impl FnOnce(&str) -> anyhow::Result<Isolated> + Send,
        name: &str,
        gateways: usize,
        env: &[(&str, &str)],
    ) -> Self {
        let world = off_runtime(|| {
            let isolated = isolated(name).unwrap();
            isolated.set_up().unwrap();
            let mut settings = PLAIN.to_vec();
            settings.retain(|(name, _)| !env.iter().any(|(other, _)| other == name));
            settings.extend_from_slice(env);
            let (mut services, mut urls) = (Vec::new(), Vec::new());
            for n in 0..gateways {
                let (service, addr) = isolated.spawn("gateway", &format!("gateway-{n}"), &settings).unwrap();
                services.push(service);
                urls.push(url_of(addr));
            }
            let (projector, _) = isolated.spawn("projector", "projector", env).unwrap();
            Self { gateways: services, urls, projector: Some(projector), isolated }
        });
        for index in 0..gateways {
            let client = world.client(index);
            until("the gateway is ready", async || client.get("/readyz").await.status == 200).await;
        }
        world
    }

    /// A client of one of the gateways.
    pub fn client(&self, gateway: usize) -> Client {
        Client::new(&self.urls[gateway])
    }

    /// A new user, on the first gateway.
    pub async fn user(&self, name: &str) -> User {
        self.client(0).register(name).await
    }

    /// What all services have logged.
    pub fn logs(&self) -> String {
        self.gateways.iter().chain(&self.projector).map(|service| service.log().unwrap()).collect()
    }
}

fn url_of(addr: SocketAddr) -> String {
    format!("http://{addr}")
}

/// Waits until the condition holds.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    /// Asserts the status. The body.
    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// Asserts that it is a complete problem with this code.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!(body["code"], code, "{self:?}");
        assert_eq!(body["status"], status);
        assert!(body["type"].is_string() && body["title"].is_string(), "{body}");
        assert_eq!(body["traceId"].as_str().map(str::len), Some(32), "{body}");
        if status == 401 {
            self.header("www-authenticate");
        }
        if status == 429 || status == 503 {
            assert!(self.header("retry-after").parse::<u64>().unwrap() > 0);
        }
        body
    }

    /// The refresh token in the cookie that it sets.
    pub fn cookie(&self) -> String {
        let cookie = self.header("set-cookie");
        let value = cookie.strip_prefix("refreshToken=").unwrap().split(';').next().unwrap();
        value.to_owned()
    }
}

/// A client of one gateway.
#[derive(Clone)]
pub struct Client {
    pub url: String,
    http: reqwest::Client,
    token: Option<String>,
    headers: Vec<(String, String)>,
}

impl Client {
    pub fn new(url: &str) -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
        Self { url: url.to_owned(), http, token: None, headers: Vec::new() }
    }

    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        assert_ne!(status, StatusCode::SWITCHING_PROTOCOLS);
        Answer { status: status.as_u16(), headers, text: response.text().await.unwrap() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body.to_string().into_bytes())).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, Some(body.to_string().into_bytes())).await
    }

    /// A POST without a body, with the refresh token's cookie.
    pub async fn with_cookie(&self, path: &str, token: &str) -> Answer {
        let client = self.clone().with("cookie", &format!("refreshToken={token}"));
        client.send(Method::POST, path, None).await
    }

    /// A new account with a made-up e-mail.
    pub async fn register(&self, name: &str) -> User {
        let email = format!("{name}-{}@example.org", uuid::Uuid::new_v4().simple());
        let body = json!({ "email": email, "password": PASSWORD, "displayName": name });
        let answer = self.post("/v1/auth/register", body).await;
        let refresh = answer.cookie();
        let body = answer.ok(201);
        let token = body["accessToken"].as_str().unwrap().to_owned();
        let client = Self { token: Some(token.clone()), ..self.clone() };
        User { id: body["user"]["id"].as_u64().unwrap(), email, token, refresh, client }
    }
}

pub const PASSWORD: &str = "correct horse battery staple";

/// A user who is logged in.
#[derive(Clone)]
pub struct User {
    pub id: u64,
    pub email: String,
    pub token: String,
    pub refresh: String,
    /// Of the gateway where they registered.
    pub client: Client,
}

impl User {
    /// The same user at another gateway.
    pub fn at(&self, world: &World, gateway: usize) -> Client {
        world.client(gateway).with_token(&self.token)
    }
}
