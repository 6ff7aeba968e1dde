//! How a session begins: the cursor is judged, `Welcome` is sent, then what the device missed, then `Live`.
//!
//! Invariants: a cursor is only taken if this log has, or had until retention removed it, the very entry that it
//! names; otherwise the session begins afresh and is told the reason. A gateway that cannot judge a cursor in time
//! closes the session, and the device tries another one.

use std::{sync::Arc, time::Duration};

use shared::{
    code::Code,
    cursor::{Cursor, Invalid},
    frame::{self, ServerFrame},
    id::{ChatId, Position, Seq},
};
use tokio::net::TcpStream;

use super::{Left, Socket, services::Services};
use crate::{
    auth,
    command::Failure,
    hub::attach::Attached,
    infra::{addresses::Connection, clock::unix_ms},
    session::{
        self, Session,
        close::Close,
        reply,
        wire::{self, Encoding},
    },
};

/// The upgrade request, as far as the session depends on it.
pub struct Opening {
    pub identity: auth::Identity,
    /// Counts the connection for as long as it lives.
    pub connection: Arc<Connection>,
    pub device: Box<str>,
    pub encoding: Encoding,
    pub cursor: Option<Result<Cursor, Invalid>>,
    pub version_known: bool,
}

/// From where a session continues.
#[derive(Debug, PartialEq, Eq)]
enum Resume {
    /// There is no cursor: the session gets only new events.
    Fresh,
    From(Cursor),
    /// The cursor can't be resumed: the session gets only new events, and is told the reason.
    Refused(Code),
}

/// How long a cursor from a gateway that is further in the log may wait until this one has come so far.
const AHEAD_PATIENCE: Duration = Duration::from_secs(2);
/// How often is looked whether the hub has entered a cursor's epoch.
const EPOCH_POLL: Duration = Duration::from_millis(50);

/// Starts a session on an upgraded socket. Returns once it runs on its own task.
pub async fn start(services: Arc<Services>, stream: TcpStream, early: &[u8], opening: Opening) {
    let identity = session::Identity {
        user: opening.identity.user,
        family: opening.identity.family,
        device: opening.device,
        encoding: opening.encoding,
    };
    let session =
        Arc::new(Session::new(identity, opening.identity.expires_ms, &services.settings, services.now_ms()));
    // Boxed, since a future that takes the socket by value holds it twice or more for the life of the session.
    let socket = Box::new(Socket::new(stream, early, services.settings.frame_bytes, opening.connection));
    let refusal = if !opening.version_known {
        Some(Close::UnsupportedVersion)
    } else if !services.seats.take(&session).await {
        Some(Close::TooManySessions)
    } else {
        None
    };
    if let Some(close) = refusal {
        session.close(close, services.now_ms());
        services.tracker.spawn(refused(services.clone(), session, socket));
        return;
    }
    let Some(resume) = resume(&services, opening.cursor).await else {
        session.close(Close::Internal, services.now_ms());
        services.seats.started(&session);
        services.seats.give_back(&session).await;
        services.tracker.spawn(refused(services.clone(), session, socket));
        return;
    };
    welcome(&services, &session, &resume);
    attach(&services, &session, &resume).await;
    services.seats.started(&session);
    // A revocation between the upgrade and the attach found no session to close.
    if services.auth.revocations.is_revoked(session.identity.family) {
        session.close(Close::Revoked, services.now_ms());
    }
    services.tracker.spawn(live(services.clone(), session, socket));
}

/// Tells the peer why it gets no session.
async fn refused(services: Arc<Services>, session: Arc<Session>, mut socket: Box<Socket>) {
    part(&services, &session, &mut socket).await;
    count_close(&services, &session);
}

/// Tells the peer of a session that is not attached why it closes. The sweep sees attached sessions only, so the time
/// for that is bounded here.
async fn part(services: &Arc<Services>, session: &Arc<Session>, socket: &mut Socket) {
    let read = tokio::time::timeout(services.settings.linger(), socket.part(session, services)).await;
    tracing::debug!(read = read.is_ok(), code = session.closing(), "parted from a session");
}

/// The task that lives as long as the connection. Its future is small, since a gateway holds one per session.
async fn live(services: Arc<Services>, session: Arc<Session>, mut socket: Box<Socket>) {
    services.hub.metrics.connections.inc();
    services.presence.connected(&session);
    let left = socket.run(&session, &services).await;
    if left == Left::Gone {
        session.end();
    }
    // A session that closes leaves at once, however long its peer takes to read why.
    services.hub.detach(&session);
    services.presence.disconnected(&session);
    // Boxed, since a session is here for a moment at its end, and all would have room for it.
    Box::pin(async {
        let parted = async {
            if left == Left::Closing {
                part(&services, &session, &mut socket).await;
            }
        };
        tokio::join!(services.seats.give_back(&session), parted);
    })
    .await;
    session.end();
    services.hub.metrics.connections.dec();
    count_close(&services, &session);
}

fn count_close(services: &Services, session: &Session) {
    let reason = session.closing().map_or("client", Close::reason_of);
    services.hub.metrics.closed_total.get_or_create(&vec![("reason", reason)]).inc();
}

