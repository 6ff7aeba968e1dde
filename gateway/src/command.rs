//! Commands: what a client asks for, checked here, then appended to the log as events.
//!
//! Owns the way from a parsed command to its verdict. Invariants: nothing is appended that the checks refuse;
//! success is reported only after the PubAck and after this gateway's own tail has passed the event; commands of
//! one session to one chat are published one after the other.

pub mod append;
pub mod check;
pub mod create;
pub mod prepare;
mod room;
pub mod service;

use shared::{
    code::Code,
    event::{Fact, History, Mention},
    id::{ChatId, Seq, UserId},
    permission::Role,
    text,
};
use uuid::Uuid;

pub use self::service::Commands;

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
    Send {
        chat: ChatId,
        uuid: Uuid,
        body: String,
        reply_to: Option<Seq>,
        mentions: Vec<Mention>,
    },
    Edit {
        chat: ChatId,
        uuid: Uuid,
        seq: Seq,
        body: String,
        mentions: Vec<Mention>,
    },
    Delete {
        chat: ChatId,
        uuid: Uuid,
        seq: Seq,
    },
    React {
        chat: ChatId,
        uuid: Uuid,
        seq: Seq,
        emoji: String,
        on: bool,
    },
    /// The direct chat with `peer`: exactly one per pair; the answer's `dup` says that it existed.
    CreateDirect {
        peer: UserId,
    },
    /// A new group; the actor becomes its owner. `uuid` comes from `Idempotency-Key`.
    CreateGroup {
        uuid: Uuid,
        title: Option<String>,
        history: History,
        members: Vec<UserId>,
    },
    Join {
        chat: ChatId,
        uuid: Uuid,
        users: Vec<UserId>,
        role: Role,
    },
    /// `user` is the actor: leave; another: remove.
    Leave {
        chat: ChatId,
        uuid: Uuid,
        user: UserId,
    },
    SetRole {
        chat: ChatId,
        uuid: Uuid,
        user: UserId,
        role: Role,
    },
    SetTitle {
        chat: ChatId,
        uuid: Uuid,
        title: String,
    },
    SetHistory {
        chat: ChatId,
        uuid: Uuid,
        history: History,
    },
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

impl Failure {
    /// The log did not say in time whether it has the command.
    pub fn log_unavailable() -> Self {
        Self::temporary(
            Code::LogUnavailable,
            1_000,
            "the log did not answer in time; retry with the same uuid",
        )
    }
}

impl Command {
    /// The chat, for commands to one that exists.
    pub const fn chat(&self) -> Option<ChatId> {
        match self {
            Self::Send { chat, .. }
            | Self::Edit { chat, .. }
            | Self::Delete { chat, .. }
            | Self::React { chat, .. }
            | Self::Join { chat, .. }
            | Self::Leave { chat, .. }
            | Self::SetRole { chat, .. }
            | Self::SetTitle { chat, .. }
            | Self::SetHistory { chat, .. } => Some(*chat),
            Self::CreateDirect { .. } | Self::CreateGroup { .. } => None,
        }
    }

    /// The idempotency key, for commands that have one.
    pub const fn uuid(&self) -> Option<Uuid> {
        match self {
            Self::Send { uuid, .. }
            | Self::Edit { uuid, .. }
            | Self::Delete { uuid, .. }
            | Self::React { uuid, .. }
            | Self::CreateGroup { uuid, .. }
            | Self::Join { uuid, .. }
            | Self::Leave { uuid, .. }
            | Self::SetRole { uuid, .. }
            | Self::SetTitle { uuid, .. }
            | Self::SetHistory { uuid, .. } => Some(*uuid),
            Self::CreateDirect { .. } => None,
        }
    }

    /// Whether the stored fact is what this command makes: a retry, not another command under the same uuid.
    pub fn made(&self, fact: &Fact) -> bool {
        match (self, fact) {
            (Self::Send { body, reply_to, mentions, .. }, Fact::MessageSent(sent)) => {
                text::body(body).as_ref() == Some(&sent.body)
                    && *reply_to == sent.reply_to
                    && *mentions == sent.mentions
            }
            (Self::Edit { seq, body, mentions, .. }, Fact::MessageEdited(edited)) => {
                *seq == edited.seq
                    && text::body(body).as_ref() == Some(&edited.body)
                    && *mentions == edited.mentions
            }
            (Self::Delete { seq, .. }, Fact::MessageDeleted(deleted)) => *seq == deleted.seq,
            (Self::React { seq, emoji, on, .. }, Fact::Reacted(reacted)) => {
                *seq == reacted.seq && *emoji == reacted.emoji && *on == reacted.on
            }
            (Self::Join { users, role, .. }, Fact::MembersJoined(joined)) => joined
                .members
                .iter()
                .map(|member| (member.user_id, member.role))
                .eq(users.iter().map(|u| (*u, *role))),
            (Self::Leave { user, .. }, Fact::MemberLeft(left)) => *user == left.user_id,
            (Self::SetRole { user, role, .. }, Fact::RoleChanged(changed)) => {
                *user == changed.user_id && *role == changed.role
            }
            (Self::SetTitle { title, .. }, Fact::TitleChanged(changed)) => {
                text::name(title).as_ref() == Some(&changed.title)
            }
            (Self::SetHistory { history, .. }, Fact::SettingsChanged(changed)) => *history == changed.history,
            _ => false,
        }
    }

    /// What a log above its guard still takes: that which frees people and takes content back.
    pub const fn passes_full_log(&self) -> bool {
        matches!(self, Self::Delete { .. } | Self::Leave { .. })
    }
}
