//! From a client's frame to what it asks for: an exhaustive match, one line per arm.
//!
//! Runs on the session's task and never waits: commands go to their chat's lane, reads to a task of their own.
//! Invariant: a frame is answered, ignored as the protocol says, or dropped as best effort; nothing panics.

use std::sync::Arc;

use shared::{
    code::Code,
    codec::{self, Rejected},
    frame::{self, ClientFrame},
    id::ChatId,
};
use uuid::Uuid;

use super::{Session, fetch, lanes, reply, signal};
use crate::{
    app::App,
    command::{Actor, Command, Failure},
};

/// A text frame: JSON, whatever the session is sent.
pub fn text(app: &Arc<App>, session: &Arc<Session>, bytes: &[u8]) {
    decoded(app, session, codec::decode_client_json(bytes));
}

/// A binary frame: MessagePack.
pub fn binary(app: &Arc<App>, session: &Arc<Session>, bytes: &[u8]) {
    decoded(app, session, codec::decode_client_msgpack(bytes));
}

fn decoded(app: &Arc<App>, session: &Arc<Session>, decoded: Result<Option<ClientFrame>, Rejected>) {
    match decoded {
        Ok(Some(frame)) => dispatch(app, session, frame),
        Ok(None) => {}
        Err(rejected) => {
            let failure = Failure::refused(rejected.code, rejected.message);
            refuse(app, session, rejected.uuid, &failure);
        }
    }
}

fn dispatch(app: &Arc<App>, session: &Arc<Session>, frame: ClientFrame) {
    if !matches!(frame, ClientFrame::Pong(_)) {
        app.hub.serves(app.clock.now_ms());
    }
    match frame {
        ClientFrame::SendMessage(send) => {
            let frame::SendMessage { uuid, chat_id: chat, body, reply_to, mentions } = send;
            command(app, session, chat, uuid, Command::Send { chat, uuid, body, reply_to, mentions });
        }
        ClientFrame::EditMessage(edit) => {
            let frame::EditMessage { uuid, chat_id: chat, seq, body, mentions } = edit;
            command(app, session, chat, uuid, Command::Edit { chat, uuid, seq, body, mentions });
        }
        ClientFrame::DeleteMessage(frame::DeleteMessage { uuid, chat_id: chat, seq }) => {
            command(app, session, chat, uuid, Command::Delete { chat, uuid, seq });
        }
        ClientFrame::React(frame::React { uuid, chat_id: chat, seq, emoji, on }) => {
            command(app, session, chat, uuid, Command::React { chat, uuid, seq, emoji, on });
        }
        ClientFrame::Fetch(fetch) => fetch::start(app, session, fetch),
        ClientFrame::Read(read) => signal::read(app, session, read),
        ClientFrame::Delivered(delivered) => signal::delivered(app, session, delivered),
        ClientFrame::Typing(typing) => signal::typing(app, session, typing),
        ClientFrame::WatchPresence(watch) => signal::watch(app, session, watch),
        ClientFrame::SetPresence(set) => signal::set_presence(app, session, set),
        ClientFrame::Auth(auth) => renew(app, session, &auth),
        ClientFrame::Ping(ping) => {
            reply::send(session, &frame::Pong { t: ping.t }.into(), app.clock.now_ms());
        }
        ClientFrame::Pong(_) => {}
    }
}

fn command(app: &Arc<App>, session: &Arc<Session>, chat: ChatId, uuid: Uuid, command: Command) {
    match admit(app, session) {
        Ok(()) => lanes::start(app, session, chat, uuid, command),
        Err(failure) => refuse(app, session, Some(uuid), &failure),
    }
}

/// The limits of durable commands. An admitted one must be answered by [`reply::outcome`].
pub fn admit(app: &App, session: &Session) -> Result<(), Failure> {
    if let Err(early) = session.durable_bucket.check() {
        let wait = early.wait_time_from(std::time::Instant::now());
        let retry_after_ms = wait.as_millis() as u64 + 1;
        return Err(Failure::temporary(Code::RateLimited, retry_after_ms, "too many commands; slow down"));
    }
    if !session.begin_command(app.settings.session.inflight) {
        return Err(Failure::temporary(Code::LimitExceeded, 100, "too many commands in flight"));
    }
    Ok(())
}

/// Refuses a frame that was not taken, which counts towards flooding.
pub fn refuse(app: &App, session: &Session, uuid: Option<Uuid>, failure: &Failure) {
    app.metrics.refused_total.get_or_create(&vec![("code", failure.code.as_str())]).inc();
    reply::refuse(session, uuid, failure, app.clock.now_ms());
}

fn renew(app: &App, session: &Session, auth: &frame::Auth) {
    let own = |identity: &crate::auth::Identity| {
        identity.user == session.identity.user && identity.did == session.identity.did
    };
    let outcome = match app.tokens.verify(&auth.token) {
        Ok(identity) if !own(&identity) => Err(Code::AuthMismatch),
        Ok(identity) if app.revocations.is_revoked(identity.did) => Err(Code::AuthRevoked),
        outcome => outcome,
    };
    match outcome {
        Ok(identity) => {
            session.renew(identity.expires_ms);
            let expires_in_ms = identity.expires_ms.saturating_sub(crate::clock::unix_ms());
            reply::send(session, &frame::AuthOk { expires_in_ms }.into(), app.clock.now_ms());
        }
        Err(code) => refuse(app, session, auth.uuid, &Failure::refused(code, code.title())),
    }
}

impl Session {
    /// The session as the author of commands.
    pub fn actor(&self) -> Actor {
        Actor { user: self.identity.user, did: self.identity.did, device: self.identity.device.to_string() }
    }
}
