//! Turns signals into frames for local sessions.
//!
//! A frame is encoded once per encoding, and pushed to every local session that it concerns. A session whose queue is
//! too full does not get it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use shared::{frame, id::UserId};
use streams::signal::{Announced, PresenceChange, PresenceState, Receipts, Signal, SignalKind, Typing};

use super::{Presence, receipts::ReceiptsFrame};
use crate::session::{Lane, Session, wire};

/// How long clients show that a user types, unless another `Typing` follows.
const TYPING_TTL_MS: u64 = 6_000;
/// A session with more than this in its queue gets no `Typing`. Of all frames, these are dropped first.
const TYPING_QUEUE_BYTES: usize = 8 * 1024;
/// How long a change is taken to be newer than the state in a read of Redis that began before it.
const NEWER_MS: u64 = 2_000;
/// How long a change is remembered, so that it is not pushed again when it is announced again. An instance of presence
/// may die while it announces. Its claim then holds for 2 s, and the instance that takes over may need some more.
const KNOWN_MS: u64 = 10_000;
/// Above this many remembered changes (3 MB) they are kept for [`NEWER_MS`] only, not for [`KNOWN_MS`].
const MAX_KNOWN: usize = 50_000;
/// The wait before a failed subscription is tried again.
const RETRY: Duration = Duration::from_secs(1);

const KINDS: [SignalKind; 4] =
    [SignalKind::Presence, SignalKind::Typing, SignalKind::Receipts, SignalKind::SnapshotWanted];

