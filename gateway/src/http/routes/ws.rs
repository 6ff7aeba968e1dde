//! `/v1/ws`: the WebSocket endpoint.
//!
//! A request that is refused is refused before the upgrade, where an HTTP answer can say why. Then the bare TCP stream
//! is handed to a session. Invariant: hyper's connection ends with the upgrade, so a session holds none of its buffers.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hyper_util::rt::TokioIo;
use shared::{code::Code, text};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use uuid::Uuid;

use crate::{
    auth::Identity,
    http::{
        answer::problem::Problem,
        limits::Limit,
        request::{fields::Fields, rules},
        server::{Peer, patient::Patient},
        services::{Services, Unready},
    },
    infra::addresses::{Connection, Refused},
    session::wire::Encoding,
    socket::start::{self, Opening},
};

/// The subprotocol that the server selects if the client offers it.
const PROTOCOL: &str = "mini-telegram.v1";
/// An offered subprotocol with this prefix holds an access token: browsers can set no other header here.
const BEARER: &str = "bearer.";
/// The bytes of a handshake's key.
const NONCE: usize = 16;

/// When a client may come back whose address has enough connections.
const LATER: Duration = Duration::from_secs(1);

/// The parameters of the query. Of a repeated one the last counts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    token: Option<String>,
    ticket: Option<String>,
    device: Option<String>,
    cursor: Option<String>,
    enc: Option<String>,
    v: Option<String>,
}

impl Query {
    fn of(uri: &Uri) -> Self {
        let mut fields = Fields::of_query(uri);
        // The text of a query is always text.
        let mut text = |name| fields.optional(name, rules::any_text);
        Self {
            token: text("token"),
            ticket: text("ticket"),
            device: text("device"),
            cursor: text("cursor"),
            enc: text("enc"),
            v: text("v"),
        }
    }
}

/// `GET /v1/ws`.
pub async fn upgrade(State(services): State<Arc<Services>>, request: Request) -> Response {
    match prepare(&services, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn prepare(services: &Arc<Services>, mut request: Request) -> Result<Response, Problem> {
    let peer = request.extensions().get::<Peer>().cloned().ok_or(Code::ServerInternal)?;
    if !services.origins.allowed(request.headers(), peer.address) {
        return Err(Problem::forbidden_origin());
    }
    match services.ready() {
        Ok(()) => {}
        Err(Unready::Draining) => return Err(Problem::from(Code::ServerDraining).retry_after(1)),
        // The device keeps its cursor and tries again, here or elsewhere.
        Err(_) => return Err(Problem::unavailable()),
    }
    let accept = handshake(&request)?;
    let client = services.origins.client_address(request.headers(), peer.address);
    // A proxy that passes bytes on names no client. All its clients have its address, which has no bound.
    let client = (!services.origins.trusts(client)).then_some(client);
    let in_progress = services.addresses.upgrade(client).map_err(too_many)?;
    let query = Query::of(request.uri());
    let (identity, selected) = authenticate(services, &query, request.headers()).await?;
    let connection = peer.connection.of_client(client).map_err(too_many)?;
    let opening = opening(services, &query, identity, connection).await?;
    if !services.hub.knows(opening.identity.user) {
        services.sockets.loader.user(opening.identity.user).await?;
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let sockets = services.sockets.clone();
    services.sockets.tracker.spawn(async move {
        // A client that goes away between the request and the answer simply has no session.
        let Ok(upgraded) = upgrade.await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<Patient>>() else { return };
        // A copy, since `read_buf` itself keeps all of hyper's buffer in memory.
        let early = parts.read_buf.to_vec();
        start::start(sockets, parts.io.into_inner().into_stream(), &early, opening).await;
        drop(in_progress);
    });
    Ok(switching(&accept, selected))
}

/// The client's address, or all together, have enough connections.
fn too_many(refused: Refused) -> Problem {
    if refused.is_own() { Problem::limited(LATER) } else { Problem::unavailable() }
}

/// Checks that the request is an opening handshake (RFC 6455, 4.2.1), and returns the accept key of the answer.
fn handshake<B>(request: &Request<B>) -> Result<String, Problem> {
    let headers = request.headers();
    let has = |name: header::HeaderName, token: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    let asks = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && only(headers, &header::SEC_WEBSOCKET_VERSION) == Some(b"13");
    if !asks {
        return Err(Problem::upgrade_required());
    }
    let malformed = |detail| Problem::new(Code::RequestMalformed).detail(detail);
    // What follows the head belongs to the WebSocket, and not to a body.
    let length = headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if length || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(malformed("an opening handshake has no body"));
    }
    let key = only(headers, &header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key));
    key.map(derive_accept_key).ok_or_else(|| malformed("Sec-WebSocket-Key: 16 bytes in base64, once"))
}

/// The value of a header that must stand there once.
fn only<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.as_bytes();
    values.next().is_none().then_some(value)
}

