//! "Is typing": to whom, and how often.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn typing_reaches_the_others_once_in_three_seconds() {
    let world = World::new("typing", 2, 0);
    let users = world.users(3);
    let [anna, ben, eve] = &users[..] else { unreachable!() };
    let chat = world.direct(anna, ben).await;
    let mut anna_web = world.connect_to(0, anna).await;
    let mut anna_phone = world.connect_to(1, anna).await;
    let mut ben_web = world.connect_to(1, ben).await;
    let mut eve_web = world.connect_to(0, eve).await;

    let typing = json!({ "type": "Typing", "chatId": chat });
    let start = Instant::now();
    anna_web.send(typing.clone()).await;
    let frame = ben_web.wait("Typing", |frame| frame["type"] == "Typing").await;
    assert_eq!(frame, json!({ "type": "Typing", "chatId": chat, "userId": anna.id, "ttlMs": 6_000 }));
    // Keep typing until the second one arrives: not before three seconds have passed.
    loop {
        anna_web.send(typing.clone()).await;
        let frames = ben_web.drain(Duration::from_millis(200)).await;
        if frames.iter().any(|frame| frame["type"] == "Typing") {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert!(start.elapsed() >= Duration::from_millis(2_900), "{:?}", start.elapsed());
    for own in [&mut anna_web, &mut anna_phone] {
        own.round_trip().await;
        assert!(own.drain(Duration::ZERO).await.iter().all(|frame| frame["type"] != "Typing"));
    }

    eve_web.send(typing).await;
    let error = eve_web.wait("Error", |frame| frame["type"] == "Error").await;
    assert_eq!(error["code"], "chat.not_found");
}
