//! The export in a real process: spans go to the endpoint, and a collector that hangs delays the exit only briefly.

use std::io::Read as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use otel::OtelSettings;
use tracing::level_filters::LevelFilter;

/// The first bytes of every HTTP/2 client.
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// The guard's own limit is three seconds.
const BOUND: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_gets_the_spans_and_holds_nobody_up() {
    let collector = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", collector.local_addr().expect("an address"));
    let greeting = std::thread::spawn(move || {
        let (mut client, _) = collector.accept().expect("a connection");
        let mut greeting = [0; PREFACE.len()];
        client.read_exact(&mut greeting).expect("a greeting");
        // The connection stays open, and silent.
        (client, greeting)
    });

    let settings =
        OtelSettings { otlp_endpoint: Some(endpoint), trace_ratio: 1.0, ..OtelSettings::default() };
    let guard = otel::init("test", &settings).expect("a subscriber");
    assert_eq!(LevelFilter::current(), LevelFilter::INFO, "what is more verbose costs a comparison");
    assert!(tracing::info_span!("work").in_scope(otel::traceparent).is_some());
    let start = Instant::now();
    drop(guard);
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    let (_client, greeting) = greeting.join().expect("no panic");
    assert_eq!(greeting, PREFACE);

    let again = otel::init("test", &OtelSettings::default());
    assert!(matches!(again, Err(otel::InitError::Installed(_))), "{again:?}");
}
