//! The ephemeral lane of a session: reads, deliveries, typing and presence.
//!
//! Best effort: what exceeds its bucket is dropped. Read marks go through a stream and are persisted by the
//! presence service. A negative check of a membership or a head is repeated after a barrier, for this gateway may
//! only be a moment behind.

use std::sync::Arc;

use shared::{
    code::Code,
    frame,
    id::{ChatId, Seq, UserId},
};
use streams::marks::Mark;
use uuid::Uuid;

use super::{Session, dispatch};
use crate::{app::App, command::Failure, presence::MAX_WATCHED};

/// `Read`: up to here the user has seen the chat.
pub fn read(app: &Arc<App>, session: &Arc<Session>, read: frame::Read) {
    if session.ephemeral_bucket.check().is_err() {
        return;
    }
    let frame::Read { chat_id: chat, seq, uuid } = read;
    when_certain(app, session, uuid, move |app, user| {
        let head = head(app, chat, user)?;
        if seq > head {
            return Err(Code::ReadBeyondHead);
        }
        app.presence.mark(Mark { user, chat, read: Some(seq), delivered: None });
        Ok(())
    });
}

/// `Typing`: for the other members.
pub fn typing(app: &Arc<App>, session: &Arc<Session>, typing: frame::client::Typing) {
    if session.ephemeral_bucket.check().is_err() {
        return;
    }
    let frame::client::Typing { chat_id: chat, uuid } = typing;
    when_certain(app, session, uuid, move |app, user| {
        head(app, chat, user)?;
        app.presence.typing(chat, user);
        Ok(())
    });
}

/// `Delivered`: everything that the cursor covers is on the device.
pub fn delivered(app: &Arc<App>, session: &Arc<Session>, delivered: frame::Delivered) {
    if session.ephemeral_bucket.check().is_err() {
        return;
    }
    match app.hub.sealer.open(session.user(), &delivered.cursor) {
        Ok(cursor) => app.presence.delivered(session, cursor.position.seq),
        Err(_) => {
            let failure = Failure::refused(Code::CursorInvalid, Code::CursorInvalid.title());
            dispatch::refuse(app, session, delivered.uuid, &failure);
        }
    }
}

/// `WatchPresence`: whose presence the session wants besides that of its partners in direct chats.
pub fn watch(app: &Arc<App>, session: &Arc<Session>, watch: frame::WatchPresence) {
    if session.ephemeral_bucket.check().is_err() {
        return;
    }
    let uuid = watch.uuid;
    let outcome = if watch.user_ids.len() > MAX_WATCHED {
        Err(Failure::refused(Code::LimitExceeded, "at most 500 users can be watched"))
    } else {
        let watched = app.presence.watch(session, watch.user_ids);
        watched.map_err(|error| Failure::temporary(Code::LimitExceeded, 1_000, error.to_string()))
    };
    if let Err(failure) = outcome {
        dispatch::refuse(app, session, uuid, &failure);
    }
}

/// `SetPresence`: whether the user is looking.
pub fn set_presence(app: &Arc<App>, session: &Arc<Session>, set: frame::SetPresence) {
    if session.ephemeral_bucket.check().is_err() {
        return;
    }
    app.presence.set_away(session, set.state == frame::PresenceState::Away);
}

/// Acts at once if this gateway sees no objection; otherwise once more as of a barrier, and that is final.
fn when_certain(
    app: &Arc<App>,
    session: &Arc<Session>,
    uuid: Option<Uuid>,
    act: impl Fn(&App, UserId) -> Result<(), Code> + Send + 'static,
) {
    if act(app, session.user()).is_ok() {
        return;
    }
    let (app2, session) = (app.clone(), session.clone());
    app.tracker.spawn(async move {
        let outcome = match app2.commands.catch_barrier().await {
            Ok(()) => act(&app2, session.user()).map_err(|code| Failure::refused(code, code.title())),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = outcome {
            dispatch::refuse(&app2, &session, uuid, &failure);
        }
    });
}

/// The head of a chat of which the user is a member.
fn head(app: &App, chat: ChatId, user: UserId) -> Result<Seq, Code> {
    let state = app.hub.lock();
    state.membership(chat, user).map(|(_, head)| head).ok_or(Code::ChatNotFound)
}
