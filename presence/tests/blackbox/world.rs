//! An installation of its own for each test.

use std::net::SocketAddr;

use serde_json::{Value, json};
use uuid::Uuid;
use xtask::{
    service::Service,
    testing::{Isolated, Stack},
};

use crate::socket::Socket;

/// A flap is shorter than this, and whoever leaves is offline a little later.
pub(crate) const HYSTERESIS_MS: u64 = 1_500;

const FAST: &[(&str, &str)] = &[
    ("MT_PRESENCE_HYSTERESIS_MS", "1500"),
    ("MT_PRESENCE_REPORT_MS", "200"),
    ("MT_PRESENCE_SILENCE_MS", "2000"),
    ("MT_LIMIT_HTTP_COMMANDS_PER_S", "1000"),
    ("MT_LIMIT_HTTP_COMMANDS_BURST", "1000"),
    ("MT_LIMIT_CONNECTS_PER_MIN", "1000"),
];

/// A dead gateway is noticed as late as in production.
const PATIENT: &[(&str, &str)] = &[("MT_PRESENCE_HYSTERESIS_MS", "1500"), ("MT_PRESENCE_REPORT_MS", "200")];

pub(crate) struct World {
    pub(crate) isolated: Isolated,
    pub(crate) gateways: Vec<(Service, SocketAddr)>,
    pub(crate) presences: Vec<Service>,
    env: &'static [(&'static str, &'static str)],
    _projector: Service,
    http: reqwest::Client,
}

pub(crate) struct User {
    pub(crate) id: u64,
    token: String,
}

impl World {
    /// Gateways and presence instances with short intervals.
    pub(crate) fn new(name: &str, gateways: usize, presences: usize) -> Self {
        Self::with(name, gateways, presences, FAST)
    }

    pub(crate) fn with(
        name: &str,
        gateways: usize,
        presences: usize,
        env: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self::in_corner(Isolated::new(name).unwrap(), gateways, presences, env)
    }

    /// On servers that the test may break.
    pub(crate) fn on(stack: &Stack, name: &str) -> Self {
        Self::in_corner(Isolated::on(name, &stack.addresses()).unwrap(), 1, 1, PATIENT)
    }

    fn in_corner(
        isolated: Isolated,
        gateways: usize,
        presences: usize,
        env: &'static [(&'static str, &'static str)],
    ) -> Self {
        isolated.set_up().unwrap();
        let start =
            |program: &str, at: usize| isolated.spawn(program, &format!("{program}{at}"), env).unwrap();
        let (projector, _) = start("projector", 0);
        let gateways = (0..gateways).map(|at| start("gateway", at)).collect();
        let presences = (0..presences).map(|at| start("presence", at).0).collect();
        let http = reqwest::Client::new();
        Self { isolated, gateways, presences, env, _projector: projector, http }
    }

    pub(crate) fn users(&self, count: usize) -> Vec<User> {
        let output = self.isolated.run("gateway", &["provision", "--users", &count.to_string()]).unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let user = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            User {
                id: line["userId"].as_u64().unwrap(),
                token: line["accessToken"].as_str().unwrap().to_owned(),
            }
        };
        let users: Vec<User> = lines.lines().map(user).collect();
        assert_eq!(users.len(), count);
        users
    }

    pub(crate) async fn direct(&self, one: &User, other: &User) -> u64 {
        self.chat(one, json!({ "type": 1, "memberIds": [other.id] })).await
    }

    pub(crate) async fn group(&self, owner: &User, members: &[User]) -> u64 {
        let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
        self.chat(owner, json!({ "type": 2, "memberIds": ids, "title": "group" })).await
    }

    async fn chat(&self, owner: &User, body: Value) -> u64 {
        let request = self.http.post(self.url("/v1/chats")).bearer_auth(&owner.token).json(&body);
        let response = request.send().await.unwrap();
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert!(status.is_success(), "{status}: {body}");
        body["id"].as_u64().unwrap()
    }

    /// Puts a member out of a group.
    pub(crate) async fn remove(&self, owner: &User, chat: u64, member: &User) {
        let url = self.url(&format!("/v1/chats/{chat}/members/{}", member.id));
        let response = self.http.delete(url).bearer_auth(&owner.token).send().await.unwrap();
        assert_eq!(response.status(), 204);
    }

    /// The chat in the user's list.
    pub(crate) async fn listed(&self, user: &User, chat: u64) -> Value {
        let request = self.http.get(self.url("/v1/chats")).bearer_auth(&user.token);
        let body: Value = request.send().await.unwrap().json().await.unwrap();
        let chats = body["chats"].as_array().unwrap_or_else(|| panic!("{body}"));
        chats.iter().find(|listed| listed["id"] == chat).unwrap_or_else(|| panic!("{body}")).clone()
    }

    fn url(&self, path: &str) -> String {
        let live = self.gateways.last().unwrap();
        format!("http://{}{path}", live.1)
    }

    pub(crate) async fn connect(&self, user: &User) -> Socket {
        self.connect_to(0, user).await
    }

    pub(crate) async fn connect_to(&self, gateway: usize, user: &User) -> Socket {
        Socket::open(&format!("ws://{}/v1/ws?token={}&device=web", self.gateways[gateway].1, user.token))
            .await
    }

    pub(crate) fn add_presence(&mut self) {
        let label = format!("presence{}", self.presences.len());
        self.presences.push(self.isolated.spawn("presence", &label, self.env).unwrap().0);
    }
}

impl Socket {
    /// Sends a message and returns its seq.
    pub(crate) async fn say(&mut self, chat: u64, body: &str) -> u64 {
        let uuid = Uuid::now_v7().to_string();
        self.send(json!({ "type": "SendMessage", "uuid": uuid, "chatId": chat, "body": body })).await;
        let ack = self.wait("Ack", |frame| frame["uuid"] == uuid && frame["type"] != "Message").await;
        assert_eq!(ack["type"], "Ack", "{ack}");
        ack["seq"].as_u64().unwrap()
    }

    pub(crate) async fn read(&mut self, chat: u64, seq: u64) {
        self.send(json!({ "type": "Read", "chatId": chat, "seq": seq })).await;
    }

    /// Waits for a receipt of the user's in the chat that is at least this far.
    pub(crate) async fn receipt(&mut self, chat: u64, user: u64, read: u64, delivered: u64) -> Value {
        let fits = |receipt: &Value| {
            receipt["userId"] == user
                && receipt["readSeq"].as_u64().unwrap() >= read
                && receipt["deliveredSeq"].as_u64().unwrap() >= delivered
        };
        let frame = self.wait("Receipts", |frame| {
            let of_chat = frame["type"] == "Receipts" && frame["chatId"] == chat;
            of_chat && frame["receipts"].as_array().unwrap().iter().any(fits)
        });
        let frame = frame.await;
        frame["receipts"].as_array().unwrap().iter().find(|receipt| fits(receipt)).unwrap().clone()
    }
}
