//! A session's commands, one chat at a time.
//!
//! Invariant: commands of one session to one chat are published one after the other, so the log has them in the
//! order in which they came; different chats do not wait for each other. Idle sessions hold no lane.

use std::{collections::VecDeque, sync::Arc};

use foldhash::fast::FixedState;
use hashbrown::{HashMap, hash_map::Entry};
use shared::id::ChatId;
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use super::Session;
use crate::{
    app::App,
    command::{Command, service::COMMAND_DEADLINE},
};

/// The chats with a command under way, and what waits behind it. Bounded by the commands in flight.
#[derive(Debug, Default)]
pub struct CommandLanes(HashMap<ChatId, VecDeque<Queued>, FixedState>);

#[derive(Debug)]
struct Queued {
    uuid: Uuid,
    command: Command,
    deadline: Instant,
}

/// Runs a command of a session behind its earlier ones to the same chat. It is answered in any case.
pub fn start(app: &Arc<App>, session: &Arc<Session>, chat: ChatId, uuid: Uuid, command: Command) {
    let queued = Queued { uuid, command, deadline: Instant::now() + COMMAND_DEADLINE };
    match session.lanes.lock().get_or_insert_default().0.entry(chat) {
        Entry::Occupied(mut lane) => lane.get_mut().push_back(queued),
        Entry::Vacant(lane) => {
            lane.insert(VecDeque::new());
            app.tracker.spawn(run(app.clone(), session.clone(), chat, queued));
        }
    }
}

async fn run(app: Arc<App>, session: Arc<Session>, chat: ChatId, first: Queued) {
    let mut next = Some(first);
    while let Some(Queued { uuid, command, deadline }) = next {
        // Named after the destination's template, as the messaging conventions ask: never an id. Without an
        // exporter a span would only cost the log's formatter a microsecond.
        let span = if app.settings.otel.otlp_endpoint.is_some() {
            tracing::info_span!("publish chat", otel.kind = "producer", messaging.system = "nats")
        } else {
            tracing::Span::none()
        };
        app.commands.run_for(&session, uuid, chat, command, deadline).instrument(span).await;
        next = session.next_command(chat);
    }
}

impl Session {
    fn next_command(&self, chat: ChatId) -> Option<Queued> {
        let mut lanes = self.lanes.lock();
        let next = lanes.as_mut()?.0.get_mut(&chat)?.pop_front();
        if next.is_none()
            && let Some(all) = lanes.as_mut()
        {
            all.0.remove(&chat);
            if all.0.is_empty() {
                *lanes = None;
            }
        }
        next
    }
}
