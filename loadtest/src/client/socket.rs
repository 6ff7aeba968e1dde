//! One WebSocket connection, frame by frame: no resume, no retries, nothing hidden.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error, Message, Utf8Bytes, client::IntoClientRequest, http::HeaderValue, protocol::WebSocketConfig,
    },
};

/// tungstenite allocates its read buffer at once; frames are a few hundred bytes.
const READ_BUFFER: usize = 1_024;
/// Longer than a gateway needs for the upgrade unless it is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The address and parameters of a connection to come.
#[derive(Debug, Clone, Default)]
pub struct Connect {
    /// `http://host:port` of the gateway.
    pub gateway: String,
    /// The query of `/v1/ws`, without `?`.
    pub query: String,
    /// Extra request headers.
    pub headers: Vec<(&'static str, String)>,
    /// The local address; one address has 28,000 ports only.
    pub source: Option<IpAddr>,
    /// The kernel's receive buffer, for slow readers.
    pub receive_buffer: Option<u32>,
}

/// A frame, or the end of the connection.
#[derive(Debug)]
pub enum Received {
    Text(Utf8Bytes),
    Binary(Vec<u8>),
    /// The close code, if a close frame came.
    Closed(Option<u16>),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the upgrade was refused: {status}")]
    Http { status: u16, body: String, headers: Box<tokio_tungstenite::tungstenite::http::HeaderMap> },
    #[error("no connection: {0}")]
    Failed(String),
}

impl Refused {
    /// The HTTP status of a refusal, 0 when there was none.
    pub fn status(&self) -> u16 {
        match self {
            Self::Http { status, .. } => *status,
            Self::Failed(_) => 0,
        }
    }
}

#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    protocol: Option<String>,
}

impl Connect {
    /// The seed's way: a token in the query.
    pub fn new(gateway: &str, token: &str) -> Self {
        Self { gateway: gateway.to_owned(), query: format!("token={token}"), ..Self::default() }
    }

    /// Adds a query parameter; the value must need no escaping.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        if !self.query.is_empty() {
            self.query.push('&');
        }
        self.query.push_str(&format!("{name}={value}"));
        self
    }

    /// # Errors
    /// When the gateway refuses or is not there.
    pub async fn open(&self) -> Result<Socket, Refused> {
        timeout(CONNECT_TIMEOUT, self.handshake())
            .await
            .map_err(|_| Refused::Failed("no answer to the upgrade".to_owned()))?
    }

    async fn handshake(&self) -> Result<Socket, Refused> {
        let failed = |error: String| Refused::Failed(error);
        let host = self.gateway.trim_start_matches("http://").trim_end_matches('/');
        let address = resolve(host).await.map_err(|error| failed(error.to_string()))?;
        let tcp = self.tcp(address).await.map_err(|error| failed(error.to_string()))?;
        let mut request = format!("ws://{host}/v1/ws?{}", self.query)
            .into_client_request()
            .map_err(|error| failed(error.to_string()))?;
        for (name, value) in &self.headers {
            let value = HeaderValue::from_str(value).map_err(|error| failed(error.to_string()))?;
            request.headers_mut().insert(*name, value);
        }
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER).write_buffer_size(0);
        match client_async_with_config(request, tcp, Some(config)).await {
            Ok((stream, response)) => {
                let protocol = response.headers().get("sec-websocket-protocol");
                let protocol = protocol.and_then(|value| value.to_str().ok()).map(str::to_owned);
                Ok(Socket { stream, protocol })
            }
            Err(Error::Http(response)) => {
                let (parts, body) = response.into_parts();
                let body = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
                Err(Refused::Http { status: parts.status.as_u16(), body, headers: Box::new(parts.headers) })
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    async fn tcp(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(source) = self.source.filter(|_| address.ip().is_loopback()) {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

async fn resolve(host: &str) -> Result<SocketAddr> {
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    tokio::net::lookup_host(&host).await?.next().with_context(|| format!("no address for {host}"))
}

/// A source address for the n-th of many sockets, so that no address runs out of ports.
pub fn source_of(n: usize) -> IpAddr {
    let last = u8::try_from(n % 200).unwrap_or_default() + 2;
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

impl Socket {
    /// The subprotocol that the server chose.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// The next frame; control frames are answered underneath.
    pub async fn next(&mut self) -> Received {
        loop {
            return match self.stream.next().await {
                Some(Ok(Message::Text(text))) => Received::Text(text),
                Some(Ok(Message::Binary(bytes))) => Received::Binary(bytes.to_vec()),
                Some(Ok(Message::Close(frame))) => Received::Closed(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => Received::Closed(None),
            };
        }
    }

    /// Sends one text frame.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&mut self, text: impl Into<Utf8Bytes>) -> Result<()> {
        Ok(self.stream.send(Message::Text(text.into())).await?)
    }

    /// Queues one text frame; [`Socket::flush`] sends what is queued.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn feed(&mut self, text: impl Into<Utf8Bytes>) -> Result<()> {
        Ok(self.stream.feed(Message::Text(text.into())).await?)
    }

    /// # Errors
    /// When the connection is gone.
    pub async fn flush(&mut self) -> Result<()> {
        Ok(self.stream.flush().await?)
    }

    /// Sends any WebSocket message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send_raw(&mut self, message: Message) -> Result<()> {
        Ok(self.stream.send(message).await?)
    }

    /// Sends a frame given as JSON.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn say(&mut self, frame: &Value) -> Result<()> {
        self.send(frame.to_string()).await
    }

    /// The next text frame as JSON, within `limit`.
    ///
    /// # Errors
    /// When none comes, the connection closes, or it is not JSON.
    pub async fn frame(&mut self, limit: Duration) -> Result<Value> {
        match timeout(limit, self.next()).await.context("no frame in time")? {
            Received::Text(text) => Ok(serde_json::from_str(&text)?),
            Received::Binary(_) => bail!("a binary frame where JSON was expected"),
            Received::Closed(code) => bail!("closed with {code:?}"),
        }
    }

    /// Reads until a frame fits; the others are dropped.
    ///
    /// # Errors
    /// When none comes within `limit` or the connection closes.
    pub async fn until(&mut self, limit: Duration, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        timeout(limit, async {
            loop {
                let frame = self.frame(limit).await?;
                if fits(&frame) {
                    return Ok(frame);
                }
            }
        })
        .await
        .context("no such frame in time")?
    }

    /// Reads until a frame of this type.
    ///
    /// # Errors
    /// As [`Socket::until`].
    pub async fn expect(&mut self, frame_type: &str, limit: Duration) -> Result<Value> {
        self.until(limit, |frame| frame["type"] == frame_type)
            .await
            .with_context(|| format!("waiting for {frame_type}"))
    }

    /// Reads to the end and returns the close code, if a close frame came.
    ///
    /// # Errors
    /// When the server does not close within `limit`.
    pub async fn closed(&mut self, limit: Duration) -> Result<Option<u16>> {
        timeout(limit, async {
            loop {
                if let Received::Closed(code) = self.next().await {
                    return code;
                }
            }
        })
        .await
        .context("not closed in time")
    }

    /// Closes politely.
    pub async fn close(mut self) {
        // The peer may be gone already, which closes just as well.
        drop(self.stream.close(None).await);
    }
}
