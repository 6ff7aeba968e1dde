use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use shared::event::Event;
use streams::{AppendError, Appended, Appender, NatsSettings, append::Request};
use tokio::time::{Instant, sleep};

use crate::{P, append_many, chat, eventually, log, message, proxy::Proxy, server::Server, soon, within};

#[tokio::test]
async fn an_event_appended_twice_is_stored_once() {
    let server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    let event = message("hello");
    let first = appender.append(chat(1), &event, soon()).await.unwrap();
    let second = appender.append(chat(1), &event, soon()).await.unwrap();
    assert!(!first.duplicate);
    assert_eq!(second, Appended { seq: first.seq, duplicate: true, maybe_own: false });
    // The key holds the chat: elsewhere it is another event.
    assert!(!appender.append(chat(2), &event, soon()).await.unwrap().duplicate);

    let entries = log(&nats).await;
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].chat, Some(chat(1)));
    assert_eq!(Event::decode(&entries[0].payload).unwrap(), event);
    let read = nats.read_one(P, first.seq).await.unwrap().unwrap();
    assert_eq!(
        (read.id, read.appended_ns, &read.payload),
        (entries[0].id, entries[0].appended_ns, &entries[0].payload)
    );
    assert!(nats.read_one(P, entries[1].seq.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_command_is_stored_anew_once_after_an_event_that_counts_for_nothing() {
    let server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    let event = message("hello");
    let first = appender.append(chat(1), &event, soon()).await.unwrap();
    let anew = Request {
        chat: chat(1),
        event: &event,
        traceparent: None,
        first: false,
        anew_after: Some(first.seq),
    };
    let second = appender.send(anew, soon()).await.unwrap();
    assert_eq!(second, Appended { seq: first.seq.next(), duplicate: false, maybe_own: false });
    let again = appender.send(anew, soon()).await.unwrap();
    assert_eq!(again, Appended { seq: second.seq, duplicate: true, maybe_own: false });
}

#[tokio::test]
async fn a_trace_context_travels_and_can_not_break_the_headers() {
    let server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for traceparent in [parent, "evil\r\nNats-Rollup: all"] {
        let event = message("x");
        let request = Request {
            chat: chat(1),
            event: &event,
            traceparent: Some(traceparent),
            first: false,
            anew_after: None,
        };
        appender.send(request, soon()).await.unwrap();
    }
    let entries = log(&nats).await;
    assert_eq!(entries[0].traceparent.as_deref(), Some(parent));
    assert_eq!(entries[1].traceparent, None);
}

#[tokio::test]
async fn the_first_event_of_a_chat_is_unique_and_repeatable() {
    let server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    let event = message("created");
    let first = appender.append_first(chat(1), &event, soon()).await.unwrap();
    appender.append(chat(1), &message("second"), soon()).await.unwrap();
    let again = appender.append_first(chat(1), &event, soon()).await.unwrap();
    assert_eq!(again, Appended { seq: first.seq, duplicate: true, maybe_own: false });
    let other = appender.append_first(chat(1), &message("other"), soon()).await;
    assert!(matches!(other, Err(AppendError::Exists)), "{other:?}");
    assert_eq!(log(&nats).await.len(), 2);
}

#[tokio::test]
async fn a_full_log_refuses_and_forgets_nothing() {
    let server = Server::start();
    let nats = server.nats_with(NatsSettings { log_max_bytes: 64 * 1024, ..server.settings() }).await;
    let appender = Appender::start(&nats);
    let mut stored = 0;
    let refusal = loop {
        match appender.append(chat(1), &message("x".repeat(1000)), soon()).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal, AppendError::Full), "{refusal:?}");
    assert!(stored > 40, "{stored}");
    assert_eq!(log(&nats).await.len(), stored);
    assert!(nats.bounds(P).await.unwrap().is_nearly_full());
}

#[tokio::test]
async fn an_event_larger_than_the_server_takes_is_refused() {
    let server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    let large = appender.append(chat(1), &message("x".repeat(2 * 1024 * 1024)), soon()).await;
    assert!(matches!(large, Err(AppendError::TooLarge)), "{large:?}");
    appender.append(chat(1), &message("small"), soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_nothing_is_sent_and_the_deadline_holds() {
    let mut server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    appender.append(chat(1), &message("before"), soon()).await.unwrap();
    server.kill9();
    eventually("the disconnect", async || !appender.is_connected()).await;
    let started = Instant::now();
    let error = appender.append(chat(1), &message("lost"), started + Duration::from_millis(300)).await;
    assert!(matches!(error, Err(AppendError::Unavailable { maybe_stored: false, .. })), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(1));
    server.restart();
    within(10, "the reconnect", appender.append(chat(1), &message("after"), soon())).await.unwrap();
    assert_eq!(log(&nats).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_survive_a_killed_server_without_loss_or_double() {
    let mut server = Server::start();
    let nats = server.nats().await;
    let appender = Appender::start(&nats);
    let load = tokio::spawn({
        let appender = appender.clone();
        async move { append_many(&appender, 5_000).await }
    });
    for _ in 0..3 {
        let acked = appender.stats().acked.load(Relaxed);
        eventually("some load", async || appender.stats().acked.load(Relaxed) > acked + 300).await;
        server.kill9();
        server.restart();
    }
    within(30, "the load", load).await.unwrap();
    let entries = log(&nats).await;
    let events: std::collections::HashSet<_> =
        entries.iter().map(|entry| Event::decode(&entry.payload).unwrap().uuid).collect();
    assert_eq!((entries.len(), events.len()), (5_000, 5_000));
}

#[tokio::test]
async fn a_publish_stuck_in_a_cut_connection_never_surfaces() {
    let server = Server::start();
    let direct = server.nats().await;
    let proxy = Proxy::start(server.address()).await;
    let settings = NatsSettings { nats_url: proxy.url(), append_ack_timeout_ms: 200, ..server.settings() };
    let nats = server.nats_with(settings).await;
    let appender = Appender::start(&nats);
    appender.append(chat(1), &message("before"), soon()).await.unwrap();
    let connects = appender.stats().connects.load(Relaxed);

    proxy.stall(true);
    let stuck = message("stuck");
    let error = appender.append(chat(1), &stuck, Instant::now() + Duration::from_millis(150)).await;
    assert!(matches!(error, Err(AppendError::Unavailable { maybe_stored: true, .. })), "{error:?}");
    // The overdue acknowledgement gives the connection away.
    eventually("the end of the cut connection", async || !appender.is_connected()).await;
    proxy.stall(false);
    appender.append(chat(1), &message("after"), soon()).await.unwrap();
    assert!(appender.stats().connects.load(Relaxed) > connects);
    // One for requests and one for appends: the old connection is gone, and what it held with it.
    eventually("the old connection to close", async || proxy.open_connections() <= 2).await;

    let bodies: Vec<_> =
        log(&direct).await.iter().map(|entry| Event::decode(&entry.payload).unwrap()).collect();
    assert_eq!(bodies.len(), 2, "{bodies:?}");
    // And it can still be stored, once.
    assert!(!appender.append(chat(1), &stuck, soon()).await.unwrap().duplicate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_was_unknown_is_found_by_the_retry() {
    let mut server = Server::start();
    let nats = server.nats_with(NatsSettings { append_ack_timeout_ms: 100, ..server.settings() }).await;
    let appender = Appender::start(&nats);
    appender.append(chat(1), &message("before"), soon()).await.unwrap();
    server.stop();
    let event = message("unknown");
    let error = appender.append(chat(1), &event, Instant::now() + Duration::from_millis(500)).await;
    assert!(matches!(error, Err(AppendError::Unavailable { maybe_stored: true, .. })), "{error:?}");
    server.resume();
    appender.append(chat(1), &event, soon()).await.unwrap();
    assert_eq!(log(&nats).await.len(), 2);
}

#[tokio::test]
async fn a_stream_without_leader_is_tried_again() {
    let server = Server::start();
    let nats = streams::Nats::connect(&server.settings(), "test").await.unwrap();
    let appender = Appender::start(&nats);
    let create = async {
        sleep(Duration::from_millis(300)).await;
        server.nats().await
    };
    let event = message("early");
    let (appended, _) = tokio::join!(appender.append(chat(1), &event, soon()), create);
    assert_eq!(appended.unwrap().seq.get(), 1);
    assert!(appender.stats().retries.load(Relaxed) > 0);
}

#[tokio::test]
async fn credentials_of_the_url_open_both_connections() {
    for (authorization, login) in [
        ("authorization { user: gate, password: \"p@ss/word\" }", "gate:p%40ss%2Fword"),
        ("authorization { token: secret }", "secret"),
    ] {
        let server = Server::with(authorization);
        let nats_url = server.url().replace("//", &format!("//{login}@"));
        let nats = server.nats_with(NatsSettings { nats_url, ..server.settings() }).await;
        let appender = Appender::start(&nats);
        appender.append(chat(1), &message("x"), soon()).await.unwrap();
        assert_eq!(log(&nats).await.len(), 1);
    }
}
