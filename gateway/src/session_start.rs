//! How a session begins: `Welcome`, the cursor's verdict, what the device missed, `Live`.

use std::{sync::Arc, time::Duration};

use shared::{
    code::Code,
    cursor::{Cursor, Invalid},
    frame::{self, ServerFrame},
    id::{ChatId, Position, Seq},
};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::{
    app::App,
    auth, catch_up,
    clock::unix_ms,
    command::Failure,
    feed,
    hub::{Encoding, attach::Attached, wire},
    session::{self, Session, close::Close, reply, socket::Socket},
};

/// What the upgrade request asked for.
pub struct Opening {
    pub identity: auth::Identity,
    pub device: Box<str>,
    pub encoding: Encoding,
    pub cursor: Option<Result<Cursor, Invalid>>,
    pub version_known: bool,
}

/// From where a session continues.
enum Resume {
    /// No cursor: only what comes.
    Fresh,
    From(Cursor),
    /// The cursor is worth nothing: a fresh start, and the reason.
    Refused(Code),
}

/// How long a cursor from a gateway that is ahead may wait for this one.
const AHEAD_PATIENCE: Duration = Duration::from_secs(2);
/// How often a gateway that has yet to enter a cursor's epoch looks again.
const EPOCH_POLL: Duration = Duration::from_millis(50);

/// Starts a session on an upgraded socket. Returns once it runs on its own task.
pub async fn start(app: Arc<App>, stream: TcpStream, early: &[u8], opening: Opening) {
    let (read, write) = stream.into_split();
    let session = Arc::new(Session::new(
        session::Start {
            id: Uuid::now_v7(),
            identity: session::Identity {
                user: opening.identity.user,
                did: opening.identity.did,
                device: opening.device,
                encoding: opening.encoding,
            },
            token_expires_ms: opening.identity.expires_ms,
            bounds: app.settings.session.bounds(),
            durable_bucket: session::bucket(app.settings.session.durable_quota()),
            ephemeral_bucket: session::bucket(app.settings.session.ephemeral_quota()),
            now_ms: app.clock.now_ms(),
        },
        write,
    ));
    // Boxed: a future that takes it by value would hold it twice or more, for the life of the session.
    let socket = Box::new(Socket::new(read, early, app.settings.session.frame_bytes));
    let refusal = if !opening.version_known {
        Some(Close::UnsupportedVersion)
    } else if app.hub.sessions_of(session.user()) >= app.settings.session.per_user {
        Some(Close::TooManySessions)
    } else {
        None
    };
    let app2 = app.clone();
    if let Some(close) = refusal {
        session.close(close, app.clock.now_ms());
        app.tracker.spawn(refused(app2, session, socket));
        return;
    }
    let Some(resume) = resume(&app, opening.cursor).await else {
        session.close(Close::Internal, app.clock.now_ms());
        app.tracker.spawn(refused(app2, session, socket));
        return;
    };
    welcome(&app, &session, &resume);
    attach(&app, &session, &resume).await;
    // A revocation between the upgrade and the attach found no session to close.
    if app.revocations.is_revoked(session.identity.did) {
        session.close(Close::Revoked, app.clock.now_ms());
    }
    app.tracker.spawn(live(app2, session, socket));
}

/// Tells the peer why it gets no session. Nobody sweeps this socket, so its time is bounded here.
async fn refused(app: Arc<App>, session: Arc<Session>, mut socket: Box<Socket>) {
    let linger = app.settings.session.linger();
    let closed = tokio::time::timeout(linger, socket.run(&session, &app)).await.is_ok();
    tracing::debug!(closed, "refused a session");
    count_close(&app, &session);
}

/// The lean task that lives as long as the socket.
async fn live(app: Arc<App>, session: Arc<Session>, mut socket: Box<Socket>) {
    app.metrics.connections.inc();
    app.presence.connected(&session);
    socket.run(&session, &app).await;
    session.end();
    app.hub.detach(&session);
    app.presence.disconnected(&session);
    app.metrics.connections.dec();
    count_close(&app, &session);
}

fn count_close(app: &App, session: &Session) {
    let reason = session.closing().map_or("client", Close::reason_of);
    app.metrics.closed_total.get_or_create(&vec![("reason", reason)]).inc();
}

