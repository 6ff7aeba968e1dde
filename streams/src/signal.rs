//! Signals: ephemeral news between services over core NATS. Any of them may be lost; nothing depends on one.
//!
//! One subject per kind. The bytes are a MessagePack map, so that fields can be added. A signal that can't leave
//! at once, or whose reader is too slow, is dropped.

use futures_util::{FutureExt, StreamExt, stream::SelectAll};
use serde::{Deserialize, Serialize};
use shared::id::{ChatId, Position, Seq, UserId};
use uuid::Uuid;

use crate::connect::{Nats, Unavailable};

macro_rules! signals {
    ($($(#[$doc:meta])* $name:ident($data:ty) = $subject:literal,)*) => {
        /// News that may be lost.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Signal { $($(#[$doc])* $name($data),)* }

        /// The kinds of signals, to subscribe to.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum SignalKind { $($(#[$doc])* $name,)* }

        impl SignalKind {
            const fn subject(self) -> &'static str {
                match self { $(Self::$name => $subject,)* }
            }
        }

        impl Signal {
            pub const fn kind(&self) -> SignalKind {
                match self { $(Self::$name(_) => SignalKind::$name,)* }
            }
        }
    };
}

signals! {
    /// The projection has reached a position. Repeated, so that a lost one does not matter.
    Watermark(Watermark) = "watermark",
    /// A read waits for the projection: the projector writes at once instead of gathering.
    ProjectionWanted(ProjectionWanted) = "projection_wanted",
    /// The log lost its tail. Sent by the projector after the cut is committed to Postgres, where a receiver finds it.
    /// Sent once: a receiver that must not miss a cut also asks the database from time to time.
    EpochChanged(EpochChanged) = "epoch",
    /// A gateway's sessions that came and went since its last report.
    Connections(Connections) = "connections",
    /// All sessions of a gateway, in parts. On the subject of [`Connections`], so that one subscription brings
    /// both in the order in which the gateway sent them.
    Snapshot(Snapshot) = "connections",
    /// Presence has missed something: the gateways shall send a snapshot.
    SnapshotWanted(SnapshotWanted) = "snapshot_wanted",
    /// Users whose presence changed.
    Presence(Vec<PresenceChange>) = "presence",
    /// Someone types.
    Typing(Typing) = "typing",
    /// Read and delivered marks that moved, by chat.
    Receipts(Vec<Receipts>) = "receipts",
    /// A token family was revoked: its sockets close, its access tokens are refused.
    Revoked(Revoked) = "revoked",
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    pub partition: u16,
    pub epoch: u32,
    pub position: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectionWanted {
    pub partition: u16,
    /// Up to here.
    pub seq: Seq,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochChanged {
    pub partition: u16,
    pub epoch: u32,
    pub cut: Position,
}

/// One authenticated socket, as presence sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    pub user: UserId,
    pub session: Uuid,
    pub device: String,
    pub since_ms: u64,
    /// The client says that its user is not looking.
    pub away: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    pub gateway: Uuid,
    /// Rises by one per report of a gateway, so that a lost one is noticed.
    pub report: u64,
    pub came: Vec<Connection>,
    pub went: Vec<Connection>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub gateway: Uuid,
    /// The report that this snapshot includes.
    pub report: u64,
    pub part: u32,
    pub parts: u32,
    pub connections: Vec<Connection>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotWanted {
    /// `None`: of every gateway.
    pub gateway: Option<Uuid>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PresenceState {
    Online,
    Away,
    Offline,
}

/// A user as presence has announced them last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    pub state: PresenceState,
    pub last_seen_ms: u64,
}

impl Announced {
    /// The name of the key in Redis, without the installation's prefix, under which presence keeps what it
    /// announced of a user who is not offline.
    pub fn redis_key(user: UserId) -> String {
        format!("announced:{user}")
    }

    /// Reads the value of such a key: `o:<ms>` for online, `a:<ms>` for away, `f:<ms>` for offline.
    pub fn from_redis(text: &str) -> Option<Self> {
        let (state, last_seen_ms) = text.split_once(':')?;
        let state = match state {
            "o" => PresenceState::Online,
            "a" => PresenceState::Away,
            "f" => PresenceState::Offline,
            _ => return None,
        };
        Some(Self { state, last_seen_ms: last_seen_ms.parse().ok()? })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceChange {
    pub user: UserId,
    pub announced: Announced,
    /// Who shares a direct chat with the user: whom to tell, besides those who watch explicitly.
    pub partners: Vec<UserId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typing {
    pub chat: ChatId,
    pub user: UserId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipts {
    pub chat: ChatId,
    pub receipts: Vec<Receipt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub user: UserId,
    pub read: Seq,
    pub delivered: Seq,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    pub user: UserId,
    pub did: Uuid,
    /// When the family's last access token ends, Unix ms; `None` if the sender does not know.
    #[serde(default)]
    pub until_ms: Option<u64>,
}

/// Signals of the subscribed kinds, over all reconnects.
pub struct Signals {
    subscriptions: SelectAll<async_nats::Subscriber>,
}

impl Signals {
    /// The next signal. Cancel-safe. Never ends: a connection that is gone for good just has no more news.
    pub async fn next(&mut self) -> Signal {
        loop {
            let Some(message) = self.subscriptions.next().await else { std::future::pending().await };
            match rmp_serde::from_slice(&message.payload) {
                Ok(signal) => return signal,
                // Of a newer build, or not ours.
                Err(error) => tracing::debug!(subject = %message.subject, %error, "unreadable signal"),
            }
        }
    }
}

impl Nats {
    /// Sends a signal, if it can leave at once.
    ///
    /// # Errors
    /// [`Unavailable`] if it was dropped; most callers ignore that.
    pub fn signal(&self, signal: &Signal) -> Result<(), Unavailable> {
        if !self.is_connected() {
            return Err(Unavailable::Because("not connected"));
        }
        let payload = rmp_serde::to_vec_named(signal).map_err(Unavailable::new)?;
        let subject = self.layout.signal_subject(signal.kind().subject());
        let publish = self.client.publish(subject, payload.into());
        match tokio::task::unconstrained(publish).now_or_never() {
            Some(sent) => sent.map_err(Unavailable::new),
            None => Err(Unavailable::Because("too many signals")),
        }
    }

    /// Subscribes to kinds of signals.
    ///
    /// # Errors
    /// [`Unavailable`] only if the client has been shut down.
    pub async fn signals(&self, kinds: &[SignalKind]) -> Result<Signals, Unavailable> {
        let mut subscriptions = SelectAll::new();
        for kind in kinds {
            let subject = self.layout.signal_subject(kind.subject());
            subscriptions.push(self.client.subscribe(subject).await.map_err(Unavailable::new)?);
        }
        Ok(Signals { subscriptions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_round_trip() {
        let user = UserId::new(7).unwrap();
        let signals = [
            Signal::Typing(Typing { chat: ChatId::new(1).unwrap(), user }),
            Signal::Watermark(Watermark { partition: 0, epoch: 2, position: Position::default() }),
            Signal::Presence(vec![PresenceChange {
                user,
                announced: Announced { state: PresenceState::Away, last_seen_ms: 3 },
                partners: vec![user],
            }]),
            Signal::SnapshotWanted(SnapshotWanted { gateway: None }),
            Signal::ProjectionWanted(ProjectionWanted { partition: 0, seq: Seq(9) }),
            Signal::Revoked(Revoked { user, did: Uuid::nil(), until_ms: Some(9) }),
        ];
        for signal in signals {
            let bytes = rmp_serde::to_vec_named(&signal).unwrap();
            assert_eq!(rmp_serde::from_slice::<Signal>(&bytes).unwrap(), signal);
        }
    }

    #[test]
    fn redis_texts_are_read() {
        let away = Announced { state: PresenceState::Away, last_seen_ms: 17 };
        assert_eq!(Announced::from_redis("a:17"), Some(away));
        for bad in ["", "a", "x:17", "a:", "a:-1"] {
            assert_eq!(Announced::from_redis(bad), None, "{bad}");
        }
    }

    #[test]
    fn fields_of_newer_builds_are_ignored() {
        #[derive(Serialize)]
        enum Newer {
            Typing { chat: u64, user: u64, mood: &'static str },
        }
        let bytes = rmp_serde::to_vec_named(&Newer::Typing { chat: 1, user: 2, mood: "good" }).unwrap();
        let read: Signal = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(read.kind(), SignalKind::Typing);
    }
}
