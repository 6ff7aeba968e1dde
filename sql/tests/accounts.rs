//! Accounts, token families and claims against a real Postgres, races included.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

use std::collections::HashSet;

use shared::id::{ChatId, Seq, UserId};
use sql::{
    Db, SqlSettings,
    accounts::GUESSABLE_BELOW,
    chats::MOST_AHEAD,
    marks::Mark,
    migrations,
    tokens::{Lives, RevokedFamily, Rotation},
};
use uuid::Uuid;
use xtask::testing::Isolated;

fn settings(corner: &Isolated) -> SqlSettings {
    SqlSettings { postgres_url: corner.postgres_url(), postgres_pool: 8, postgres_timeout_ms: 5_000 }
}

fn open(name: &str) -> (Isolated, Db) {
    let corner = Isolated::new(name).expect("a corner");
    let db = Db::new(&settings(&corner), "tests").expect("a pool");
    (corner, db)
}

fn user(id: u64) -> UserId {
    UserId::new(id).unwrap()
}

fn chat(id: u64) -> ChatId {
    ChatId::new(id).unwrap()
}

/// An access token lives for 15 units of time.
fn lives(now_ms: u64, refresh_until_ms: u64) -> Lives {
    Lives { now_ms, access_until_ms: now_ms + 15, refresh_until_ms }
}

#[tokio::test]
async fn an_email_is_one_account() {
    let (_corner, db) = open("accounts");
    let id = db.create_user("a@x.example", "Ada", "hash", 7).await.unwrap().expect("free");
    assert_eq!(db.create_user("a@x.example", "Eve", "other", 8).await.unwrap(), None);
    let account = db.user_by_email("a@x.example").await.unwrap().expect("there");
    assert_eq!((account.user.id, account.password_hash.as_deref()), (id, Some("hash")));
    assert!(db.update_user(id, Some("Ada L."), None).await.unwrap());
    assert_eq!(db.user(id).await.unwrap().unwrap().display_name, "Ada L.");
    assert!(db.user_by_email("b@x.example").await.unwrap().is_none());
    let unknown = user(id.get() + 1_000);
    assert!(!db.update_user(unknown, Some("nobody"), None).await.unwrap());
    let profiles = db.users(&[unknown, id]).await.unwrap();
    assert_eq!(profiles.iter().map(|profile| profile.id).collect::<Vec<_>>(), [id]);
}

#[tokio::test]
async fn provisioned_users_have_a_device_and_no_password() {
    let (_corner, db) = open("provision");
    let made = db.provision_users("load", 7, "web", 1_000, 9_000).await.unwrap();
    assert_eq!(made.iter().map(|(user, _)| user).collect::<HashSet<_>>().len(), 7);
    let (user, did) = made[3];
    assert_eq!(db.families(user, 2_000).await.unwrap()[0].did, did);
    assert!(db.families(user, 9_000).await.unwrap().is_empty(), "expired");
    let email = db.user(user).await.unwrap().unwrap().email;
    assert!(db.user_by_email(&email).await.unwrap().unwrap().password_hash.is_none());
}

#[tokio::test]
async fn a_refresh_token_is_good_once() {
    let (_corner, db) = open("tokens");
    let user = db.create_user("t@x.example", "T", "hash", 1).await.unwrap().unwrap();
    let did = Uuid::now_v7();
    db.create_family(did, user, "web", b"one", lives(10, 100)).await.unwrap();
    let rotated = Rotation::Rotated { user, did, device: "web".to_owned() };
    assert_eq!(db.rotate(b"one", b"two", lives(20, 120)).await.unwrap(), rotated);
    let family = &db.families(user, 50).await.unwrap()[0];
    assert_eq!((family.created_ms, family.last_seen_ms), (10, 20));
    assert_eq!(db.rotate(b"none", b"x", lives(20, 120)).await.unwrap(), Rotation::Unknown);
    assert_eq!(db.rotate(b"two", b"x", lives(120, 220)).await.unwrap(), Rotation::Expired);
    assert!(db.family_of(b"two").await.unwrap().is_some(), "an expired token revokes nothing");
    // The last access token is from the exchange at 20.
    let revoked = RevokedFamily { did, user, access_until_ms: Some(35) };
    assert_eq!(db.rotate(b"one", b"x", lives(30, 130)).await.unwrap(), Rotation::Reused(revoked));
    assert!(db.family_of(b"two").await.unwrap().is_none(), "revoked");
    assert_eq!(db.rotate(b"two", b"x", lives(30, 130)).await.unwrap(), Rotation::Revoked);
    assert_eq!(db.revoked_since(30, 34).await.unwrap(), [revoked]);
    assert!(db.revoked_since(31, 34).await.unwrap().is_empty());
    assert!(db.revoked_since(30, 35).await.unwrap().is_empty(), "no access token is left");
    assert_eq!(db.revoke_family(user, did, 40).await.unwrap(), None, "it is revoked already");
}

