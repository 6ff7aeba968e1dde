//! The ephemeral lane of a session: reads, deliveries, typing and presence.
//!
//! Best effort: what exceeds its bucket is dropped. Read marks go through a stream and are persisted by the
//! presence service.

use std::sync::Arc;

use shared::{code::Code, frame, id::{ChatId, Seq}};
use uuid::Uuid;

use super::{Session, dispatch};
use crate::{app::App, command::Failure};

/// `Read`: up to here the user has seen the chat.
pub fn read(app: &Arc<App>, session: &Arc<Session>, read: frame::Read) {
    if session.ephemeral_bucket.check().is_err() {
        return;
    }
    let (app2, session) = (app.clone(), session.clone());
    app.tracker.spawn(async move {
        if let Err(failure) = mark_read(&app2, &session, read.chat_id, read.seq).await {
            dispatch::refuse(&app2, &session, read.uuid, &failure);
        }
    });
}

async fn mark_read(app: &App, session: &Session, chat: ChatId, seq: Seq) -> Result<(), Failure> {
    let head = app.commands.member(chat, session.user()).await?.head;
    if seq > head {
        app.commands.catch_barrier().await?;
        let head = app.commands.member(chat, session.user()).await?.head;
        if seq > head {
            return Err(Failure::refused(Code::ReadBeyondHead, Code::ReadBeyondHead.title()));
        }
    }
    app.marks.read(session.user(), chat, seq).await.map_err(|_| Failure::log_unavailable())
}
