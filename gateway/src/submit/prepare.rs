//! From a command to its event: content rules, permissions, and the facts about messages.

use shared::{
    code::Code,
    event::{
        Event, Fact, LeaveReason, MemberLeft, MemberRole, MembersJoined, Mention, MessageDeleted,
        MessageEdited, MessageSent, Reacted, RoleChanged, SettingsChanged, TitleChanged,
    },
    id::{ChatId, Seq, UserId},
    permission::Role,
    text,
};
use uuid::Uuid;

use super::{Commands, new_event};
use crate::{
    command::{Actor, Change, Command, Failure},
    hub::look::MessageFact,
};

/// The most different emoji on one message: more is noise, and each is a row of the projection.
pub const MAX_EMOJI_PER_MESSAGE: usize = 20;

impl Commands {
    /// Checks the command and makes its event. One line per command; the arms are below.
    pub(super) async fn prepare(&self, actor: &Actor, command: &Command) -> Result<Event, Failure> {
        let Command { chat, uuid, change } = command;
        let chat = *chat;
        let fact = match change {
            Change::Send { body, reply_to, mentions } => {
                self.send(actor, chat, body, *reply_to, mentions).await?
            }
            Change::Edit { seq, body, mentions } => self.edit(actor, chat, *seq, body, mentions).await?,
            Change::Delete { seq } => self.delete(actor, chat, *seq).await?,
            Change::React { seq, emoji, on } => self.react(actor, chat, *seq, emoji, *on).await?,
            Change::Join { users, role } => join(users, *role),
            Change::Leave { user } => leave(actor, *user),
            Change::SetRole { user, role } => Fact::RoleChanged(RoleChanged { user_id: *user, role: *role }),
            Change::SetTitle { title } => Fact::TitleChanged(TitleChanged { title: checked_title(title)? }),
            Change::SetHistory { history } => Fact::SettingsChanged(SettingsChanged { history: *history }),
        };
        let event = new_event(actor, *uuid, fact);
        self.permit(chat, &event).await?;
        if let Change::Join { users, .. } = change {
            Box::pin(self.has_room_in(chat, actor.user, users)).await?;
        }
        Ok(event)
    }

    /// Whether the actor may add these users to the chat at all, whoever they are.
    ///
    /// # Errors
    /// The refusal, or a temporary failure.
    pub async fn may_join(
        &self,
        actor: &Actor,
        chat: ChatId,
        users: &[UserId],
        role: Role,
    ) -> Result<(), Failure> {
        self.permit(chat, &new_event(actor, Uuid::nil(), join(users, role))).await
    }

    async fn send(
        &self,
        actor: &Actor,
        chat: ChatId,
        body: &str,
        reply_to: Option<Seq>,
        mentions: &[Mention],
    ) -> Result<Fact, Failure> {
        let body = checked_body(body, mentions)?;
        if let Some(seq) = reply_to {
            self.speaks(actor, chat).await?;
            let bad = || Failure::refused(Code::MessageBadReply, Code::MessageBadReply.title());
            if !self.reads(chat, actor.user, seq).await? {
                return Err(bad());
            }
            self.message(chat, seq).await?.ok_or_else(bad)?;
        }
        Ok(Fact::MessageSent(MessageSent { body, reply_to, mentions: mentions.to_vec() }))
    }

    async fn edit(
        &self,
        actor: &Actor,
        chat: ChatId,
        seq: Seq,
        body: &str,
        mentions: &[Mention],
    ) -> Result<Fact, Failure> {
        let body = checked_body(body, mentions)?;
        let message = self.live_message(actor, chat, seq).await?;
        Ok(Fact::MessageEdited(MessageEdited {
            seq,
            author: message.author,
            body,
            mentions: mentions.to_vec(),
            seen: Some(message.seen),
        }))
    }

    async fn delete(&self, actor: &Actor, chat: ChatId, seq: Seq) -> Result<Fact, Failure> {
        let message = self.live_message(actor, chat, seq).await?;
        Ok(Fact::MessageDeleted(MessageDeleted { seq, author: message.author, seen: Some(message.seen) }))
    }