#[tokio::test]
async fn families_that_ended_are_forgotten_with_their_tokens() {
    let (_corner, db) = open("forgotten");
    let user = db.create_user("f@x.example", "F", "hash", 1).await.unwrap().unwrap();
    for (device, expires_ms) in [("old", 100), ("older", 90), ("kept", 200)] {
        let did = Uuid::now_v7();
        db.create_family(did, user, device, device.as_bytes(), lives(10, expires_ms)).await.unwrap();
    }
    assert!(matches!(db.rotate(b"kept", b"next", lives(20, 200)).await.unwrap(), Rotation::Rotated { .. }));
    assert_eq!(db.forget_families(200, 1).await.unwrap(), 1, "no more than asked for");
    assert_eq!(db.forget_families(200, 10).await.unwrap(), 1);
    assert_eq!(db.forget_families(200, 10).await.unwrap(), 0);
    for hash in [b"old".as_slice(), b"older"] {
        assert_eq!(db.rotate(hash, b"x", lives(30, 130)).await.unwrap(), Rotation::Unknown);
    }
    assert!(matches!(db.rotate(b"next", b"last", lives(30, 200)).await.unwrap(), Rotation::Rotated { .. }));
}

#[tokio::test]
async fn of_racing_rotations_one_wins_and_the_family_dies() {
    let (_corner, db) = open("rotations");
    let user = db.create_user("r@x.example", "R", "hash", 1).await.unwrap().unwrap();
    for round in 0..20u8 {
        let did = Uuid::now_v7();
        let first = [round; 8];
        db.create_family(did, user, "web", &first, lives(10, 100)).await.unwrap();
        let rotations = (0..4u8).map(|racer| {
            let db = db.clone();
            tokio::spawn(async move { db.rotate(&first, &[round, racer], lives(20, 120)).await.unwrap() })
        });
        let mut won = 0;
        for rotation in rotations.collect::<Vec<_>>() {
            match rotation.await.unwrap() {
                Rotation::Rotated { .. } => won += 1,
                Rotation::Reused(_) | Rotation::Revoked => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(won, 1);
        assert!(db.family_of(&first).await.unwrap().is_none(), "revoked");
    }
}

#[tokio::test]
async fn racing_claims_get_one_chat() {
    let (_corner, db) = open("claims");
    let claims = (0..16).map(|racer| {
        let db = db.clone();
        let (one, other) = if racer % 2 == 0 { (1, 2) } else { (2, 1) };
        tokio::spawn(async move { db.claim_direct_pair(user(one), user(other)).await.unwrap() })
    });
    let mut chats = HashSet::new();
    for claim in claims.collect::<Vec<_>>() {
        chats.insert(claim.await.unwrap());
    }
    assert_eq!(chats.len(), 1);
    let key = Uuid::new_v4();
    let group = db.claim_group(user(1), key).await.unwrap();
    assert_eq!(db.claim_group(user(1), key).await.unwrap(), group);
    assert_ne!(db.claim_group(user(2), key).await.unwrap(), group);
}

#[tokio::test]
async fn ids_jump_above_what_the_log_knows() {
    let (_corner, db) = open("ids");
    let next_chat = async || db.claim_group(user(1), Uuid::new_v4()).await.unwrap();
    let first = next_chat().await;
    db.raise_chat_ids(chat(500)).await.unwrap();
    assert!(next_chat().await > chat(500).max(first));
    db.raise_chat_ids(chat(1)).await.unwrap();
    let last = next_chat().await;
    assert!(last > chat(501), "they never go back");
    // What no database has given for years to come is made up.
    for far in [MOST_AHEAD + 1_000, shared::id::MAX_ID] {
        db.raise_chat_ids(chat(far)).await.unwrap();
    }
    let next = next_chat().await;
    assert!(next > last && next < chat(1_000), "{next}");
    db.raise_chat_ids(chat(MOST_AHEAD)).await.unwrap();
    assert!(next_chat().await > chat(MOST_AHEAD));
}

#[tokio::test]
async fn ids_of_accounts_say_nothing_about_each_other() {
    let (_corner, db) = open("userids");
    let mut ids = Vec::new();
    for n in 0..50 {
        ids.push(db.create_user(&format!("{n}@x.example"), "X", "hash", 1).await.unwrap().unwrap().get());
    }
    ids.extend(db.provision_users("load", 50, "web", 1, 2).await.unwrap().iter().map(|(user, _)| user.get()));
    let sorted: std::collections::BTreeSet<u64> = ids.iter().copied().collect();
    assert_eq!(sorted.len(), 100);
    assert!(sorted.iter().zip(sorted.iter().skip(1)).all(|(one, next)| next - one > 1_000), "{sorted:?}");
    // Spread over all that an id can be.
    let upper = ids.iter().filter(|id| **id > shared::id::MAX_ID / 2).count();
    assert!((20..=80).contains(&upper), "{upper} of 100");
    assert!(sorted.iter().all(|id| *id >= GUESSABLE_BELOW));
}

#[tokio::test]
async fn who_shares_a_chat_is_acquainted() {
    let (corner, db) = open("acquainted");
    let (client, connection) =
        tokio_postgres::connect(&corner.postgres_url(), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    for (chat, member, left) in
        [(1, 1, None), (1, 2, None), (1, 3, Some(9_i64)), (2, 1, Some(9)), (2, 4, None)]
    {
        let insert = "INSERT INTO memberships (chat_id, user_id, from_seq, to_seq, joined_seq, joined_ts, role, own_seq)
                      VALUES ($1, $2, 1, $3, 1, 1, 0, 0)";
        client.execute(insert, &[&i64::from(chat), &i64::from(member), &left]).await.unwrap();
    }
    let others = [2, 3, 4, 5].map(user);
    assert_eq!(db.acquainted(user(1), &others).await.unwrap(), [user(2)]);
    assert!(db.acquainted(user(5), &others).await.unwrap().is_empty());
    drop(client);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn marks_only_move_forward() {
    let (_corner, db) = open("marks");
    let mark = |user_id, read, delivered| Mark {
        chat: chat(1),
        user: user(user_id),
        read: Seq(read),
        delivered: Seq(delivered),
    };
    let moved = db.raise_marks(&[mark(1, 5, 0), mark(1, 3, 9), mark(2, 0, 4)]).await.unwrap();
    assert_eq!(moved, [mark(1, 5, 9), mark(2, 0, 4)]);
    let moved = db.raise_marks(&[mark(1, 4, 9), mark(2, 7, 0)]).await.unwrap();
    assert_eq!(moved, [mark(2, 7, 7)], "what was read was delivered; what is not ahead is not told");
}

#[tokio::test]
async fn migrations_go_up_and_down_and_notice_changes() {
    let corner = Isolated::with_empty_database("migrations").expect("a corner");
    let url = corner.postgres_url();
    assert!(migrations::status(&url).await.unwrap().iter().all(|step| !step.applied));
    let (one, other) = tokio::join!(migrations::up(&url), migrations::up(&url));
    one.and(other).expect("two that migrate at once wait for each other");
    migrations::down(&url, 1).await.unwrap();
    let status = migrations::status(&url).await.unwrap();
    assert_eq!(status.iter().map(|step| step.applied).collect::<Vec<_>>()[..2], [true, false]);
    migrations::up(&url).await.unwrap();
    assert!(migrations::status(&url).await.unwrap().iter().all(|step| step.applied && !step.altered));
    migrations::down(&url, 0).await.unwrap();
    migrations::up(&url).await.unwrap();
}

#[tokio::test]
async fn a_database_that_does_not_answer_is_temporary() {
    let nowhere = SqlSettings {
        postgres_url: "postgres://postgres@127.0.0.1:1/none".to_owned(),
        postgres_pool: 1,
        postgres_timeout_ms: 500,
    };
    let db = Db::new(&nowhere, "tests").unwrap();
    assert!(db.ping().await.unwrap_err().is_temporary());
}

#[tokio::test]
async fn an_epoch_is_declared_once() {
    let (_corner, db) = open("epochs");
    let cut = shared::id::Position::default();
    let declared = (0..8).map(|_| {
        let db = db.clone();
        tokio::spawn(async move { db.declare_cut(0, 0, cut, 1).await.unwrap() })
    });
    let mut winners = 0;
    for declared in declared.collect::<Vec<_>>() {
        winners += usize::from(declared.await.unwrap() == Some(1));
    }
    assert_eq!(winners, 1);
    assert_eq!(db.cuts(0).await.unwrap().len(), 1);
    assert_eq!(db.checkpoint(0).await.unwrap().epoch, 1);
}
