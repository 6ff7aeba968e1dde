//! A whole product for one test: its servers or a corner of the suite's, its gateways, projectors and presence.
//!
//! Services listen on ports of their own choice and keep them over restarts. At the end of a passed test their
//! logs are searched: no token, ticket, password or body may be in them.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use loadtest::{
    client::{
        http::Api,
        socket::{Connect, Socket},
    },
    provision::{Account, provision, register},
    target,
};
use serde_json::Value;
use xtask::{
    service::Service,
    testing::{self, Isolated, Stack},
};

use super::{
    proxy::Proxy,
    wait::{secs, until},
};

/// Dev builds on a busy machine.
const READY: Duration = secs(40);
const TOKEN_TTL_S: u64 = 3_600;

/// What the tests change for all services: they are about promises, not about limits, unless they say so.
const DEFAULTS: [(&str, &str); 16] = [
    ("MT_LIMIT_AUTH_PER_MIN", "0"),
    ("MT_LIMIT_LOGIN_FAILURES_PER_MIN", "0"),
    ("MT_LIMIT_CONNECTS_PER_MIN", "0"),
    ("MT_LIMIT_RESUMES_PER_MIN", "0"),
    ("MT_LIMIT_LOOKUPS_PER_MIN", "0"),
    ("MT_LIMIT_LOOKUPS_PER_ADDRESS_PER_MIN", "0"),
    ("MT_LIMIT_HTTP_COMMANDS_PER_S", "0"),
    ("MT_LIMIT_MEMBER_ROWS_PER_MIN", "0"),
    ("MT_LIMIT_READS_PER_S", "0"),
    ("MT_COMMANDS_PER_S", "1000"),
    ("MT_COMMANDS_BURST", "2000"),
    ("MT_BCRYPT_COST", "4"),
    ("MT_BCRYPT_QUEUE", "256"),
    ("MT_DRAIN_MS", "2000"),
    ("MT_LOG", "info"),
    ("RUST_BACKTRACE", "1"),
];

pub(crate) struct Build {
    name: String,
    gateways: usize,
    projectors: usize,
    presence: bool,
    private: bool,
    env: BTreeMap<String, String>,
}

pub(crate) struct Cluster {
    pub(crate) gateways: Vec<Service>,
    pub(crate) projectors: Vec<Service>,
    pub(crate) presence: Option<Service>,
    pub(crate) urls: Arc<[String]>,
    env: BTreeMap<String, String>,
    secrets: Vec<String>,
    isolated: Isolated,
    stack: Option<Stack>,
}

impl Build {
    pub(crate) fn new(name: &str) -> Self {
        let env = DEFAULTS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { name: name.to_owned(), gateways: 1, projectors: 1, presence: false, private: false, env }
    }

    pub(crate) fn gateways(mut self, gateways: usize) -> Self {
        self.gateways = gateways;
        self
    }

    pub(crate) fn projectors(mut self, projectors: usize) -> Self {
        self.projectors = projectors;
        self
    }

    pub(crate) fn presence(mut self) -> Self {
        self.presence = true;
        self
    }

    /// Servers that the test may stop and kill.
    pub(crate) fn private(mut self) -> Self {
        self.private = true;
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.insert(name.to_owned(), value.to_string());
        self
    }

    pub(crate) async fn start(self) -> Cluster {
        let stack = self.private.then(|| Stack::private(&self.name).unwrap());
        let isolated = match &stack {
            Some(stack) => Isolated::on(&self.name, &stack.addresses()),
            None => Isolated::new(&self.name),
        }
        .unwrap();
        let mut env: BTreeMap<String, String> = isolated.env().into_iter().collect();
        env.extend(self.env);
        let mut cluster = Cluster {
            gateways: Vec::new(),
            projectors: Vec::new(),
            presence: None,
            urls: Arc::new([]),
            env,
            secrets: Vec::new(),
            isolated,
            stack,
        };
        cluster.apply_streams(&[]);
        cluster.isolated.run("gateway", &["keys"]).unwrap();
        cluster.start_services(self.gateways, self.projectors, self.presence).await;
        cluster
    }
}

impl Cluster {
    /// A cluster whose first gateway reaches NATS only through the proxy, and a chat of two.
    pub(crate) async fn behind_a_proxy(name: &str) -> (Self, Proxy, Vec<Account>, u64) {
        let mut cluster = Build::new(name).gateways(0).private().start().await;
        let address = cluster.env("MT_NATS_URL").trim_start_matches("nats://").to_owned();
        let proxy = Proxy::start(&address).await;
        cluster.add_gateway(&[("MT_NATS_URL", &format!("nats://{}", proxy.address()))]).await;
        cluster.add_gateway(&[]).await;
        let accounts = cluster.accounts(2).await;
        let chat = cluster.group(&[&accounts[0], &accounts[1]]).await;
        (cluster, proxy, accounts, chat)
    }