impl Presence {
    /// Receives signals and pushes them to sockets, for ever.
    pub(super) async fn receive(&self) {
        let mut signals = loop {
            match self.nats.signals(&KINDS).await {
                Ok(signals) => break signals,
                Err(error) => {
                    tracing::warn!(%error, "can't subscribe to signals");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        loop {
            tokio::select! {
                signal = signals.next() => self.receive_one(signal),
                () = self.receipts.due(&self.clock) => self.push_receipts(),
            }
        }
    }

    fn receive_one(&self, signal: Signal) {
        match signal {
            Signal::Presence(changes) => self.push_changes(&changes),
            Signal::Typing(typing) => self.push_typing(typing),
            Signal::Receipts(receipts) => self.take_receipts(&receipts),
            Signal::SnapshotWanted(wanted) => self.reporter.want_snapshot(wanted.gateway),
            // Not in `KINDS`, so never received.
            Signal::Watermark(_)
            | Signal::Revoked(_)
            | Signal::ProjectionWanted(_)
            | Signal::EpochChanged(_)
            | Signal::Connections(_)
            | Signal::Snapshot(_) => {}
        }
    }

    /// Pushes a frame that may be dropped.
    pub(super) fn push(&self, session: &Session, bytes: &Bytes) {
        if !session.push_ephemeral(bytes, self.clock.now_ms()) {
            self.metrics.dropped_ephemeral_total.inc();
        }
    }

    fn push_changes(&self, changes: &[PresenceChange]) {
        let now_ms = self.clock.now_ms();
        for change in changes {
            if !self.recent.note(change, now_ms) {
                continue;
            }
            let mut encoded = wire::Encoded::new(frame(change.user, change.announced).into());
            let mut targets = self.watchers_of(change);
            targets.retain(|session| session.lane() == Lane::Live);
            for session in &targets {
                self.push(session, encoded.of(session.identity.encoding));
            }
        }
    }

    /// The local sessions of the user's partners, and those that watch the user and still share a chat with them; each
    /// once.
    fn watchers_of(&self, change: &PresenceChange) -> Vec<Arc<Session>> {
        let mut targets: Vec<Arc<Session>> = self.watches.watchers(change.user).into_vec();
        targets.retain(|session| self.still_sees(session, change.user));
        let explicit = targets.len();
        targets.extend(self.hub.sessions_of_all(&change.partners));
        if explicit > 0 {
            targets.sort_unstable_by_key(|session| session.id);
            targets.dedup_by_key(|session| session.id);
        }
        targets
    }

    fn push_typing(&self, typing: Typing) {
        // The typist may have been removed since another gateway sent this.
        if !self.hub.is_in(typing.chat, typing.user) {
            return;
        }
        let frame = frame::Typing { chat_id: typing.chat, user_id: typing.user, ttl_ms: TYPING_TTL_MS };
        let mut encoded = wire::Encoded::new(frame.into());
        let members = self.hub.live_members(typing.chat);
        for (session, _) in members.iter().filter(|(session, _)| session.user() != typing.user) {
            if session.queued_bytes() > TYPING_QUEUE_BYTES {
                self.metrics.dropped_ephemeral_total.inc();
            } else {
                self.push(session, encoded.of(session.identity.encoding));
            }
        }
    }

    fn take_receipts(&self, receipts: &[Receipts]) {
        let local = self.hub.with_locals(receipts.iter().map(|of_chat| of_chat.chat));
        for of_chat in receipts.iter().filter(|of_chat| local.contains(&of_chat.chat)) {
            self.receipts.add(of_chat);
        }
        self.push_receipts();
    }

    fn push_receipts(&self) {
        for (chat_id, mut receipts) in self.receipts.take(self.clock.now_ms()) {
            receipts.retain(|receipt| self.hub.is_in(chat_id, receipt.user_id));
            if receipts.is_empty() {
                continue;
            }
            let mut frame = ReceiptsFrame::new(chat_id, receipts);
            for (session, sight) in self.hub.live_members(chat_id) {
                if let Some(bytes) = frame.of(session.identity.encoding, &sight) {
                    self.push(&session, &bytes);
                }
            }
        }
    }
}

/// The frame with the state of a user.
pub(super) fn frame(user_id: UserId, announced: Announced) -> frame::Presence {
    let state = match announced.state {
        PresenceState::Online => frame::PresenceState::Online,
        PresenceState::Away => frame::PresenceState::Away,
        PresenceState::Offline => frame::PresenceState::Offline,
    };
    frame::Presence { user_id, state, last_seen_ts: announced.last_seen_ms }
}

/// The changes of the last seconds. They correct states that were read from Redis just before, and they show whether a
/// change is announced a second time.
#[derive(Default)]
pub(super) struct Recent(Mutex<HashMap<UserId, Noted>>);

struct Noted {
    announced: Announced,
    /// Whether the change named the user's partners. It names none while presence can't read them from Postgres.
    named: bool,
    at_ms: u64,
}

impl Recent {
    /// Remembers a change, and returns whether it must be pushed. It need not be if it is announced a second time: an
    /// instance of presence may die before it notes what it announced, and another one then announces it again.
    fn note(&self, change: &PresenceChange, now_ms: u64) -> bool {
        let new = Noted { announced: change.announced, named: !change.partners.is_empty(), at_ms: now_ms };
        let (announced, named) = (new.announced, new.named);
        let before = self.0.lock().insert(change.user, new);
        before.is_none_or(|before| {
            before.announced != announced || (named && !before.named) || before.at_ms + KNOWN_MS <= now_ms
        })
    }

    /// Replaces the states that were read from Redis by newer changes.
    pub(super) fn correct(&self, read: &mut HashMap<UserId, Announced>, users: &[UserId], now_ms: u64) {
        let recent = self.0.lock();
        if recent.is_empty() {
            return;
        }
        for user in users {
            if let Some(noted) = recent.get(user)
                && noted.at_ms + NEWER_MS > now_ms
            {
                read.insert(*user, noted.announced);
            }
        }
    }

    /// Forgets the changes that are too old to matter.
    pub(super) fn forget_old(&self, now_ms: u64) {
        let mut recent = self.0.lock();
        let known_ms = if recent.len() > MAX_KNOWN { NEWER_MS } else { KNOWN_MS };
        recent.retain(|_, noted| noted.at_ms + known_ms > now_ms);
        if recent.is_empty() {
            *recent = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> UserId {
        UserId::new(7).unwrap()
    }

    fn change(state: PresenceState, partners: &[u64]) -> PresenceChange {
        let partners = partners.iter().map(|id| UserId::new(*id).unwrap()).collect();
        PresenceChange { user: user(), announced: Announced { state, last_seen_ms: 1 }, partners }
    }

    #[test]
    fn what_is_announced_again_is_no_news_until_it_is_forgotten() {
        let recent = Recent::default();
        let online = change(PresenceState::Online, &[8]);
        assert!(recent.note(&online, 0));
        assert!(!recent.note(&online, 3_000), "another instance took a dead one's claim over");
        assert!(recent.note(&change(PresenceState::Offline, &[8]), 4_000));
        assert!(recent.note(&online, 5_000), "another change between them makes it news");
        assert!(recent.note(&online, 5_000 + KNOWN_MS));
    }

    #[test]
    fn a_copy_that_names_the_partners_at_last_is_news() {
        let recent = Recent::default();
        assert!(recent.note(&change(PresenceState::Online, &[]), 0));
        assert!(recent.note(&change(PresenceState::Online, &[8]), 1));
        assert!(!recent.note(&change(PresenceState::Online, &[8]), 2));
    }

    #[test]
    fn only_a_change_of_just_now_is_newer_than_what_is_read() {
        let recent = Recent::default();
        let (online, away) = (change(PresenceState::Online, &[]), change(PresenceState::Away, &[]).announced);
        recent.note(&online, 0);
        let read_at = |now_ms| {
            let mut read = HashMap::from([(user(), away)]);
            recent.correct(&mut read, &[user()], now_ms);
            read[&user()]
        };
        assert_eq!(read_at(NEWER_MS - 1), online.announced);
        assert_eq!(read_at(NEWER_MS), away);
        recent.forget_old(KNOWN_MS);
        assert!(recent.0.lock().is_empty());
    }
}
