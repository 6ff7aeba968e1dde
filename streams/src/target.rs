//! The servers of a NATS installation, how a line is opened to one of them, and which of them to leave.
//!
//! A server that is cut off from the others answers and proves nothing. Whoever finds one out says so here
//! ([`Target::leave`]), all of this process leave it, and new lines go to the others first.

use std::{io, sync::Arc, time::Duration};

use async_nats::{ServerAddr, rustls};
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use rand::seq::SliceRandom;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout},
};

use crate::line::{Line, READ_CHUNK, Socket};

/// How long connecting to one server may take, TLS and greeting included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// More addresses than this are not remembered: clusters are small.
const MAX_SERVERS: usize = 64;

/// How long a server that was left comes after the others. One that is still cut off then is found out again.
const LEFT: Duration = Duration::from_secs(30);

/// The servers known so far: those of the settings, and others of the cluster of which those have told.
#[derive(Clone)]
pub(crate) struct Target(Arc<Shared>);

struct Shared {
    name: String,
    servers: Mutex<Vec<Known>>,
    /// The configured one whose credentials and TLS hold for discovered servers, too.
    example: ServerAddr,
    /// How often a server was left.
    leaves: watch::Sender<u64>,
    /// How often the log's verdicts came again after a while without.
    returns: watch::Sender<u64>,
}

struct Known {
    at: ServerAddr,
    /// What it calls itself; empty until it was dialled. It may be known by several addresses.
    id: String,
    left: Option<Instant>,
}

impl Known {
    const fn new(at: ServerAddr) -> Self {
        Self { at, id: String::new(), left: None }
    }

    fn left(&self) -> Option<Instant> {
        self.left.filter(|left| left.elapsed() < LEFT)
    }
}

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    server_id: String,
    #[serde(default)]
    max_payload: usize,
    #[serde(default)]
    tls_required: bool,
    #[serde(default)]
    connect_urls: Vec<String>,
}

impl Target {
    /// `servers` is not empty.
    pub(crate) fn new(servers: &[ServerAddr], name: &str) -> Self {
        let shared = Shared {
            name: name.to_owned(),
            servers: Mutex::new(servers.iter().cloned().map(Known::new).collect()),
            example: servers[0].clone(),
            leaves: watch::channel(0).0,
            returns: watch::channel(0).0,
        };
        Self(Arc::new(shared))
    }

    /// Leaves a server: it is tried after the others for a while, and whoever is connected to it hears of it.
    pub(crate) fn leave(&self, server: &str) {
        let mut servers = self.0.servers.lock();
        let id = servers.iter().find(|known| address(&known.at) == server).map(|known| known.id.clone());
        for known in servers.iter_mut() {
            let same = !known.id.is_empty() && Some(&known.id) == id.as_ref();
            if same || address(&known.at) == server {
                known.left = Some(Instant::now());
            }
        }
        drop(servers);
        self.0.leaves.send_modify(|leaves| *leaves += 1);
    }

    /// The log's verdicts come again, through this server: whoever still waits for another one should not.
    pub(crate) fn come_back(&self, server: &str) {
        let mut servers = self.0.servers.lock();
        servers.iter_mut().filter(|known| address(&known.at) == server).for_each(|known| known.left = None);
        drop(servers);
        self.0.returns.send_modify(|returns| *returns += 1);
    }

    /// Changes whenever the log's verdicts come again.
    pub(crate) fn returns(&self) -> watch::Receiver<u64> {
        self.0.returns.subscribe()
    }

    /// Changes whenever a server is left.
    pub(crate) fn leaves(&self) -> watch::Receiver<u64> {
        self.0.leaves.subscribe()
    }

    /// Whether the server (an address, or what it calls itself) was left a while ago, and there is a better one.
    pub(crate) fn is_left(&self, server: &str) -> bool {
        let servers = self.0.servers.lock();
        let found = servers.iter().find(|known| known.id == server || address(&known.at) == server);
        let Some(left) = found.and_then(Known::left) else { return false };
        servers.iter().any(|known| known.left().is_none_or(|other| other < left))
    }

    /// Which of these to dial first: one that was not left, or was left the longest ago. `None`: it does not matter.
    pub(crate) fn choose(&self, mut among: Vec<(ServerAddr, usize)>) -> Option<ServerAddr> {
        let servers = self.0.servers.lock();
        servers.iter().find(|known| known.left().is_some())?;
        let left = |server: &ServerAddr| {
            servers.iter().find(|known| address(&known.at) == address(server)).and_then(Known::left)
        };
        among.shuffle(&mut rand::rng());
        among.sort_by_key(|(server, failures)| (*failures, left(server)));
        among.into_iter().next().map(|(server, _)| server)
    }

