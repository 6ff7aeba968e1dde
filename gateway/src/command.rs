//! Commands: what a client asks for, checked here, then appended to the log as events.
//!
//! Owns the way from a parsed command to its verdict. Invariants: nothing is appended that the checks refuse;
//! success is reported only after the PubAck and after this gateway's own tail has passed the event; commands of
//! one session to one chat are published one after the other.

use shared::{
    code::Code,
    event::{History, Mention},
    id::{ChatId, Seq, UserId},
    permission::Role,
};
use uuid::Uuid;

/// Who sends a command.
#[derive(Debug, Clone)]
pub struct Actor {
    pub user: UserId,
    /// The token family.
    pub did: Uuid,
    /// The device's label; empty over plain HTTP.
    pub device: String,
}

/// A client's request to change a chat. `uuid` is the idempotency key per (user, chat).
#[derive(Debug, Clone)]
pub enum Command {
    Send { chat: ChatId, uuid: Uuid, body: String, reply_to: Option<Seq>, mentions: Vec<Mention> },
    Edit { chat: ChatId, uuid: Uuid, seq: Seq, body: String, mentions: Vec<Mention> },
    Delete { chat: ChatId, uuid: Uuid, seq: Seq },
    React { chat: ChatId, uuid: Uuid, seq: Seq, emoji: String, on: bool },
    /// The direct chat with `peer`: exactly one per pair; the answer's `dup` says that it existed.
    CreateDirect { peer: UserId },
    /// A new group; the actor becomes its owner. `uuid` comes from `Idempotency-Key`.
    CreateGroup { uuid: Uuid, title: Option<String>, history: History, members: Vec<UserId> },
    Join { chat: ChatId, uuid: Uuid, users: Vec<UserId>, role: Role },
    /// `user` is the actor: leave; another: remove.
    Leave { chat: ChatId, uuid: Uuid, user: UserId },
    SetRole { chat: ChatId, uuid: Uuid, user: UserId, role: Role },
    SetTitle { chat: ChatId, uuid: Uuid, title: String },
    SetHistory { chat: ChatId, uuid: Uuid, history: History },
}

/// The log's verdict: valid, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub chat: ChatId,
    pub seq: Seq,
    /// JetStream's time, Unix ms.
    pub ts: u64,
    /// The command had been stored before.
    pub dup: bool,
}

/// Why a command has no effect, or is not known to have one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    pub code: Code,
    /// The outcome is unknown or may change: a retry with the same uuid is safe and may help.
    pub temporary: bool,
    /// Wait at least this long before a retry; 0: no advice.
    pub retry_after_ms: u64,
    pub message: String,
}

impl Failure {
    /// A definite refusal.
    pub fn refused(code: Code, message: impl Into<String>) -> Self {
        Self { code, temporary: false, retry_after_ms: 0, message: message.into() }
    }

    /// An outcome that may change.
    pub fn temporary(code: Code, retry_after_ms: u64, message: impl Into<String>) -> Self {
        Self { code, temporary: true, retry_after_ms, message: message.into() }
    }
}
