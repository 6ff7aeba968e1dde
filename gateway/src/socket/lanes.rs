//! Runs a session's commands: one after the other for each chat, side by side for different chats.
//!
//! A chat with commands has a task, which ends with the last of them. Invariant: a command is published only after
//! the log has answered the one before it to the same chat, so the log has them in the order in which the client sent
//! them.

use std::sync::Arc;

use shared::id::ChatId;
use tokio::time::Instant;
use tracing::Instrument;

use super::services::Services;
use crate::{
    command::Command,
    session::{Session, close::Close, queue::Queued},
    submit::COMMAND_DEADLINE,
};

/// Runs a command after the session's earlier ones to the same chat. It is answered in any case.
pub(super) fn start(services: &Arc<Services>, session: &Arc<Session>, command: Command) {
    let chat = command.chat;
    let queued = Queued { command, deadline: Instant::now() + COMMAND_DEADLINE };
    if let Some(first) = session.enqueue(queued) {
        services.tracker.spawn(run(services.clone(), session.clone(), chat, first));
    }
}

async fn run(services: Arc<Services>, session: Arc<Session>, chat: ChatId, first: Queued) {
    let mut next = Some(first);
    while let Some(Queued { command, deadline }) = next {
        // Named after the destination's template, as the messaging conventions ask: never an id.
        let span = if services.traced {
            tracing::info_span!("publish chat", otel.kind = "producer", messaging.system = "nats")
        } else {
            tracing::Span::none()
        };
        if may_no_longer(&session) {
            session.end_command();
        } else {
            services.commands.run_for(&session, command, deadline).instrument(span).await;
        }
        next = session.next_command(chat);
    }
}

/// Whether the session's device may do nothing any more. What it had sent and had to wait is not executed.
fn may_no_longer(session: &Session) -> bool {
    let lost = [Close::Revoked.code(), Close::TokenExpired.code()];
    session.closing().is_some_and(|code| lost.contains(&code))
}

#[cfg(test)]
mod tests;
