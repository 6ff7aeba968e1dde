//! Receipts that a device may have missed: a session that becomes live gets the marks in its liveliest chats anew.
//!
//! The marks are read from Postgres for many sessions at a time, one query after the other, so that a storm of connects
//! costs few queries. While Postgres is away nothing is sent.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use shared::{frame, id::ChatId};

use super::{Presence, receipts::ReceiptsFrame};
use crate::session::Session;

/// Sessions that are served together.
const SESSIONS: usize = 64;
/// The most members of one chat whose marks are sent.
const PER_CHAT: usize = 100;

/// Serves the sessions that became live, for ever.
pub(super) async fn serve(presence: &Presence) {
    loop {
        let sessions = presence.missed_receipts.next(SESSIONS).await;
        let sessions = sessions.into_iter().filter(|session| session.closing().is_none());
        let wanted: Vec<(Arc<Session>, Vec<ChatId>)> = sessions
            .map(|session| {
                let chats = presence.hub.liveliest(session.user(), presence.settings.recap_chats);
                (session, chats)
            })
            .collect();
        let chats: HashSet<ChatId> = wanted.iter().flat_map(|(_, chats)| chats).copied().collect();
        let chats: Vec<ChatId> = chats.into_iter().collect();
        if chats.is_empty() {
            continue;
        }
        match presence.db.marks_of_chats(&chats, PER_CHAT).await {
            Ok(marks) => presence.push_marks(&wanted, &marks),
            Err(error) => tracing::debug!(%error, "sessions get no receipts anew"),
        }
    }
}

impl Presence {
    fn push_marks(&self, wanted: &[(Arc<Session>, Vec<ChatId>)], marks: &[sql::marks::Mark]) {
        let mut by_chat: HashMap<ChatId, Vec<frame::Receipt>> = HashMap::new();
        for mark in marks {
            let receipt =
                frame::Receipt { user_id: mark.user, read_seq: mark.read, delivered_seq: mark.delivered };
            by_chat.entry(mark.chat).or_default().push(receipt);
        }
        let frame = |(chat, receipts)| (chat, ReceiptsFrame::new(chat, receipts));
        let mut frames: HashMap<ChatId, ReceiptsFrame> = by_chat.into_iter().map(frame).collect();
        for (session, chats) in wanted {
            for chat in chats.iter().filter(|chat| self.hub.is_member(**chat, session.user())) {
                let Some(sight) = self.hub.sight(session.user(), *chat) else { continue };
                let bytes =
                    frames.get_mut(chat).and_then(|frame| frame.of(session.identity.encoding, &sight));
                if let Some(bytes) = bytes {
                    self.push(session, &bytes);
                }
            }
        }
    }
}
