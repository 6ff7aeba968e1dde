//! Answers to a session's commands, and refusals of its frames: `Ack` and `Error`.

use shared::{code::Code, frame};
use uuid::Uuid;

use super::{Session, flood::Idle, wire};
use crate::command::{Failure, Stored};

/// Answers a command that was taken ([`Session::begin_command`]).
pub fn outcome(session: &Session, uuid: Uuid, outcome: Result<Stored, Failure>, now_ms: u64) {
    let answer = match outcome {
        Ok(Stored { chat: chat_id, seq, ts, dup }) => frame::Ack { uuid, chat_id, seq, ts, dup }.into(),
        Err(failure) => error(Some(uuid), &failure).into(),
    };
    send(session, &answer, now_ms);
    session.end_command();
}

/// Refuses a frame that was never taken as a command, and closes the session if it floods.
pub fn refuse(session: &Session, uuid: Option<Uuid>, failure: &Failure, now_ms: u64) {
    send(session, &error(uuid, failure).into(), now_ms);
    let frame = if failure.code == Code::FrameMalformed { Idle::Malformed } else { Idle::Refused };
    session.count_idle(frame, now_ms);
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