/// Judges the cursor. `None`: this gateway does not know enough to do so, and another may.
async fn resume(app: &App, cursor: Option<Result<Cursor, Invalid>>) -> Option<Resume> {
    let cursor = match cursor {
        None => return Some(Resume::Fresh),
        Some(Err(Invalid)) => return Some(Resume::Refused(Code::CursorInvalid)),
        Some(Ok(cursor)) => cursor,
    };
    // An epoch is on record before anybody seals a cursor of it.
    if !tokio::time::timeout(AHEAD_PATIENCE, entered(app, cursor.epoch)).await.ok()? {
        return Some(Resume::Refused(Code::CursorInvalid));
    }
    let Position { seq, id } = app.epochs.kept_of(cursor);
    if seq < app.oldest() {
        return Some(Resume::Refused(Code::CursorExpired));
    }
    if tokio::time::timeout(AHEAD_PATIENCE, app.hub.passed(seq)).await.is_err() {
        return Some(Resume::Refused(Code::CursorInvalid));
    }
    // Below the ring, the seal and the epoch vouch for the cursor: we made it, and no cut went below it.
    let known = app.hub.lock().ring.id_at(seq);
    if known.is_some_and(|known| known != id && seq > Seq::ZERO) {
        return Some(Resume::Refused(Code::CursorInvalid));
    }
    Some(Resume::From(cursor))
}

/// Waits until the hub is in the newest history on record, and in no earlier one than `epoch`. `false`: there is no such
/// epoch on record.
async fn entered(app: &App, epoch: u32) -> bool {
    loop {
        let (here, known) = (app.hub.lock().epoch, app.epochs.current());
        if here >= epoch && here == known {
            return true;
        }
        if known < epoch {
            match feed::learn_cuts(app).await {
                Ok(()) if app.epochs.current() < epoch => return false,
                Ok(()) => {}
                Err(error) => tracing::debug!(%error, "a cursor of a later epoch waits"),
            }
        }
        tokio::time::sleep(EPOCH_POLL).await;
    }
}

fn welcome(app: &App, session: &Session, resume: &Resume) {
    let settings = &app.settings.session;
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
    send(app, session, &welcome.into());
    if let Resume::Refused(code) = resume {
        reply::notify(session, &Failure::refused(*code, code.title()), app.clock.now_ms());
    }
}

async fn attach(app: &Arc<App>, session: &Arc<Session>, resume: &Resume) {
    let mut from = match resume {
        Resume::From(cursor) => Some(*cursor),
        Resume::Fresh | Resume::Refused(_) => None,
    };
    loop {
        match app.hub.attach(session, from) {
            Attached::Live => return app.presence.live(session),
            Attached::CatchUp => return catch_up::spawn(app, session),
            Attached::Unknown => {
                if let Err(failure) = app.loader.user(session.user()).await {
                    tracing::warn!(%failure, "a session could not start");
                    return session.close(Close::Internal, app.clock.now_ms());
                }
            }
            Attached::Cut => match carry_over(app, session, from).await {
                Ok(carried) => from = carried,
                Err(failure) => {
                    tracing::warn!(%failure, "a session could not start after a cut");
                    return session.close(Close::Internal, app.clock.now_ms());
                }
            },
        }
    }
}

/// Tells a session with a cursor of a former history where its chats stand. From where it goes on; still from there, if
/// its user is to be loaded once more.
async fn carry_over(app: &App, session: &Session, from: Option<Cursor>) -> Result<Option<Cursor>, Failure> {
    let Some(cursor) = from else { return Ok(None) };
    let Some(cut) = app.epochs.lowest_after(cursor.epoch) else { return Err(Failure::log_unavailable()) };
    // The hub knows only of those that its ring saw end.
    let (_, memberships) = app.db.memberships_of(&[session.user()], cut.seq).await?;
    let left: Vec<ChatId> = memberships.into_iter().map(|membership| membership.chat).collect();
    Ok(app.hub.carry_over(session, cursor, cut, &left).or(from))
}

fn send(app: &App, session: &Session, frame: &ServerFrame) {
    session.push_control(wire::encode(frame, session.identity.encoding), app.clock.now_ms());
}
