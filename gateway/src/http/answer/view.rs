//! The JSON of users, chats and messages in answers.
//!
//! The comments on types and fields here are texts of the OpenAPI document.

use serde::Serialize;
use shared::{
    event::{History, Mention},
    id::{ChatId, Seq, UserId},
    permission::{ChatType, Role},
};
use utoipa::ToSchema;
use uuid::Uuid;

use super::schema::{
    ChatTypeNumber, GroupInvitesText, HistoryText, Id, MentionSchema, Name, RoleText, SeqText,
};
use crate::command::Stored;

/// The caller's own account.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Me {
    #[schema(value_type = Id)]
    pub id: UserId,
    #[schema(example = "ada@example.org")]
    pub email: String,
    #[schema(value_type = Name)]
    pub display_name: String,
    /// Who may add the caller to groups.
    #[schema(value_type = GroupInvitesText)]
    pub group_invites: &'static str,
}

impl From<sql::accounts::User> for Me {
    fn from(user: sql::accounts::User) -> Self {
        Self {
            id: user.id,
            email: user.email,
            display_name: user.display_name,
            group_invites: user.group_invites.as_str(),
        }
    }
}

/// An account as others see it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    #[schema(value_type = Id)]
    pub id: UserId,
    #[schema(value_type = Name)]
    pub display_name: String,
}

/// A chat, for one of its members.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    #[schema(value_type = Id)]
    pub id: ChatId,
    #[schema(value_type = ChatTypeNumber)]
    pub r#type: ChatType,
    pub title: Option<String>,
    pub created_ts: u64,
    /// Whether members read what was written before they joined.
    #[schema(value_type = HistoryText)]
    pub history: History,
    /// The first 100, ascending.
    #[schema(value_type = Vec<Id>)]
    pub member_ids: Vec<UserId>,
    pub member_count: u32,
    /// The caller's role.
    #[schema(value_type = RoleText)]
    pub role: Role,
    /// The last event of any kind.
    #[schema(value_type = SeqText)]
    pub last_seq: Seq,
    pub last_message: Option<Message>,
    /// How far the caller has read; sending counts as reading.
    #[schema(value_type = SeqText)]
    pub read_seq: Seq,
    /// Messages of others after `readSeq` that are not deleted.
    pub unread: u32,
    /// Only if true: what was acked last may be missing.
    #[serde(skip_serializing_if = "is_false")]
    pub stale: bool,
}

impl From<sql::chat_list::Chat> for Chat {
    fn from(chat: sql::chat_list::Chat) -> Self {
        Self {
            id: chat.id,
            r#type: chat.chat_type,
            title: chat.title,
            created_ts: chat.created_ms,
            history: chat.history,
            member_ids: chat.member_ids,
            member_count: chat.member_count,
            role: chat.role,
            last_seq: chat.last_seq,
            last_message: chat.last_message.map(Message::from),
            read_seq: chat.read_seq,
            unread: chat.unread,
            stale: false,
        }
    }
}

/// A message in its current state.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    #[schema(value_type = Id)]
    pub chat_id: ChatId,
    #[schema(value_type = SeqText)]
    pub seq: Seq,
    /// The sequence of the chat's event before this one.
    #[schema(value_type = SeqText)]
    pub prev: Seq,
    pub uuid: Uuid,
    #[schema(value_type = Id)]
    pub from: UserId,
    /// Empty if deleted.
    pub body: String,
    pub ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SeqText>)]
    pub reply_to: Option<Seq>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<MentionSchema>)]
    pub mentions: Vec<Mention>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edited_ts: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    pub deleted: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reactions: Vec<Reaction>,
}

impl From<sql::message::Message> for Message {
    fn from(message: sql::message::Message) -> Self {
        let reactions = message.reactions.into_iter();
        Self {
            chat_id: message.chat,
            seq: message.seq,
            prev: message.prev,
            uuid: message.uuid,
            from: message.from,
            body: message.body,
            ts: message.ts_ms,
            reply_to: message.reply_to,
            mentions: message.mentions,
            edited_ts: message.edited_ms,
            deleted: message.deleted,
            reactions: reactions.map(Reaction::from).collect(),
        }
    }
}

/// An emoji on a message.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reaction {
    #[schema(example = "👍")]
    pub emoji: String,
    pub count: u64,
    /// The first 100.
    #[schema(value_type = Vec<Id>)]
    pub user_ids: Vec<UserId>,
}

impl From<sql::message::Reaction> for Reaction {
    fn from(reaction: sql::message::Reaction) -> Self {
        Self { emoji: reaction.emoji, count: reaction.count, user_ids: reaction.user_ids }
    }
}

/// A member of a chat.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    #[schema(value_type = Id)]
    pub user_id: UserId,
    pub display_name: String,
    #[schema(value_type = RoleText)]
    pub role: Role,
    pub joined_ts: u64,
}

impl From<sql::members::Member> for Member {
    fn from(member: sql::members::Member) -> Self {
        Self {
            user_id: member.user,
            display_name: member.display_name,
            role: member.role,
            joined_ts: member.joined_ms,
        }
    }
}

/// The log has the command: where, and since when.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    pub uuid: Uuid,
    #[schema(value_type = Id)]
    pub chat_id: ChatId,
    #[schema(value_type = SeqText)]
    pub seq: Seq,
    pub ts: u64,
    /// The command had been stored before.
    pub dup: bool,
}

impl Ack {
    pub const fn new(uuid: Uuid, stored: Stored) -> Self {
        Self { uuid, chat_id: stored.chat, seq: stored.seq, ts: stored.ts, dup: stored.dup }
    }
}

/// For `skip_serializing_if`: the field is only there if it is true.
pub const fn is_false(value: &bool) -> bool {
    !*value
}