fn is_key(key: &[u8]) -> bool {
    STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == NONCE)
}

/// The user behind the ticket or the access token, and whether the client offered our subprotocol.
async fn authenticate(
    services: &Services,
    query: &Query,
    headers: &HeaderMap,
) -> Result<(Identity, bool), Problem> {
    let offered = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim));
    let (mut selected, mut bearer) = (false, None);
    for protocol in offered {
        selected |= protocol == PROTOCOL;
        bearer = bearer.or(protocol.strip_prefix(BEARER));
    }
    let identity = if let Some(ticket) = &query.ticket {
        services.auth.redeem(ticket).await?
    } else {
        let token = query.token.as_deref().or(bearer).ok_or_else(|| Problem::from(Code::AuthMissing))?;
        services.auth.identify(token)?
    };
    Ok((identity, selected))
}

/// Reads what the session starts with, and counts the connect against the user's limit.
async fn opening(
    services: &Services,
    query: &Query,
    identity: Identity,
    connection: Arc<Connection>,
) -> Result<Opening, Problem> {
    let device = match query.device.as_deref() {
        Some(label) if !text::is_device(label) => return Err(Problem::invalid("device", "malformed")),
        Some(label) if label.contains(':') => label.to_owned(),
        Some(kind) => format!("{kind}:{}", short_id()),
        None => format!("device:{}", short_id()),
    };
    let encoding = match query.enc.as_deref() {
        None | Some("json") => Encoding::Json,
        Some("msgpack") => Encoding::MessagePack,
        Some(_) => return Err(Problem::invalid("enc", "unknown")),
    };
    let opened = query.cursor.as_ref().map(|text| services.hub.sealer.open(identity.user, text));
    let limit = if matches!(opened, Some(Ok(_))) { Limit::ResumePerUser } else { Limit::ConnectPerUser };
    services.limits.check(limit, &identity.user.to_string()).await?;
    Ok(Opening {
        identity,
        connection,
        device: device.into(),
        encoding,
        cursor: opened,
        version_known: query.v.as_deref().is_none_or(|version| version == "1"),
    })
}

/// Eight hex digits: enough to tell the devices of one user apart.
fn short_id() -> String {
    let mut id = Uuid::new_v4().simple().to_string();
    id.truncate(8);
    id
}

/// The answer after which the connection is a WebSocket.
fn switching(accept: &str, selected: bool) -> Response {
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if selected {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    /// The status of the answer to a handshake with these headers.
    fn answered(version: Version, headers: &[(&'static str, &'static str)]) -> u16 {
        let mut request = Request::builder().version(version).uri("/v1/ws").body(()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        handshake(&request).err().map_or(101, |problem| problem.into_response().status().as_u16())
    }

    #[test]
    fn only_a_whole_handshake_opens_a_websocket() {
        assert_eq!(answered(Version::HTTP_11, &GOOD), 101);
        assert_eq!(answered(Version::HTTP_10, &GOOD), 426);
        for (name, bad, status) in [
            ("connection", "close", 426),
            ("upgrade", "h2c", 426),
            ("sec-websocket-version", "12", 426),
            ("sec-websocket-version", "13, 8", 426),
            ("sec-websocket-key", "", 400),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ", 400),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZSE=", 400),
            ("sec-websocket-key", "not base64, but as long!", 400),
        ] {
            let others = GOOD.into_iter().filter(|(other, _)| *other != name);
            let without: Vec<_> = others.collect();
            let missing = if name == "sec-websocket-key" { 400 } else { 426 };
            assert_eq!(answered(Version::HTTP_11, &without), missing, "no {name}");
            let changed = [without, vec![(name, bad)]].concat();
            assert_eq!(answered(Version::HTTP_11, &changed), status, "{name}: {bad}");
        }
        for (more, status) in [
            (("sec-websocket-key", GOOD[3].1), 400),
            (("sec-websocket-version", "13"), 426),
            (("content-length", "5"), 400),
            (("transfer-encoding", "chunked"), 400),
            (("content-length", "0"), 101),
        ] {
            let with = [&GOOD[..], &[more]].concat();
            assert_eq!(answered(Version::HTTP_11, &with), status, "{more:?}");
        }
    }

    #[test]
    fn a_refused_handshake_says_which_version_is_spoken() {
        let response = Problem::upgrade_required().into_response();
        for (name, value) in
            [("upgrade", "websocket"), ("sec-websocket-version", "13"), ("connection", "upgrade")]
        {
            assert_eq!(response.headers()[name], value);
        }
    }

    #[test]
    fn of_a_doubled_parameter_the_last_counts() {
        let query = Query::of(&Uri::from_static("/v1/ws?device=ios&token=a&device=web%3A1&v=2&v=1&x=1&x"));
        let text = |text: &str| Some(text.to_owned());
        let wanted = Query { token: text("a"), device: text("web:1"), v: text("1"), ..Query::default() };
        assert_eq!(query, wanted);
    }
}
