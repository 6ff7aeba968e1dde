//! Groups: the rights of each role, the limit on members, and the view of new and former members.

use loadtest::{client::http::Reply, provision::Account};
use serde_json::{Value, json};

use crate::support::cluster::{Build, Cluster, SOON, ask, send, send_frame};

/// One caller's requests to one group.
struct Caller<'a> {
    cluster: &'a Cluster,
    gateway: usize,
    account: &'a Account,
    chat: u64,
}

impl Caller<'_> {
    fn members(&self) -> String {
        format!("/v1/chats/{}/members", self.chat)
    }

    async fn add(&self, users: &[&Account], role: &str) -> Reply {
        let ids: Vec<u64> = users.iter().map(|user| user.user_id).collect();
        let body = json!({"userIds": ids, "role": role});
        self.cluster.api(self.gateway, self.account).post(&self.members(), &body).await.unwrap()
    }

    async fn set_role(&self, user: &Account, role: &str) -> Reply {
        let path = format!("{}/{}", self.members(), user.user_id);
        self.cluster.api(self.gateway, self.account).patch(&path, &json!({"role": role})).await.unwrap()
    }

    async fn remove(&self, user: &Account) -> Reply {
        let path = format!("{}/{}", self.members(), user.user_id);
        self.cluster.api(self.gateway, self.account).delete(&path).await.unwrap()
    }

    async fn last_seq(&self) -> u64 {
        let path = format!("/v1/chats/{}", self.chat);
        let chat = self.cluster.api(self.gateway, self.account).get(&path).await.unwrap().json();
        chat["lastSeq"].as_u64().unwrap()
    }

    /// Every durable event of the group that the caller may see.
    async fn events(&self) -> Vec<Value> {
        let (mut socket, _) = self.cluster.live(self.gateway, self.account).await;
        let fetch = json!({"type": "Fetch", "uuid": uuid::Uuid::now_v7(), "chatId": self.chat,
            "after": 0, "limit": 200});
        let page = ask(&mut socket, &fetch).await;
        page["events"].as_array().unwrap_or_else(|| panic!("{page}")).clone()
    }
}

