//! Bounds on the connections of an address, and what operators reach whoever fills the clients' port.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/http.rs"]
mod support;

use std::{net::SocketAddr, time::Duration};

use futures_util::StreamExt;
use support::{Client, User, World, until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use xtask::{servers::port, testing::off_runtime};

const SOON: Duration = Duration::from_secs(10);
const ONE: &str = "127.0.0.1:0";
const OTHER: &str = "127.0.0.2:0";

fn address(world: &World) -> SocketAddr {
    world.urls[0].strip_prefix("http://").unwrap().parse().unwrap()
}

async fn connect(world: &World, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(from.parse().unwrap()).unwrap();
    socket.connect(address(world)).await.unwrap()
}

/// The status of the answer to a request, or of what came instead.
async fn status(mut stream: TcpStream) -> u16 {
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.ok();
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().ok();
    String::from_utf8_lossy(&answer).split(' ').nth(1).map_or(0, |status| status.parse().unwrap())
}

#[tokio::test]
async fn an_address_full_of_strangers_keeps_out_neither_its_own_users_nor_others() {
    const STRANGERS: usize = 20;
    let ops = off_runtime(|| format!("127.0.0.1:{}", port::choose(None).unwrap()));
    let strangers = STRANGERS.to_string();
    let env = [
        ("MT_ADDRESS_STRANGERS", strangers.as_str()),
        ("MT_OPS_ADDR", ops.as_str()),
        ("MT_PUBLIC_METRICS", "false"),
    ];
    let world = World::start("strangers", 1, &env).await;
    let user = world.user("ada").await;
    user.client.get("/v1/me").await.ok(200);
    let mut crowd = Vec::new();
    for _ in 0..3 * STRANGERS {
        crowd.push(connect(&world, ONE).await);
    }
    assert_eq!(status(connect(&world, ONE).await).await, 429);
    // The connection that has shown a token is none of theirs, and another address has its own.
    user.client.get("/v1/me").await.ok(200);
    assert_eq!(status(connect(&world, OTHER).await).await, 200);
    // Operators are served all the while.
    let operators = Client::new(&format!("http://{ops}"));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(operators.get(path).await.status, 200, "{path}");
    }
    let metrics = operators.get("/metrics").await.text;
    let refused = metrics.lines().find_map(|line| {
        line.strip_prefix(r#"gateway_connections_refused_total{reason="address_strangers"} "#)
    });
    assert!(refused.unwrap().parse::<usize>().unwrap() >= 2 * STRANGERS, "{metrics}");
    assert_eq!(user.client.get("/metrics").await.status, 404, "not at the clients' port");
    drop(crowd);
    until("there is room again", async || status(connect(&world, ONE).await).await == 200).await;
}

#[tokio::test]
async fn strangers_of_all_addresses_leave_room_for_whoever_has_a_token() {
    let world = World::start("half", 1, &[("MT_MAX_CONNECTIONS", "20")]).await;
    let user = world.user("ada").await;
    user.client.get("/v1/me").await.ok(200);
    let mut crowd = Vec::new();
    for n in 0..30 {
        crowd.push(connect(&world, if n % 2 == 0 { ONE } else { OTHER }).await);
    }
    // The oldest have ended for the newer ones, and one more ends for each that comes.
    assert_eq!(timeout(SOON, crowd[0].read(&mut [0])).await.unwrap().unwrap(), 0);
    assert_eq!(status(connect(&world, "127.0.0.3:0").await).await, 200);
    user.client.get("/v1/me").await.ok(200);
    let _socket = socket(&world, &user, "203.0.113.1").await.ok().unwrap();
}

async fn socket(world: &World, user: &User, client: &str) -> Result<impl StreamExt, u16> {
    let url = format!("{}/v1/ws?token={}", world.urls[0].replace("http", "ws"), user.token);
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("x-forwarded-for", client.parse().unwrap());
    match tokio_tungstenite::connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
            assert!(response.headers().contains_key("retry-after"));
            Err(response.status().as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_sockets_of_each_client_are_counted() {
    let env = [("MT_TRUSTED_PROXIES", "127.0.0.0/8"), ("MT_ADDRESS_CONNECTIONS", "3")];
    let world = World::start("proxied", 1, &env).await;
    let user = world.user("ada").await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(socket(&world, &user, "203.0.113.1").await.ok().unwrap());
    }
    assert_eq!(socket(&world, &user, "203.0.113.1").await.err(), Some(429));
    sockets.push(socket(&world, &user, "203.0.113.2").await.ok().unwrap());
    // The proxy's own connections have no such bound.
    let mut shared = Vec::new();
    for _ in 0..10 {
        shared.push(connect(&world, ONE).await);
    }
    assert_eq!(status(shared.remove(0)).await, 200);
    drop(sockets);
    until("its sockets have ended", async || socket(&world, &user, "203.0.113.1").await.is_ok()).await;
}

#[tokio::test]
async fn behind_a_trusted_proxy_that_names_nobody_sockets_have_no_bound_together() {
    let env = [
        ("MT_TRUSTED_PROXIES", "127.0.0.0/8"),
        ("MT_ADDRESS_CONNECTIONS", "3"),
        ("MT_ADDRESS_UPGRADES", "3"),
    ];
    let world = World::start("unnamed", 1, &env).await;
    let user = world.user("ada").await;
    let mut sockets = Vec::new();
    for _ in 0..6 {
        // All that it names are proxies.
        sockets.push(socket(&world, &user, "127.0.0.1").await.ok().unwrap());
    }
}
