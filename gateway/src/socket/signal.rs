//! The best-effort frames of a session: `Read`, `Delivered`, `Typing`, `WatchPresence`, `SetPresence`.
//!
//! Frames beyond the session's allowance are dropped without an answer. Read marks go through a stream of their own,
//! and the presence service stores them. Never refuses a frame because this gateway is a moment behind: a check that
//! fails is repeated after a barrier, and only the second answer counts.

use std::sync::Arc;

use shared::{
    code::Code,
    frame,
    id::{ChatId, Seq, UserId},
};
use streams::marks::Mark;
use uuid::Uuid;

use super::{admission::refuse, services::Services};
use crate::{command::Failure, presence::MAX_WATCHED, session::Session};

/// `Read`: up to here the user has seen the chat.
pub(super) fn read(services: &Arc<Services>, session: &Arc<Session>, read: frame::Read) {
    if !session.spend_ephemeral(services.now_ms()) {
        return;
    }
    let frame::Read { chat_id: chat, seq, uuid } = read;
    when_certain(services, session, uuid, move |services, user| {
        let head = head(services, chat, user)?;
        if seq > head {
            return Err(Code::ReadBeyondHead);
        }
        services.presence.mark(Mark { user, chat, read: Some(seq), delivered: None });
        Ok(())
    });
}

/// `Typing`: for the other members.
pub(super) fn typing(services: &Arc<Services>, session: &Arc<Session>, typing: frame::client::Typing) {
    if !session.spend_ephemeral(services.now_ms()) {
        return;
    }
    let frame::client::Typing { chat_id: chat, uuid } = typing;
    when_certain(services, session, uuid, move |services, user| {
        head(services, chat, user)?;
        services.presence.typing(chat, user);
        Ok(())
    });
}

/// `Delivered`: everything that the cursor covers is on the device.
pub(super) fn delivered(services: &Arc<Services>, session: &Arc<Session>, delivered: frame::Delivered) {
    if !session.spend_ephemeral(services.now_ms()) {
        return;
    }
    match services.hub.sealer.open(session.user(), &delivered.cursor) {
        Ok(cursor) => services.presence.delivered(session, cursor.position.seq),
        Err(_) => {
            let failure = Failure::refused(Code::CursorInvalid, Code::CursorInvalid.title());
            refuse(services, session, delivered.uuid, &failure);
        }
    }
}

/// `WatchPresence`: whose presence the session wants besides that of its partners in direct chats.
pub(super) fn watch(services: &Arc<Services>, session: &Arc<Session>, watch: frame::WatchPresence) {
    if !session.spend_ephemeral(services.now_ms()) {
        return;
    }
    let uuid = watch.uuid;
    let outcome = if watch.user_ids.len() > MAX_WATCHED {
        Err(Failure::refused(Code::LimitExceeded, "at most 500 users can be watched"))
    } else {
        let watched = services.presence.watch(session, watch.user_ids);
        watched.map_err(|error| Failure::temporary(Code::LimitExceeded, 1_000, error.to_string()))
    };
    if let Err(failure) = outcome {
        refuse(services, session, uuid, &failure);
    }
}

/// `SetPresence`: whether the user is looking.
pub(super) fn set_presence(services: &Arc<Services>, session: &Arc<Session>, set: frame::SetPresence) {
    if !session.spend_ephemeral(services.now_ms()) {
        return;
    }
    services.presence.set_away(session, set.state == frame::PresenceState::Away);
}

/// Acts at once if the check in `act` passes here. Otherwise `act` runs again after a barrier, and a second failure
/// is told to the client.
fn when_certain(
    services: &Arc<Services>,
    session: &Arc<Session>,
    uuid: Option<Uuid>,
    act: impl Fn(&Services, UserId) -> Result<(), Code> + Send + 'static,
) {
    if act(services, session.user()).is_ok() {
        return;
    }
    let (all, session) = (services.clone(), session.clone());
    services.tracker.spawn(async move {
        let outcome = match all.commands.catch_barrier().await {
            Ok(()) => act(&all, session.user()).map_err(|code| Failure::refused(code, code.title())),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = outcome {
            refuse(&all, &session, uuid, &failure);
        }
    });
}

/// The head of a chat of which the user is a member.
fn head(services: &Services, chat: ChatId, user: UserId) -> Result<Seq, Code> {
    services.hub.membership(chat, user).map(|membership| membership.head).ok_or(Code::ChatNotFound)
}