    /// The settings, and these on top of them, decide the stream's limits, so the corner's own `set_up` will not do.
    pub(crate) fn apply_streams(&self, env: &[(&str, &str)]) {
        let status = std::process::Command::new(testing::binary("streams").unwrap())
            .arg("apply")
            .envs(&self.env)
            .envs(env.iter().copied())
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "streams apply: {status}");
    }

    async fn start_services(&mut self, gateways: usize, projectors: usize, presence: bool) {
        for n in 0..projectors {
            let (service, _) = self.spawn("projector", &format!("projector-{n}"), &[]);
            self.projectors.push(service);
        }
        if presence {
            self.presence = Some(self.spawn("presence", "presence", &[]).0);
        }
        for _ in 0..gateways {
            self.add_gateway(&[]).await;
        }
    }

    fn spawn(&self, program: &str, label: &str, env: &[(&str, &str)]) -> (Service, String) {
        let mut settings: Vec<(&str, &str)> =
            self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        settings.extend(env);
        let (mut service, address) = self.isolated.spawn(program, label, &settings).unwrap();
        // After a restart it must be found where clients look for it.
        for name in ["MT_HTTP_ADDR", "MT_PROJECTOR_ADDR", "MT_PRESENCE_ADDR"] {
            service.set_env(name, &address.to_string());
        }
        (service, format!("http://{address}"))
    }

    /// One gateway more, with settings of its own.
    pub(crate) async fn add_gateway(&mut self, env: &[(&str, &str)]) -> usize {
        let n = self.gateways.len();
        let (service, url) = self.spawn("gateway", &format!("gateway-{n}"), env);
        self.gateways.push(service);
        self.urls = self.urls.iter().cloned().chain([url]).collect();
        self.wait_ready(n).await;
        n
    }

    /// Waits until a gateway says that it is ready.
    pub(crate) async fn wait_ready(&self, gateway: usize) {
        let api = Api::new(&self.urls[gateway]).unwrap();
        until("gateway ready", READY, async || api.get("/readyz").await.is_ok_and(|r| r.status == 200)).await;
    }

    /// Starts a gateway again where it was.
    pub(crate) async fn restart_gateway(&mut self, gateway: usize) {
        let service = &mut self.gateways[gateway];
        service.restart().unwrap();
        service.wait_listening(READY).unwrap();
        self.wait_ready(gateway).await;
    }

    pub(crate) fn stack(&mut self) -> &mut Stack {
        self.stack.as_mut().expect("a private stack")
    }

    pub(crate) fn env(&self, name: &str) -> &str {
        &self.env[name]
    }

    /// A folder of this test.
    pub(crate) fn dir(&self) -> PathBuf {
        self.isolated.dir().to_owned()
    }

    /// Something that must not be in any log.
    pub(crate) fn secret(&mut self, secret: &str) {
        self.secrets.push(secret.to_owned());
    }

    /// Accounts without passwords, by the operator's command.
    pub(crate) async fn accounts(&mut self, users: usize) -> Vec<Account> {
        self.accounts_for(users, TOKEN_TTL_S).await
    }

    /// The same with tokens that end early.
    pub(crate) async fn accounts_for(&mut self, users: usize, ttl_s: u64) -> Vec<Account> {
        let prefix = format!("e2e{}", self.secrets.len());
        let gateway = testing::binary("gateway").unwrap();
        let accounts = provision(&gateway, &self.env, users, &prefix, ttl_s).await.unwrap();
        self.secrets.extend(accounts.iter().map(|account| account.access_token.clone()));
        accounts
    }

    /// An account that registered over HTTP, with its refresh cookie.
    pub(crate) async fn registered(&mut self, name: &str) -> Registered {
        let (email, password) = (format!("{name}@example.org"), format!("correct horse {name}"));
        let account = register(&self.anonymous(0), &email, &password).await.unwrap();
        let login = serde_json::json!({"email": email, "password": password});
        let reply = self.anonymous(0).post("/v1/auth/login", &login).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text);
        let cookie = reply.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
        let access_token = reply.json()["accessToken"].as_str().unwrap().to_owned();
        self.secrets.extend([password, cookie.clone(), access_token.clone(), account.access_token]);
        Registered { account: Account { user_id: account.user_id, access_token }, cookie }
    }

    pub(crate) fn anonymous(&self, gateway: usize) -> Api {
        Api::new(&self.urls[gateway]).unwrap()
    }

    pub(crate) fn api(&self, gateway: usize, account: &Account) -> Api {
        self.anonymous(gateway).with_token(&account.access_token)
    }

    pub(crate) fn connect(&self, gateway: usize, account: &Account) -> Connect {
        Connect::new(&self.urls[gateway], &account.access_token).with("device", "web")
    }

    /// A session that is live, and its first cursor.
    pub(crate) async fn live(&self, gateway: usize, account: &Account) -> (Socket, String) {
        open_live(&self.connect(gateway, account)).await
    }

    /// A group of these, created by the first.
    pub(crate) async fn group(&self, accounts: &[&Account]) -> u64 {
        let ids: Vec<u64> = accounts.iter().map(|account| account.user_id).collect();
        self.api(0, accounts[0]).create_group(&ids, "a group").await.unwrap()
    }

    /// What a scenario of the library needs.
    pub(crate) fn target(&self) -> target::Target {
        let service = |(url, service): (&String, &Service)| target::Service {
            url: url.clone(),
            pid: Some(service.pid()),
        };
        target::Target {
            gateways: self.urls.iter().zip(&self.gateways).map(service).collect(),
            nats_url: Some(self.isolated.nats_url().to_owned()),
            env: self.env.clone(),
            ..target::Target::default()
        }
    }

    /// Everything that the services logged.
    pub(crate) fn logs(&self) -> String {
        let mut logs = String::new();
        for entry in fs::read_dir(self.isolated.dir()).unwrap().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                logs += &fs::read_to_string(entry.path()).unwrap_or_default();
            }
        }
        logs
    }

    fn check_logs(&self) {
        let logs = self.logs();
        for line in logs.lines() {
            let leaked = self.secrets.iter().find(|secret| line.contains(secret.as_str()));
            assert!(leaked.is_none(), "a secret in the log: {line}");
            assert!(!line.contains("panicked at"), "a panic: {line}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for service in self.gateways.iter().chain(&self.projectors).chain(&self.presence) {
                eprintln!("--- {}\n{}", service.name(), service.log_tail());
            }
        } else {
            self.check_logs();
        }
    }
}

