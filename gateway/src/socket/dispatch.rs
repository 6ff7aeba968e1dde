//! From a client's frame to the code that serves it: an exhaustive match, one line per arm.
//!
//! Runs on the session's task and never waits: commands go into the queue of their chat, fetches to a task of their
//! own. Invariant: each frame is answered, or ignored where the protocol says so, or dropped where it is best effort.
//! Frames of unknown types are ignored, since a newer client may send them. Whatever a frame does, it uses up some
//! allowance of its session, so a flood of any kind is closed.

use std::sync::Arc;

use shared::{
    code::Code,
    codec::{self, Rejected},
    frame::{self, ClientFrame},
};

use super::{
    admission::{admit, refuse},
    fetch, lanes,
    services::Services,
    signal,
};
use crate::{
    auth::Identity,
    command::{Change, Command, Failure},
    infra::clock::unix_ms,
    session::{Session, reply},
};

/// A text frame holds JSON, also in a session that is sent MessagePack.
pub(super) fn text(services: &Arc<Services>, session: &Arc<Session>, bytes: &[u8]) {
    decoded(services, session, codec::decode_client_json(bytes));
}

/// A binary frame holds MessagePack.
pub(super) fn binary(services: &Arc<Services>, session: &Arc<Session>, bytes: &[u8]) {
    decoded(services, session, codec::decode_client_msgpack(bytes));
}

fn decoded(services: &Arc<Services>, session: &Arc<Session>, decoded: Result<Option<ClientFrame>, Rejected>) {
    match decoded {
        Ok(Some(frame)) => dispatch(services, session, frame),
        Ok(None) => ignore(services, session),
        Err(rejected) => {
            let failure = Failure::refused(rejected.code, rejected.message);
            refuse(services, session, rejected.uuid, &failure);
        }
    }
}

fn dispatch(services: &Arc<Services>, session: &Arc<Session>, frame: ClientFrame) {
    // A pong only answers the gateway's own ping: it says nothing of whether the client is active.
    if !matches!(frame, ClientFrame::Pong(_)) {
        services.hub.serves(services.now_ms());
    }
    match frame {
        ClientFrame::SendMessage(send) => {
            let frame::SendMessage { uuid, chat_id: chat, body, reply_to, mentions } = send;
            command(
                services,
                session,
                Command { chat, uuid, change: Change::Send { body, reply_to, mentions } },
            );
        }
        ClientFrame::EditMessage(edit) => {
            let frame::EditMessage { uuid, chat_id: chat, seq, body, mentions } = edit;
            command(services, session, Command { chat, uuid, change: Change::Edit { seq, body, mentions } });
        }
        ClientFrame::DeleteMessage(frame::DeleteMessage { uuid, chat_id: chat, seq }) => {
            command(services, session, Command { chat, uuid, change: Change::Delete { seq } });
        }
        ClientFrame::React(frame::React { uuid, chat_id: chat, seq, emoji, on }) => {
            command(services, session, Command { chat, uuid, change: Change::React { seq, emoji, on } });
        }
        ClientFrame::Fetch(fetch) => fetch::start(services, session, fetch),
        ClientFrame::Read(read) => signal::read(services, session, read),
        ClientFrame::Delivered(delivered) => signal::delivered(services, session, delivered),
        ClientFrame::Typing(typing) => signal::typing(services, session, typing),
        ClientFrame::WatchPresence(watch) => signal::watch(services, session, watch),
        ClientFrame::SetPresence(set) => signal::set_presence(services, session, set),
        ClientFrame::Auth(auth) => renew(services, session, &auth),
        ClientFrame::Ping(ping) => {
            if session.spend_idle(services.now_ms()) {
                reply::send(session, &frame::Pong { t: ping.t }.into(), services.now_ms());
            }
        }
        ClientFrame::Pong(_) => ignore(services, session),
    }
}

/// A frame that asks for nothing.
pub(super) fn ignore(services: &Services, session: &Session) {
    session.spend_idle(services.now_ms());
}

fn command(services: &Arc<Services>, session: &Arc<Session>, command: Command) {
    match admit(services, session) {
        Ok(()) => lanes::start(services, session, command),
        Err(failure) => refuse(services, session, Some(command.uuid), &failure),
    }
}

/// `Auth`: a fresh token, which must be of the same user and login.
fn renew(services: &Services, session: &Session, auth: &frame::Auth) {
    // Checking a signature is the most expensive thing that a frame can ask for.
    if !session.spend_answered() {
        let failure = Failure::temporary(Code::RateLimited, 1_000, "too many frames; slow down");
        return refuse(services, session, auth.uuid, &failure);
    }
    let outcome = match services.auth.tokens.verify(&auth.token) {
        Ok(identity) if !is_own(session, &identity) => Err(Code::AuthMismatch),
        Ok(_) => services.auth.identify(&auth.token),
        Err(code) => Err(code),
    };
    match outcome {
        Ok(identity) => {
            session.renew(identity.expires_ms);
            let expires_in_ms = identity.expires_ms.saturating_sub(unix_ms());
            reply::send(session, &frame::AuthOk { expires_in_ms }.into(), services.now_ms());
        }
        Err(code) => refuse(services, session, auth.uuid, &Failure::refused(code, code.title())),
    }
}

/// Whether the token is of the session's user and login.
fn is_own(session: &Session, identity: &Identity) -> bool {
    identity.user == session.identity.user && identity.family == session.identity.family
}

#[cfg(test)]
mod tests;
