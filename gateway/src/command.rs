//! Commands as data: what a client asks for, and how it ends. The room `submit` carries them out.

use std::sync::Arc;

use shared::{
    code::Code,
    event::{Fact, History, Mention},
    fold,
    id::{ChatId, Seq, UserId},
    permission::Role,
    text,
};
use uuid::Uuid;

use crate::infra::pages::Full;

/// The author of a command.
#[derive(Debug, Clone)]
pub struct Actor {
    pub user: UserId,
    /// The device's label; empty over plain HTTP.
    pub device: String,
}

/// A client's request to change a chat that exists.
#[derive(Debug, Clone)]
pub struct Command {
    pub chat: ChatId,
    /// The idempotency key per (user, chat).
    pub uuid: Uuid,
    pub change: Change,
}

/// The change that a command asks for.
#[derive(Debug, Clone)]
pub enum Change {
    Send {
        body: String,
        reply_to: Option<Seq>,
        mentions: Vec<Mention>,
    },
    Edit {
        seq: Seq,
        body: String,
        mentions: Vec<Mention>,
    },
    Delete {
        seq: Seq,
    },
    React {
        seq: Seq,
        emoji: String,
        on: bool,
    },
    Join {
        users: Vec<UserId>,
        role: Role,
    },
    /// The actor leaves, or removes another user.
    Leave {
        user: UserId,
    },
    SetRole {
        user: UserId,
        role: Role,
    },
    SetTitle {
        title: String,
    },
    SetHistory {
        history: History,
    },
}

/// A client's request for a new group, of which the actor becomes the owner.
#[derive(Debug, Clone)]
pub struct NewGroup {
    /// From `Idempotency-Key`: the same user gets the same group for it again.
    pub uuid: Uuid,
    pub title: Option<String>,
    pub history: History,
    pub members: Vec<UserId>,
}

/// A command that the log holds as a valid event, and where.
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
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    pub code: Code,
    /// The outcome is unknown or may change: a retry with the same uuid is safe and may help.
    pub temporary: bool,
    /// Wait at least this long before a retry; 0: no advice.
    pub retry_after_ms: u64,
    pub message: String,
    /// Because of whom the command is refused.
    pub users: Box<[UserId]>,
    /// The query that failed, for the log line of whoever handles this failure. Never told to a client.
    #[source]
    pub source: Option<Arc<sql::Error>>,
}

impl PartialEq for Failure {
    /// Two failures are equal if a client is told the same.
    fn eq(&self, other: &Self) -> bool {
        let told = |it: &Self| (it.code, it.temporary, it.retry_after_ms);
        told(self) == told(other) && self.message == other.message && self.users == other.users
    }
}

impl Eq for Failure {}

impl From<sql::Error> for Failure {
    fn from(error: sql::Error) -> Self {
        let failure = Self::temporary(Code::ServerUnavailable, 1_000, "the database is unavailable");
        Self { source: Some(Arc::new(error)), ..failure }
    }
}

impl From<Full> for Failure {
    fn from(full: Full) -> Self {
        let code = match full {
            Full::User => Code::RateLimited,
            Full::Gateway => Code::ServerUnavailable,
        };
        Self::temporary(code, 1_000, full.to_string())
    }
}

impl Failure {
    /// A definite refusal.
    pub fn refused(code: Code, message: impl Into<String>) -> Self {
        let (message, users) = (message.into(), Box::default());
        Self { code, temporary: false, retry_after_ms: 0, message, users, source: None }
    }

    /// Some users do not let the actor add them.
    pub fn member_refused(users: Vec<UserId>) -> Self {
        let refused =
            Self::refused(Code::MemberRefused, "some users do not let you add them; nobody was added");
        Self { users: users.into(), ..refused }
    }

    /// The answer to a command whose event is void with this code. A stale one may be appended again.
    pub fn void(code: Code) -> Self {
        if code == fold::STALE { Self::log_unavailable() } else { Self::refused(code, code.title()) }
    }

    /// An outcome that may change.
    pub fn temporary(code: Code, retry_after_ms: u64, message: impl Into<String>) -> Self {
        let (message, users) = (message.into(), Box::default());
        Self { code, temporary: true, retry_after_ms, message, users, source: None }
    }

    /// The same failure without its source, which has been logged.
    pub fn once_logged(self) -> Self {
        Self { source: None, ..self }
    }

    /// The log did not say in time whether it has the command.
    pub fn log_unavailable() -> Self {
        Self::temporary(
            Code::LogUnavailable,
            1_000,
            "the log did not answer in time; retry with the same uuid",
        )
    }

    /// The projection does not have what the answer depends on yet.
    pub fn projection_behind() -> Self {
        Self::temporary(Code::ServerUnavailable, 1_000, "the projection has not come this far yet")
    }
}

impl Change {
    /// Whether the stored fact is what this change makes: a retry, not another command under the same uuid.
    pub fn made(&self, fact: &Fact) -> bool {
        match self {
            Self::Send { body, reply_to, mentions } => matches!(fact, Fact::MessageSent(sent)
                if text::body(body).as_ref() == Some(&sent.body)
                    && *reply_to == sent.reply_to
                    && *mentions == sent.mentions),
            Self::Edit { seq, body, mentions } => matches!(fact, Fact::MessageEdited(edited)
                if *seq == edited.seq
                    && text::body(body).as_ref() == Some(&edited.body)
                    && *mentions == edited.mentions),
            Self::Delete { seq } => matches!(fact, Fact::MessageDeleted(deleted) if *seq == deleted.seq),
            Self::React { seq, emoji, on } => matches!(fact, Fact::Reacted(reacted)
                if *seq == reacted.seq && text::emoji(emoji) == Some(&reacted.emoji) && *on == reacted.on),
            Self::Join { users, role } => matches!(fact, Fact::MembersJoined(joined)
                if joined.members.iter().map(|member| (member.user_id, member.role))
                    .eq(users.iter().map(|user| (*user, *role)))),
            Self::Leave { user } => matches!(fact, Fact::MemberLeft(left) if *user == left.user_id),
            Self::SetRole { user, role } => matches!(fact, Fact::RoleChanged(changed)
                if *user == changed.user_id && *role == changed.role),
            Self::SetTitle { title } => matches!(fact, Fact::TitleChanged(changed)
                if text::name(title).as_ref() == Some(&changed.title)),
            Self::SetHistory { history } => matches!(fact, Fact::SettingsChanged(changed)
                if *history == changed.history),
        }
    }

    /// Whether a log that is nearly full still takes this change: a user can always leave a chat and delete a
    /// message.
    pub const fn passes_full_log(&self) -> bool {
        match self {
            Self::Delete { .. } | Self::Leave { .. } => true,
            Self::Send { .. }
            | Self::Edit { .. }
            | Self::React { .. }
            | Self::Join { .. }
            | Self::SetRole { .. }
            | Self::SetTitle { .. }
            | Self::SetHistory { .. } => false,
        }
    }
}