    async fn react(
        &self,
        actor: &Actor,
        chat: ChatId,
        seq: Seq,
        emoji: &str,
        on: bool,
    ) -> Result<Fact, Failure> {
        let emoji = text::emoji(emoji).ok_or_else(|| invalid("emoji", "one emoji of at most 64 bytes"))?;
        let message = self.live_message(actor, chat, seq).await?;
        if on {
            Box::pin(self.room_for_emoji(chat, seq, emoji)).await?;
        }
        Ok(Fact::Reacted(Reacted { seq, emoji: emoji.to_owned(), on, seen: Some(message.seen) }))
    }

    /// Whether the message may get another emoji, by the projection and the reactions since its checkpoint. Two
    /// reactions at the same moment may both find the last place free.
    async fn room_for_emoji(&self, chat: ChatId, seq: Seq, emoji: &str) -> Result<(), Failure> {
        let (checkpoint, mut present) = self.db.emoji_of(chat, seq).await?;
        let since = self.hub.reactions(chat, seq, checkpoint.position.seq);
        present.extend(since.iter().filter(|reacted| reacted.on).map(|reacted| reacted.emoji.clone()));
        present.sort_unstable();
        present.dedup();
        if present.len() < MAX_EMOJI_PER_MESSAGE || present.iter().any(|at| at == emoji) {
            return Ok(());
        }
        if since.iter().any(|reacted| !reacted.on && present.contains(&reacted.emoji)) {
            // A reaction was taken off since. Only the projection can tell whether it was the last one with its
            // emoji.
            return Err(Failure::projection_behind());
        }
        Err(Failure::refused(Code::LimitExceeded, "the message has 20 different emoji already"))
    }

    /// The chat's message at `seq`, if the actor is a member who reads it, and it exists and is not deleted. Whoever
    /// does not read it learns nothing of it: neither that it exists nor what has become of it.
    async fn live_message(&self, actor: &Actor, chat: ChatId, seq: Seq) -> Result<MessageFact, Failure> {
        self.speaks(actor, chat).await?;
        let refused = |code: Code| Failure::refused(code, code.title());
        if !self.reads(chat, actor.user, seq).await? {
            return Err(refused(Code::MessageNotFound));
        }
        let message = self.message(chat, seq).await?.ok_or_else(|| refused(Code::MessageNotFound))?;
        if message.deleted { Err(refused(Code::MessageDeleted)) } else { Ok(message) }
    }

    /// Whether the actor may send to the chat. Asked first, so that a stranger learns nothing about its messages.
    async fn speaks(&self, actor: &Actor, chat: ChatId) -> Result<(), Failure> {
        let probe = new_event(actor, Uuid::nil(), Fact::Noop);
        self.permit(chat, &probe).await
    }
}

fn join(users: &[UserId], role: Role) -> Fact {
    let members = users.iter().map(|user_id| MemberRole { user_id: *user_id, role }).collect();
    Fact::MembersJoined(MembersJoined { members })
}

fn checked_title(title: &str) -> Result<String, Failure> {
    text::name(title).ok_or_else(|| {
        invalid("title", "one visible line of at most 128 characters, without unbalanced bidi controls")
    })
}

fn leave(actor: &Actor, user_id: UserId) -> Fact {
    let reason = if user_id == actor.user { LeaveReason::Left } else { LeaveReason::Removed };
    Fact::MemberLeft(MemberLeft { user_id, reason })
}

fn checked_body(body: &str, mentions: &[Mention]) -> Result<String, Failure> {
    let body = text::body(body).ok_or_else(|| invalid("body", "not blank, at most 16,384 bytes"))?;
    if text::mentions_fit(&body, mentions) {
        Ok(body)
    } else {
        Err(invalid("mentions", "ranges inside the body that cut no character"))
    }
}

fn invalid(field: &str, rule: &str) -> Failure {
    Failure::refused(Code::CommandInvalid, format!("{field}: {rule}"))
}
