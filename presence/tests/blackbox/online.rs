//! Who is told that somebody came, went, or stepped away, and when.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::{HYSTERESIS_MS, World};

#[tokio::test(flavor = "multi_thread")]
async fn partners_learn_of_coming_stepping_away_and_leaving() {
    let world = World::new("partners", 2, 1);
    let users = world.users(3);
    let [anna, ben, eve] = &users[..] else { unreachable!() };
    world.direct(anna, ben).await;
    let mut anna_web = world.connect_to(0, anna).await;
    let mut eve_web = world.connect_to(0, eve).await;

    let mut ben_web = world.connect_to(1, ben).await;
    assert_eq!(anna_web.presence_of(ben.id).await["state"], "online");
    assert_eq!(ben_web.presence_of(anna.id).await["state"], "online", "she was there before");

    ben_web.send(json!({ "type": "SetPresence", "state": "away" })).await;
    assert_eq!(anna_web.presence_of(ben.id).await["state"], "away");
    ben_web.send(json!({ "type": "SetPresence", "state": "online" })).await;
    assert_eq!(anna_web.presence_of(ben.id).await["state"], "online");

    let (left, left_ts) = (Instant::now(), std::time::SystemTime::now());
    ben_web.cut();
    let offline = anna_web.presence_of(ben.id).await;
    assert_eq!(offline["state"], "offline");
    assert!(left.elapsed() >= Duration::from_millis(HYSTERESIS_MS), "{:?}", left.elapsed());
    let left_ms = left_ts.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let seen_ms = offline["lastSeenTs"].as_u64().unwrap();
    assert!(seen_ms.abs_diff(left_ms) < HYSTERESIS_MS, "last seen {seen_ms}, left {left_ms}");
    // Offline ones are not in a snapshot, and strangers are told nothing.
    let mut anna_phone = world.connect_to(1, anna).await;
    assert!(
        anna_phone.drain(Duration::from_millis(700)).await.iter().all(|frame| frame["type"] != "Presence")
    );
    assert!(eve_web.drain(Duration::from_millis(10)).await.iter().all(|frame| frame["type"] != "Presence"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flap_is_not_announced() {
    let world = World::new("flaps", 1, 2);
    let users = world.users(2);
    let [anna, ben] = &users[..] else { unreachable!() };
    world.direct(anna, ben).await;
    let mut anna_web = world.connect(anna).await;
    let ben_web = world.connect(ben).await;
    anna_web.until(ben.id, "online").await;
    ben_web.cut();
    tokio::time::sleep(Duration::from_millis(HYSTERESIS_MS / 3)).await;
    let _ben_web = world.connect(ben).await;
    let frames = anna_web.drain(Duration::from_millis(2 * HYSTERESIS_MS)).await;
    assert!(frames.iter().all(|frame| frame["type"] != "Presence"), "{frames:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_is_for_those_who_share_a_chat_and_bounded() {
    let world = World::new("watching", 2, 1);
    let users = world.users(4);
    let [anna, ben, cleo, eve] = &users[..] else { unreachable!() };
    world.group(anna, &users[1..3]).await;
    let mut anna_web = world.connect(anna).await;
    let _ben_web = world.connect_to(1, ben).await;
    let _eve_web = world.connect_to(1, eve).await;
    tokio::time::sleep(Duration::from_millis(HYSTERESIS_MS / 2)).await;
    assert!(
        anna_web.drain(Duration::ZERO).await.iter().all(|frame| frame["type"] != "Presence"),
        "only a group"
    );

    anna_web.send(json!({ "type": "WatchPresence", "userIds": [ben.id, cleo.id, eve.id] })).await;
    assert_eq!(anna_web.presence_of(ben.id).await["state"], "online");
    let cleo_web = world.connect_to(0, cleo).await;
    assert_eq!(anna_web.presence_of(cleo.id).await["state"], "online");

    let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
    let many: Vec<u64> = (1..=501).collect();
    anna_web.send(json!({ "type": "WatchPresence", "userIds": many, "uuid": uuid })).await;
    let error = anna_web.wait("Error", |frame| frame["type"] == "Error").await;
    assert_eq!((error["code"].as_str().unwrap(), error["uuid"].as_str().unwrap()), ("limit.exceeded", uuid));

    cleo_web.cut();
    assert_eq!(anna_web.presence_of(cleo.id).await["state"], "offline", "the refused set replaced nothing");
    anna_web.send(json!({ "type": "WatchPresence", "userIds": [] })).await;
    anna_web.round_trip().await;
    let _cleo_web = world.connect_to(0, cleo).await;
    let frames = anna_web.drain(Duration::from_millis(HYSTERESIS_MS)).await;
    let heard = |user: u64| frames.iter().any(|frame| frame["type"] == "Presence" && frame["userId"] == user);
    assert!(!heard(cleo.id), "no more watched");
    assert!(!heard(eve.id), "a stranger");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_the_last_shared_chat() {
    let world = World::new("last_chat", 2, 1);
    let users = world.users(2);
    let [alice, bob] = &users[..] else { unreachable!() };
    let first = world.group(alice, &users[1..]).await;
    let second = world.group(alice, &users[1..]).await;
    let mut bob_web = world.connect_to(1, bob).await;
    let mut alice_web = world.connect_to(0, alice).await;
    bob_web.send(json!({ "type": "WatchPresence", "userIds": [alice.id] })).await;
    bob_web.until(alice.id, "online").await;

    // Whichever of the two chats it is that they share.
    world.remove(alice, first, bob).await;
    alice_web.send(json!({ "type": "SetPresence", "state": "away" })).await;
    bob_web.until(alice.id, "away").await;
    world.remove(alice, second, bob).await;
    let gone = |frame: &serde_json::Value| {
        frame["kind"] == "memberLeft" && frame["chatId"] == second && frame["data"]["userId"] == bob.id
    };
    bob_web.wait("the removal", gone).await;
    bob_web.drain(Duration::ZERO).await;

    for chat in [first, second] {
        alice_web.send(json!({ "type": "Typing", "chatId": chat })).await;
        alice_web.send(json!({ "type": "Read", "chatId": chat, "seq": 1 })).await;
    }
    alice_web.send(json!({ "type": "SetPresence", "state": "online" })).await;
    alice_web.round_trip().await;
    alice_web.cut();
    let mut heard = bob_web.drain(Duration::from_millis(2 * HYSTERESIS_MS)).await;
    let _alice_web = world.connect_to(0, alice).await;
    let mut bob_phone = world.connect_to(1, bob).await;
    bob_phone.send(json!({ "type": "WatchPresence", "userIds": [alice.id] })).await;
    heard.extend(bob_web.drain(Duration::from_millis(HYSTERESIS_MS)).await);
    heard.extend(bob_phone.drain(Duration::from_millis(HYSTERESIS_MS / 2)).await);
    let tells = |frame: &&serde_json::Value| {
        ["Presence", "Typing", "Receipts"].iter().any(|kind| frame["type"] == *kind)
    };
    assert_eq!(heard.iter().find(tells), None);
}
