//! The projector's side: the rows of a batch, and the one transaction that writes them with the checkpoint.
//!
//! A [`Writer`] is a session of its own that holds the partition's advisory lock. The lock keeps two projectors from
//! doing the same work; what keeps rows right is the compare-and-set of the checkpoint in every transaction.

mod session;
mod write;

use shared::{
    code::Code,
    event::{History, Kind},
    fold::ChatState,
    id::{ChatId, EventId, Seq, UserId},
    permission::{ChatType, Role},
};
use uuid::Uuid;

pub use self::{session::Writer, write::Written};
use crate::overlay::Overlay;

/// All rows of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rows<'a> {
    pub events: Vec<NewEvent<'a>>,
    pub refused: Vec<Refused<'a>>,
    pub dead_letters: Vec<DeadLetter<'a>>,
    pub chats: Vec<NewChat>,
    pub chat_changes: Vec<ChatChange>,
    pub closed: Vec<Closed>,
    pub opened: Vec<Opened>,
    pub own_marks: Vec<OwnMark>,
    pub overlay: Overlay<'a>,
}

impl Rows<'_> {
    /// Whether there is nothing to write but events and marks, as nearly always.
    pub(crate) fn is_only_events(&self) -> bool {
        let Self {
            events: _,
            own_marks: _,
            refused,
            dead_letters,
            chats,
            chat_changes,
            closed,
            opened,
            overlay,
        } = self;
        refused.is_empty()
            && dead_letters.is_empty()
            && chats.is_empty()
            && chat_changes.is_empty()
            && closed.is_empty()
            && opened.is_empty()
            && overlay.is_empty()
    }
}

/// A valid event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent<'a> {
    pub chat: ChatId,
    pub seq: Seq,
    pub prev: Seq,
    /// The chat's last message up to and including this event.
    pub message_seq: Seq,
    /// The chat's messages up to and including this event.
    pub n: u32,
    pub id: EventId,
    pub ts_ms: u64,
    pub kind: Kind,
    pub actor: UserId,
    pub uuid: Uuid,
    /// The message that it concerns.
    pub target: Option<Seq>,
    pub payload: &'a [u8],
}

/// A void command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused<'a> {
    pub chat: ChatId,
    pub seq: Seq,
    pub id: EventId,
    pub ts_ms: u64,
    pub actor: UserId,
    pub uuid: Uuid,
    pub code: Code,
    pub payload: &'a [u8],
}

/// What no decoder can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    pub seq: Seq,
    pub id: EventId,
    pub ts_ms: u64,
    pub reason: String,
    pub payload: &'a [u8],
}

/// A chat that begins in this batch, as it is at the batch's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChat {
    pub chat: ChatId,
    pub chat_type: ChatType,
    pub created_seq: Seq,
    pub created_ms: u64,
    pub title: Option<String>,
    pub history: History,
    pub member_count: u32,
}

/// What a batch changed of a chat that was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatChange {
    pub chat: ChatId,
    /// `None`: unchanged.
    pub title: Option<String>,
    pub history: History,
    pub member_count: u32,
}

/// The end of an interval that was open before the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub chat: ChatId,
    pub user: UserId,
    /// The last event that the interval holds.
    pub to: Seq,
    /// Ended by leaving, and not by a change of the role.
    pub gone: bool,
}

/// A new interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub chat: ChatId,
    pub user: UserId,
    pub role: Role,
    pub from: Seq,
    /// It ended within the batch.
    pub to: Option<Seq>,
    pub gone: bool,
    pub origin: Origin,
}

/// Where a new interval's stay began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// In this batch.
    Joined { seq: Seq, ts_ms: u64, own_seq: Seq },
    /// Before it: as in the interval that the batch closed with `to`.
    Continues { to: Seq },
}

/// The sender's own last message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnMark {
    pub chat: ChatId,
    pub user: UserId,
    pub seq: Seq,
}

/// A command's idempotency key.
pub type Key = (ChatId, UserId, Uuid);

/// A chat as the projection holds it: what the next batch continues from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChat {
    pub chat: ChatId,
    pub state: Option<ChatState>,
    pub head: Seq,
    pub message_seq: Seq,
    pub n: u32,
    /// Some command of the chat was refused.
    pub has_refused: bool,
}
