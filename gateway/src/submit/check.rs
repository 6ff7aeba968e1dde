//! The checks before an append that need the chat's state.
//!
//! A check is made against the hub, which may be a moment behind the log. So a command is only refused after a
//! barrier: once the hub has everything that was acked before, the check is repeated, and that answer counts.
//!
//! Thousands of commands may be under way, and nearly all of them wait for the log alone. The rare waits are boxed,
//! here and in the modules beside this, so that the future of a command has no room for them: it takes 2 KB instead
//! of 9.

use shared::{
    code::Code,
    event::Event,
    id::{ChatId, Seq, UserId},
};

use super::Commands;
use crate::{
    command::Failure,
    hub::look::{Membership, MessageFact},
};

impl Commands {
    /// Makes sure that the hub has the chat's state, and keeps it while the command runs.
    pub(super) async fn load(&self, chat: ChatId) -> Result<(), Failure> {
        if self.hub.keep(chat) { Ok(()) } else { Box::pin(self.loader.chat(chat)).await }
    }

    /// Whether the event would be valid now. A refusal is final: it is made after a barrier.
    pub(super) async fn permit(&self, chat: ChatId, event: &Event) -> Result<(), Failure> {
        self.load(chat).await?;
        if self.hub.verdict_now(chat, event).is_ok() {
            Ok(())
        } else {
            Box::pin(self.permit_as_of_now(chat, event)).await
        }
    }

    async fn permit_as_of_now(&self, chat: ChatId, event: &Event) -> Result<(), Failure> {
        self.catch_barrier().await?;
        self.load(chat).await?;
        self.hub.verdict_now(chat, event).map_err(Failure::void)
    }

    /// The membership of a user who wants to read the chat. A user who is no member is refused, after a barrier.
    ///
    /// # Errors
    /// `chat.not_found`, or a temporary failure.
    pub async fn member(&self, chat: ChatId, user: UserId) -> Result<Membership, Failure> {
        self.load(chat).await?;
        if let Some(member) = self.hub.membership(chat, user) {
            return Ok(member);
        }
        self.catch_barrier().await?;
        self.load(chat).await?;
        self.hub
            .membership(chat, user)
            .ok_or_else(|| Failure::refused(Code::ChatNotFound, Code::ChatNotFound.title()))
    }

    /// Whether a member reads the chat's message at `seq`, if there is one. A refusal is final: it is made after a
    /// barrier.
    pub(super) async fn reads(&self, chat: ChatId, user: UserId, seq: Seq) -> Result<bool, Failure> {
        if self.hub.membership(chat, user).is_some_and(|member| member.reads_everything) {
            return Ok(true);
        }
        Box::pin(self.reads_by_stays(chat, user, seq)).await
    }

    async fn reads_by_stays(&self, chat: ChatId, user: UserId, seq: Seq) -> Result<bool, Failure> {
        self.loader.user(user).await?;
        if self.hub.sight(user, chat).is_some_and(|sight| sight.reads(seq)) {
            return Ok(true);
        }
        self.catch_barrier().await?;
        self.load(chat).await?;
        let sight = self.hub.sight(user, chat).ok_or_else(Failure::projection_behind)?;
        Ok(sight.reads(seq))
    }

    /// The message at `seq`, from the ring or the projection. `None` is certain: it is said after a barrier. Of a
    /// deletion that came after `MessageFact::seen` the verdict tells.
    pub(super) async fn message(&self, chat: ChatId, seq: Seq) -> Result<Option<MessageFact>, Failure> {
        if let Some(fact @ Some(_)) = self.message_now(chat, seq).await? {
            return Ok(fact);
        }
        Box::pin(self.catch_barrier()).await?;
        self.load(chat).await?;
        self.message_now(chat, seq).await?.ok_or_else(Failure::projection_behind)
    }

    /// `None`: neither the ring nor the projection can tell yet.
    async fn message_now(&self, chat: ChatId, seq: Seq) -> Result<Option<Option<MessageFact>>, Failure> {
        // That there is no such entry yet is certain only after a barrier, which the caller takes.
        let here = self.hub.message(chat, seq);
        if here.is_some() {
            return Ok(here);
        }
        let (checkpoint, fact) = Box::pin(self.db.message_fact(chat, seq)).await?;
        let since = checkpoint.position.seq;
        let Some(fact) = fact else { return Ok((since >= seq).then_some(None)) };
        let known = self.hub.deleted_since(chat, seq, since);
        Ok(known.map(|(deleted, seen)| {
            Some(MessageFact { author: fact.author, deleted: fact.deleted || deleted, seen })
        }))
    }
}