/// An account with what logs it in again.
pub(crate) struct Registered {
    pub(crate) account: Account,
    /// `refreshToken=...`
    pub(crate) cookie: String,
}

/// Long enough for a dev build on a busy machine.
pub(crate) const SOON: Duration = secs(10);

/// Opens a session and reads until it is live.
pub(crate) async fn open_live(connect: &Connect) -> (Socket, String) {
    let mut socket = connect.open().await.unwrap();
    let live = socket.expect("Live", SOON).await.unwrap();
    let cursor = live["cursor"].as_str().expect("a cursor").to_owned();
    (socket, cursor)
}

/// A `SendMessage` with a fresh uuid.
pub(crate) fn send_frame(chat: u64, body: &str) -> (String, Value) {
    let uuid = uuid::Uuid::now_v7().to_string();
    let frame = serde_json::json!({"type": "SendMessage", "uuid": uuid, "chatId": chat, "body": body});
    (uuid, frame)
}

/// Sends and waits for the answer to this uuid, `Ack` or `Error`.
pub(crate) async fn ask(socket: &mut Socket, frame: &Value) -> Value {
    socket.say(frame).await.unwrap();
    let answer = tokio::time::timeout(SOON, answer(socket, &frame["uuid"], SOON * 2)).await;
    answer.unwrap_or_else(|_| {
        panic!("no answer to {}", frame.to_string().chars().take(200).collect::<String>())
    })
}

/// Waits for the answer to a uuid.
pub(crate) async fn answer(socket: &mut Socket, uuid: &Value, limit: Duration) -> Value {
    let answers = |reply: &Value| {
        matches!(reply["type"].as_str(), Some("Ack" | "Error" | "Page")) && reply["uuid"] == *uuid
    };
    socket.until(limit, answers).await.unwrap_or_else(|error| panic!("no answer to {uuid}: {error:#}"))
}

/// Sends a message that must be acked, and returns its sequence.
pub(crate) async fn send(socket: &mut Socket, chat: u64, body: &str) -> u64 {
    let (_, frame) = send_frame(chat, body);
    let ack = ask(socket, &frame).await;
    assert_eq!(ack["type"], "Ack", "{ack}");
    ack["seq"].as_u64().unwrap()
}