fn outcome(reply: &Reply) -> (u16, String) {
    (reply.status.as_u16(), reply.code())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_of_roles_holds_over_http() {
    let mut cluster = Build::new("role_table").gateways(2).start().await;
    let accounts = cluster.accounts(6).await;
    let [owner, admin, member, other, stranger, new] = &accounts[..] else { unreachable!() };
    let chat = cluster.group(&[owner, admin, member, other]).await;
    let by = |account, gateway| Caller { cluster: &cluster, gateway, account, chat };
    assert_eq!(by(owner, 0).set_role(admin, "admin").await.status, 200);
    let head = by(owner, 1).last_seq().await;

    let forbidden = refused(403, "chat.forbidden");
    let refusals = [
        // Who may promote and demote: owners alone.
        (by(member, 0).set_role(other, "admin").await, forbidden.clone()),
        (by(member, 1).set_role(member, "admin").await, forbidden.clone()),
        (by(admin, 1).set_role(member, "admin").await, forbidden.clone()),
        (by(admin, 0).set_role(admin, "owner").await, forbidden.clone()),
        (by(admin, 0).set_role(owner, "member").await, forbidden.clone()),
        // Who may add and remove: admins members, owners everybody.
        (by(member, 0).add(&[new], "member").await, forbidden.clone()),
        (by(admin, 1).add(&[new], "admin").await, forbidden.clone()),
        (by(admin, 1).add(&[new], "owner").await, forbidden.clone()),
        (by(member, 1).remove(other).await, forbidden.clone()),
        (by(admin, 0).remove(owner).await, forbidden),
        // Those who are not there, and those who may not know that it is.
        (by(owner, 1).set_role(stranger, "admin").await, refused(404, "member.not_found")),
        (by(owner, 0).remove(stranger).await, refused(404, "member.not_found")),
        (by(stranger, 0).set_role(member, "admin").await, refused(404, "chat.not_found")),
        (by(stranger, 1).add(&[new], "member").await, refused(404, "chat.not_found")),
        (by(stranger, 0).remove(member).await, refused(404, "chat.not_found")),
        (by(stranger, 1).remove(stranger).await, refused(404, "chat.not_found")),
        (by(owner, 0).set_role(member, "king").await, refused(422, "request.invalid")),
        (by(owner, 0).add(&[], "member").await, refused(422, "request.invalid")),
        // A group with others keeps an owner.
        (by(owner, 0).remove(owner).await, refused(409, "chat.last_owner")),
        (by(owner, 1).set_role(owner, "admin").await, refused(409, "chat.last_owner")),
    ];
    for (n, (reply, expected)) in refusals.iter().enumerate() {
        assert_eq!(outcome(reply), *expected, "{n}: {}", reply.text);
    }
    assert_eq!(by(owner, 1).last_seq().await, head, "a refusal appended something");

    // A transfer of ownership: the new owner first, then the old one steps down, and has no power any more.
    assert_eq!(by(owner, 0).set_role(member, "owner").await.status, 200);
    assert_eq!(by(owner, 1).set_role(owner, "member").await.status, 200);
    assert_eq!(outcome(&by(owner, 0).remove(other).await), refused(403, "chat.forbidden"));
    assert_eq!(by(member, 1).set_role(admin, "member").await.status, 200, "demotes");
    assert_eq!(outcome(&by(admin, 0).remove(other).await), refused(403, "chat.forbidden"));
    assert_eq!(by(member, 0).add(&[new], "admin").await.status, 200);
    assert_eq!(by(new, 1).remove(other).await.status, 204);
    // The last one may leave, owner or not.
    for leaver in [owner, admin, new, member] {
        assert_eq!(by(leaver, 0).remove(leaver).await.status, 204);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_one_event_and_nobody_is_added_twice() {
    let mut cluster = Build::new("batch_add").gateways(2).start().await;
    let accounts = cluster.accounts(6).await;
    let [owner, present, rest @ ..] = &accounts[..] else { unreachable!() };
    let chat = cluster.group(&[owner, present]).await;
    let by = Caller { cluster: &cluster, gateway: 0, account: owner, chat };
    let (mut socket, _) = cluster.live(1, present).await;

    let created = by.last_seq().await;
    for users in [vec![present], vec![&rest[0], present]] {
        let reply = by.add(&users, "member").await;
        assert_eq!(reply.status, 422, "{}", reply.text);
    }
    assert_eq!(by.last_seq().await, created, "a refusal appended something");

    // The same one twice in a list is one.
    let batch: Vec<&Account> = rest.iter().chain([&rest[0]]).collect();
    assert_eq!(by.add(&batch, "member").await.status, 200);
    let durable = |frame: &Value| matches!(frame["type"].as_str(), Some("Message" | "Event"));
    let joined = socket.until(SOON, durable).await.unwrap();
    assert_eq!((&joined["kind"], &joined["prev"]), (&json!("memberJoined"), &json!(created)), "{joined}");
    let members = joined["data"]["members"].as_array().unwrap();
    let ids: Vec<u64> = members.iter().map(|member| member["userId"].as_u64().unwrap()).collect();
    assert_eq!(ids, rest.iter().map(|account| account.user_id).collect::<Vec<_>>());
    assert!(members.iter().all(|member| member["role"] == "member"), "{joined}");
    assert_eq!(by.last_seq().await, joined["seq"].as_u64().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_and_lists_of_groups_have_their_limits() {
    let build = Build::new("limits").env("MT_GROUP_MEMBERS", 3).env("MT_GROUPS_PER_USER", 2);
    let mut cluster = build.start().await;
    let accounts = cluster.accounts(5).await;
    let [owner, one, two, three, busy] = &accounts[..] else { unreachable!() };
    let create = async |owner: &Account, key: &str, others: &[&Account]| {
        let ids: Vec<u64> = others.iter().map(|other| other.user_id).collect();
        let api = cluster.api(0, owner);
        let body = json!({"type": 2, "memberIds": ids, "title": "a group"});
        let request = api.request("POST".parse().unwrap(), "/v1/chats").header("idempotency-key", key);
        api.send(request.json(&body)).await.unwrap()
    };
    let key = || uuid::Uuid::now_v7().to_string();
    let too_many = create(owner, &key(), &[one, two, three]).await;
    assert_eq!(outcome(&too_many), refused(422, "limit.exceeded"));

    let chat = cluster.group(&[owner, one]).await;
    let by = Caller { cluster: &cluster, gateway: 0, account: owner, chat };
    let head = by.last_seq().await;
    assert_eq!(outcome(&by.add(&[two, three], "member").await), refused(409, "chat.full"));
    assert_eq!(by.last_seq().await, head);
    assert_eq!(by.add(&[two], "member").await.status, 200);
    assert_eq!(outcome(&by.add(&[three], "member").await), refused(409, "chat.full"));
    assert_eq!(by.remove(two).await.status, 204);

    // Direct chats do not count, groups do, also those that one was added to.
    let direct = json!({"type": 1, "memberIds": [one.user_id]});
    assert_eq!(cluster.api(0, busy).post("/v1/chats", &direct).await.unwrap().status, 201);
    let first = key();
    let made = create(busy, &first, &[]).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(create(busy, &key(), &[]).await.status, 201);
    assert_eq!(outcome(&create(busy, &key(), &[]).await), refused(422, "limit.exceeded"));
    assert_eq!(outcome(&create(one, &key(), &[busy]).await), refused(422, "limit.exceeded"));
    // Strangers are kept out of the last half of the places, and not told how many are left.
    assert_eq!(outcome(&create(two, &key(), &[busy]).await), refused(403, "member.refused"));
    assert_eq!(outcome(&by.add(&[busy], "member").await), refused(403, "member.refused"));
    // A retry of what was created before the limit was reached still finds it.
    let again = create(busy, &first, &[]).await;
    assert_eq!((again.status.as_u16(), &again.json()["id"]), (200, &made.json()["id"]), "{}", again.text);

    // Room again after leaving one.
    let left = Caller { chat: made.json()["id"].as_u64().unwrap(), account: busy, ..by };
    assert_eq!(left.remove(busy).await.status, 204);
    assert_eq!(create(busy, &key(), &[]).await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_members_see_all_or_only_what_came_after_them() {
    let mut cluster = Build::new("new_member").gateways(2).start().await;
    let accounts = cluster.accounts(2).await;
    let (owner, new) = (&accounts[0], &accounts[1]);
    for (history, sees_old) in [("all", true), ("join", false)] {
        let body = json!({"type": 2, "memberIds": [], "title": history, "history": history});
        let chat = cluster.api(0, owner).post("/v1/chats", &body).await.unwrap().json();
        let chat = chat["id"].as_u64().unwrap();
        let (mut owners, _) = cluster.live(0, owner).await;
        let (_, before) = cluster.live(1, new).await;
        let old = send(&mut owners, chat, "old").await;
        let by = |account, gateway| Caller { cluster: &cluster, gateway, account, chat };
        assert_eq!(by(owner, 0).add(&[new], "member").await.status, 200);
        let fresh = send(&mut owners, chat, "fresh").await;
        let old_too = |seqs: &[u64]| (seqs.contains(&old), seqs.contains(&fresh)) == (sees_old, true);

        let (listed, _) = cluster.api(1, new).history(chat).await.unwrap();
        let listed: Vec<u64> = listed.iter().map(|message| message.seq).collect();
        assert!(old_too(&listed), "{history}: {listed:?}");
        let fetched: Vec<u64> =
            by(new, 1).events().await.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert!(old_too(&fetched), "{history}: {fetched:?}");

        // A replay is what happened to the member: the join, and what came after it.
        let mut socket = cluster.connect(1, new).with("cursor", &before).open().await.unwrap();
        let of_chat = |frame: &Value| frame["chatId"] == chat && frame["seq"].is_u64();
        let joined = socket.until(SOON, of_chat).await.unwrap();
        assert_eq!(joined["kind"], "memberJoined", "{joined}");
        assert_eq!(socket.until(SOON, of_chat).await.unwrap()["seq"], fresh);
        let mut reply = send_frame(chat, "about that").1;
        reply["replyTo"] = json!(fresh);
        assert_eq!(ask(&mut socket, &reply).await["type"], "Ack");

        // Removed: nothing of it is left to them.
        assert_eq!(by(owner, 1).remove(new).await.status, 204);
        for gateway in [0, 1] {
            for path in ["", "/messages", "/members"] {
                let reply = cluster.api(gateway, new).get(&format!("/v1/chats/{chat}{path}")).await.unwrap();
                assert_eq!(outcome(&reply), refused(404, "chat.not_found"), "{path}");
            }
        }
        let fetch = json!({"type": "Fetch", "uuid": uuid::Uuid::now_v7(), "chatId": chat,
            "after": 0, "limit": 10});
        assert_eq!(ask(&mut socket, &fetch).await["code"], "chat.not_found");
        let chats = cluster.api(1, new).get("/v1/chats").await.unwrap().json();
        assert!(chats["chats"].as_array().unwrap().iter().all(|listed| listed["id"] != chat), "{chats}");
    }
}
