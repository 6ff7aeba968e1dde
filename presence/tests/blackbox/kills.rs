//! What clients see when a part of the installation dies.

use std::time::{Duration, Instant};

use fred::{
    interfaces::{ClientLike, KeysInterface},
    prelude::{Builder, Config},
};

use xtask::testing::{Stack, fresh_dir};

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_gateway_takes_its_users_offline_within_15_seconds() {
    // With the intervals of production.
    let env = &[("MT_LIMIT_CONNECTS_PER_MIN", "1000")];
    let mut world = World::with("dead_gateway", 2, 1, env);
    let users = world.users(3);
    let [anna, ben, cleo] = &users[..] else { unreachable!() };
    world.direct(anna, ben).await;
    world.direct(anna, cleo).await;
    let mut anna_web = world.connect_to(1, anna).await;
    let _ben_dies = world.connect_to(0, ben).await;
    let _cleo_dies = world.connect_to(0, cleo).await;
    let _cleo_lives = world.connect_to(1, cleo).await;
    anna_web.until(ben.id, "online").await;
    anna_web.until(cleo.id, "online").await;
    world.gateways[0].0.kill9().unwrap();
    let died = Instant::now();
    anna_web.until(ben.id, "offline").await;
    assert!(died.elapsed() >= Duration::from_secs(5), "he had no time to come back: {:?}", died.elapsed());
    assert!(died.elapsed() <= Duration::from_secs(15), "{:?}", died.elapsed());
    let frames = anna_web.drain(Duration::from_secs(2)).await;
    assert!(
        frames.iter().all(|frame| frame["type"] != "Presence"),
        "cleo is connected elsewhere: {frames:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_presence_instance_may_die_and_nobody_is_announced_twice() {
    let mut world = World::new("dead_presence", 1, 2);
    let users = world.users(2);
    let [anna, ben] = &users[..] else { unreachable!() };
    let chat = world.direct(anna, ben).await;
    let mut anna_web = world.connect(anna).await;
    for victim in 0..4 {
        let mut ben_web = world.connect(ben).await;
        assert_eq!(anna_web.presence_of(ben.id).await["state"], "online", "round {victim}");
        let seq = anna_web.say(chat, "hello").await;
        ben_web.wait("hello", |frame| frame["seq"] == seq).await;
        ben_web.read(chat, seq).await;
        world.presences[victim].kill9().unwrap();
        ben_web.cut();
        anna_web.receipt(chat, ben.id, seq, seq).await;
        assert_eq!(anna_web.presence_of(ben.id).await["state"], "offline", "round {victim}");
        let frames = anna_web.drain(Duration::from_millis(300)).await;
        assert!(frames.iter().all(|frame| frame["type"] != "Presence"), "announced twice: {frames:?}");
        world.add_presence();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_ends_cleanly_and_loses_no_receipt() {
    let mut world = World::new("sigterm", 1, 1);
    let users = world.users(2);
    let [anna, ben] = &users[..] else { unreachable!() };
    let chat = world.direct(anna, ben).await;
    let mut anna_web = world.connect(anna).await;
    let mut ben_web = world.connect(ben).await;
    let seq = anna_web.say(chat, "hello").await;
    ben_web.wait("hello", |frame| frame["seq"] == seq).await;
    world.presences[0].sigterm().unwrap();
    let status = world.presences[0].wait_exit(Duration::from_secs(10)).unwrap().expect("it ends");
    assert!(status.success(), "{status}");
    ben_web.read(chat, seq).await;
    ben_web.round_trip().await;
    world.add_presence();
    anna_web.receipt(chat, ben.id, seq, seq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_rebuilt_after_redis_lost_everything() {
    let world = World::new("redis_lost", 2, 1);
    let users = world.users(2);
    let [anna, ben] = &users[..] else { unreachable!() };
    world.direct(anna, ben).await;
    let mut anna_web = world.connect_to(0, anna).await;
    let ben_web = world.connect_to(1, ben).await;
    anna_web.until(ben.id, "online").await;

    let redis = Builder::from_config(Config::from_url(world.isolated.redis_url()).unwrap()).build().unwrap();
    redis.init().await.unwrap();
    let pattern = format!("{}*", world.isolated.redis_prefix());
    let keys: Vec<String> = redis.custom(fred::cmd!("KEYS"), vec![pattern]).await.unwrap();
    let deleted: u64 = redis.del(keys).await.unwrap();
    assert!(deleted > 0);

    // A new session gets the state once the snapshots have come.
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let mut anna_phone = world.connect_to(0, anna).await;
        let frames = anna_phone.drain(Duration::from_millis(300)).await;
        if frames.iter().any(|frame| frame["type"] == "Presence" && frame["state"] == "online") {
            break;
        }
        assert!(Instant::now() < end, "{frames:?}");
    }
    anna_web.drain(Duration::ZERO).await;
    ben_web.cut();
    let offline = anna_web.until(ben.id, "offline").await;
    assert_eq!(offline["userId"], ben.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_is_frozen_while_a_server_is_away_and_goes_on_after() {
    let mut stack = Stack::start(&fresh_dir("frozen").unwrap()).unwrap();
    let world = World::on(&stack, "frozen");
    let users = world.users(3);
    let [anna, ben, cleo] = &users[..] else { unreachable!() };
    let chat = world.direct(anna, ben).await;
    world.direct(anna, cleo).await;
    let mut anna_web = world.connect(anna).await;
    let mut ben_web = world.connect(ben).await;
    let mut cleo_web = world.connect(cleo).await;
    anna_web.until(ben.id, "online").await;
    anna_web.until(cleo.id, "online").await;

    // Longer than the silence of a dead gateway: nobody is declared offline for it.
    for server in [&mut stack.redis, &mut stack.nats] {
        server.sigstop().unwrap();
        let frozen = anna_web.drain(Duration::from_secs(8)).await;
        server.sigcont().unwrap();
        let thawed = anna_web.drain(Duration::from_secs(4)).await;
        let offline = |frame: &serde_json::Value| frame["type"] == "Presence" && frame["state"] == "offline";
        assert!(!frozen.iter().chain(&thawed).any(offline), "{frozen:?} {thawed:?}");
    }

    // Marks wait for Postgres.
    let seq = anna_web.say(chat, "hello").await;
    ben_web.wait("hello", |frame| frame["seq"] == seq).await;
    stack.postgres.kill9().unwrap();
    ben_web.read(chat, seq).await;
    ben_web.round_trip().await;
    stack.postgres.restart().unwrap();
    anna_web.receipt(chat, ben.id, seq, seq).await;

    // Without Redis's memory, too, whoever leaves is announced.
    stack.redis.kill9().unwrap();
    cleo_web.round_trip().await;
    cleo_web.cut();
    stack.redis.restart().unwrap();
    anna_web.until(cleo.id, "offline").await;
    ben_web.cut();
    anna_web.until(ben.id, "offline").await;
}