/// Judges the cursor. `None`: this gateway can't, since it has not come to the cursor's epoch in time.
async fn resume(services: &Services, cursor: Option<Result<Cursor, Invalid>>) -> Option<Resume> {
    let cursor = match cursor {
        None => return Some(Resume::Fresh),
        Some(Err(Invalid)) => return Some(Resume::Refused(Code::CursorInvalid)),
        Some(Ok(cursor)) => cursor,
    };
    // Every epoch is on record before a gateway seals a cursor of it, so one that is not on record is made up.
    if !tokio::time::timeout(AHEAD_PATIENCE, entered(services, cursor.epoch)).await.ok()? {
        return Some(Resume::Refused(Code::CursorInvalid));
    }
    let Position { seq, id } = services.epochs.kept_of(cursor);
    if seq < services.epochs.oldest() {
        return Some(Resume::Refused(Code::CursorExpired));
    }
    // A cursor that is ahead of this gateway is no wrong one: only this gateway has not come so far.
    tokio::time::timeout(AHEAD_PATIENCE, services.hub.passed(seq)).await.ok()?;
    // Below the ring the identity can't be compared. There the seal and the epoch suffice: a gateway made the cursor,
    // and no cut went below it.
    let known = services.hub.id_at(seq);
    if known.is_some_and(|known| known != id && seq > Seq::ZERO) {
        return Some(Resume::Refused(Code::CursorInvalid));
    }
    Some(Resume::From(cursor))
}

/// Waits until the hub is in the newest epoch on record, and that is `epoch` or a later one. `false`: `epoch` is not
/// on record.
async fn entered(services: &Services, epoch: u32) -> bool {
    loop {
        let (here, known) = (services.hub.epoch(), services.epochs.current());
        if here >= epoch && here == known {
            return true;
        }
        if known < epoch {
            match services.epochs.learn().await {
                Ok(()) if services.epochs.current() < epoch => return false,
                Ok(()) => {}
                Err(error) => tracing::debug!(%error, "a cursor of a later epoch waits"),
            }
        }
        tokio::time::sleep(EPOCH_POLL).await;
    }
}

fn welcome(services: &Services, session: &Session, resume: &Resume) {
    let settings = &services.settings;
    let welcome = frame::Welcome {
        v: frame::PROTOCOL_VERSION,
        session_id: session.id.to_string(),
        user_id: session.user(),
        device_id: session.identity.device.to_string(),
        server_ts: unix_ms(),
        heartbeat_ms: settings.heartbeat_ms,
        resumed: matches!(resume, Resume::From(_)),
        limits: frame::Limits {
            frame_bytes: u32::try_from(settings.frame_bytes).unwrap_or(u32::MAX),
            body_bytes: shared::text::MAX_BODY_BYTES as u32,
            inflight: settings.inflight,
            msg_per_sec: settings.commands_per_s,
            watch: crate::presence::MAX_WATCHED as u32,
        },
        reconnect: frame::Reconnect {
            base_ms: 500,
            max_ms: 30_000,
            jitter: "full".into(),
            stable_ms: 30_000,
        },
    };
    send(services, session, &welcome.into());
    if let Resume::Refused(code) = resume {
        reply::notify(session, &Failure::refused(*code, code.title()), services.now_ms());
    }
}

/// Attaches the session to the hub. The user is loaded first if the hub does not know them.
async fn attach(services: &Arc<Services>, session: &Arc<Session>, resume: &Resume) {
    let mut from = match resume {
        Resume::From(cursor) => Some(*cursor),
        Resume::Fresh | Resume::Refused(_) => None,
    };
    loop {
        match services.hub.attach(session, from) {
            Attached::Live => return services.presence.live(session),
            Attached::CatchUp => return services.catch_ups.spawn(session),
            Attached::Unknown => {
                if let Err(failure) = services.loader.user(session.user()).await {
                    tracing::warn!(%failure, "a session could not start");
                    return session.close(Close::Internal, services.now_ms());
                }
            }
            Attached::Cut => match carry_over(services, session, from).await {
                Ok(carried) => from = carried,
                Err(failure) => {
                    tracing::warn!(%failure, "a session could not start after a cut");
                    return session.close(Close::Internal, services.now_ms());
                }
            },
        }
    }
}

/// Tells a session with a cursor of an earlier epoch to reset its chats to where they stand now. Returns the cursor
/// from which it continues. That is still the old one if the hub has forgotten the user meanwhile: then the caller
/// loads the user and tries again.
async fn carry_over(
    services: &Services,
    session: &Session,
    from: Option<Cursor>,
) -> Result<Option<Cursor>, Failure> {
    let Some(cursor) = from else { return Ok(None) };
    let Some(cut) = services.epochs.lowest_after(cursor.epoch) else {
        return Err(Failure::log_unavailable());
    };
    // The hub knows only those ended memberships whose end is in its ring, so the projection is asked.
    let (_, memberships) = services.db.memberships_of(&[session.user()], cut.seq, 0).await?;
    let left: Vec<ChatId> = memberships.into_iter().map(|membership| membership.chat).collect();
    Ok(services.hub.carry_over(session, cursor, cut, &left).or(from))
}

fn send(services: &Services, session: &Session, frame: &ServerFrame) {
    session.push_control(wire::encode(frame, session.identity.encoding), services.now_ms());
}

#[cfg(test)]
mod tests;
