//! Whether a frame is taken: the limits of durable commands, and the refusal of a frame.
//!
//! Invariant: an admitted command counts as in flight until it is answered; a refused frame counts towards flooding.

use shared::code::Code;
use uuid::Uuid;

use super::services::Services;
use crate::{
    command::Failure,
    session::{Session, reply},
};

/// Takes a durable command within the session's limits. An admitted one must be answered by [`reply::outcome`].
///
/// # Errors
/// The refusal; the command is then answered by [`refuse`].
pub(super) fn admit(services: &Services, session: &Session) -> Result<(), Failure> {
    if let Err(retry_after_ms) = session.spend_durable() {
        return Err(Failure::temporary(Code::RateLimited, retry_after_ms, "too many commands; slow down"));
    }
    if !session.begin_command(services.settings.inflight) {
        return Err(Failure::temporary(Code::LimitExceeded, 100, "too many commands in flight"));
    }
    Ok(())
}

/// Refuses a frame that was not taken, which counts towards flooding.
pub(super) fn refuse(services: &Services, session: &Session, uuid: Option<Uuid>, failure: &Failure) {
    services.hub.metrics.refused_total.get_or_create(&vec![("code", failure.code.as_str())]).inc();
    reply::refuse(session, uuid, failure, services.now_ms());
}