    /// Dials the known servers in random order until one accepts; `avoid` is tried after the others, and those that were
    /// left after it. Also returns its address.
    pub(crate) async fn dial(&self, avoid: Option<&str>) -> io::Result<(Line, String)> {
        let mut servers: Vec<(Option<Instant>, ServerAddr)> =
            self.0.servers.lock().iter().map(|known| (known.left(), known.at.clone())).collect();
        servers.shuffle(&mut rand::rng());
        servers.sort_by_key(|(left, server)| (*left, avoid == Some(address(server).as_str())));
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for (_, server) in servers {
            match timeout(CONNECT_TIMEOUT, self.introduce(&server)).await {
                Ok(Ok(line)) => return Ok((line, address(&server))),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }

    async fn introduce(&self, server: &ServerAddr) -> io::Result<Line> {
        let tcp = TcpStream::connect(address(server)).await?;
        tcp.set_nodelay(true)?;
        // Closing discards what the kernel has not sent yet: a publish that was given up must not arrive later.
        tcp.set_zero_linger()?;
        let mut socket: Box<dyn Socket> = Box::new(tcp);
        let mut read = BytesMut::with_capacity(READ_CHUNK);
        let line = control_line(&mut socket, &mut read).await?;
        let info = line.strip_prefix("INFO ").ok_or_else(|| io::Error::other("no NATS server"))?;
        let info: Info = serde_json::from_str(info)?;
        if info.tls_required || server.tls_required() || self.0.example.tls_required() {
            socket = secure(socket, server.host()).await?;
        }
        let hello = format!("CONNECT {}\r\nPING\r\n", self.greeting(server));
        socket.write_all(hello.as_bytes()).await?;
        socket.flush().await?;
        loop {
            let line = control_line(&mut socket, &mut read).await?;
            match line.as_str() {
                "PONG" => break,
                line if line.starts_with("-ERR") => return Err(io::Error::other(line.to_owned())),
                _ => {}
            }
        }
        self.discover(server, info.server_id, &info.connect_urls);
        Ok(Line::new(socket, read, info.max_payload))
    }

    fn greeting(&self, server: &ServerAddr) -> serde_json::Value {
        let mut hello = serde_json::json!({
            "verbose": false, "pedantic": false, "echo": true, "headers": true, "no_responders": true,
            "lang": "rust", "version": env!("CARGO_PKG_VERSION"), "protocol": 1, "name": self.0.name,
        });
        match Credentials::of(server).or_else(|| Credentials::of(&self.0.example)) {
            Some(Credentials::Password { user, password }) => {
                hello["user"] = user.into();
                hello["pass"] = password.into();
            }
            Some(Credentials::Token(token)) => hello["auth_token"] = token.into(),
            None => {}
        }
        hello
    }

    fn discover(&self, from: &ServerAddr, id: String, urls: &[String]) {
        let mut servers = self.0.servers.lock();
        for server in urls.iter().filter_map(|url| url.parse::<ServerAddr>().ok()) {
            let known = servers.iter().any(|known| address(&known.at) == address(&server));
            if !known && servers.len() < MAX_SERVERS {
                servers.push(Known::new(server));
            }
        }
        if let Some(known) = servers.iter_mut().find(|known| address(&known.at) == address(from)) {
            known.id = id;
        }
    }
}

/// The credentials in a server's URL.
pub(crate) enum Credentials {
    Password { user: String, password: String },
    Token(String),
}

impl Credentials {
    pub(crate) fn of(server: &ServerAddr) -> Option<Self> {
        let text = |encoded: &str| percent_decode_str(encoded).decode_utf8_lossy().into_owned();
        let user = text(server.username()?);
        Some(match server.password() {
            Some(password) => Self::Password { user, password: text(password) },
            None => Self::Token(user),
        })
    }
}

fn address(server: &ServerAddr) -> String {
    format!("{}:{}", server.host(), server.port())
}

/// One line of the greeting, without its end.
async fn control_line(socket: &mut Box<dyn Socket>, read: &mut BytesMut) -> io::Result<String> {
    loop {
        if let Some(end) = memchr::memchr(b'\n', read) {
            let line = String::from_utf8_lossy(read[..end].trim_ascii_end()).into_owned();
            read.advance(end + 1);
            return Ok(line);
        }
        if read.len() >= READ_CHUNK {
            return Err(io::Error::other("endless control line"));
        }
        if socket.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// TLS with the system's roots, as `async-nats` does it.
async fn secure(socket: Box<dyn Socket>, host: &str) -> io::Result<Box<dyn Socket>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let socket = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await?;
    Ok(Box::new(socket))
}
