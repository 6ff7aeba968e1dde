//! Answers to a session's commands: `Ack` and `Error` frames.

use shared::{code::Code, frame, id::ChatId};
use uuid::Uuid;

use super::{Session, wire};
use crate::command::{Failure, Stored};

/// Answers a command that was taken ([`Session::begin_command`]).
pub fn outcome(
    session: &Session,
    uuid: Option<Uuid>,
    chat: Option<ChatId>,
    outcome: Result<Stored, Failure>,
    now_ms: u64,
) {
    match (outcome, uuid, chat) {
        (Ok(stored), Some(uuid), Some(chat_id)) => {
            let ack = frame::Ack { uuid, chat_id, seq: stored.seq, ts: stored.ts, dup: stored.dup };
            send(session, &ack.into(), now_ms);
        }
        (Ok(_), _, _) => {}
        (Err(failure), uuid, _) => send(session, &error(uuid, &failure).into(), now_ms),
    }
    session.end_command();
}

/// Refuses a frame that was never taken as a command, and closes the session if it floods.
pub fn refuse(session: &Session, uuid: Option<Uuid>, failure: &Failure, now_ms: u64) {
    send(session, &error(uuid, failure).into(), now_ms);
    let malformed = failure.code == Code::FrameMalformed;
    if let Some(close) = session.refuse(malformed, now_ms) {
        session.close(close, now_ms);
    }
}

/// Queues a frame that the log does not have.
pub fn send(session: &Session, frame: &frame::ServerFrame, now_ms: u64) {
    session.push_control(wire::encode(frame, session.identity.encoding), now_ms);
}

fn error(uuid: Option<Uuid>, failure: &Failure) -> frame::Error {
    frame::Error {
        uuid,
        code: failure.code.as_str().into(),
        temporary: failure.temporary,
        retry_after_ms: failure.retry_after_ms,
        message: failure.message.clone(),
        trace_id: None,
    }
}

/// Queues an `Error` that answers no command.
pub fn notify(session: &Session, failure: &Failure, now_ms: u64) {
    send(session, &error(None, failure).into(), now_ms);
}
