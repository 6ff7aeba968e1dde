//! Checks before the append: what the hub knows, and a barrier before every "no".
//!
//! Thousands of commands may be under way, and nearly all of them wait for the log alone. What few of them wait for is
//! boxed, here and in the modules beside this, so that the others' futures have no place for it: 2 KB instead of 9.

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
    /// Makes sure that the chat's state is here, and stays while the command runs.
    pub(super) async fn load(&self, chat: ChatId) -> Result<(), Failure> {
        if self.hub.keep(chat) { Ok(()) } else { Box::pin(self.loader.chat(chat)).await }
    }

    /// Whether the event would be valid now. A refusal is certain: it is as of a barrier.
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
        self.hub.verdict_now(chat, event).map_err(|code| Failure::refused(code, code.title()))
    }

    /// What a member may know of the chat for reading it: refused to strangers, as of a barrier.
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

    /// The message at `seq`, from the ring or the projection; "there is none" is as of a barrier.
    pub(super) async fn message(&self, chat: ChatId, seq: Seq) -> Result<Option<MessageFact>, Failure> {
        if let Some(fact @ Some(_)) = self.message_now(chat, seq).await? {
            return Ok(fact);
        }
        Box::pin(self.catch_barrier()).await?;
        self.message_now(chat, seq).await?.ok_or_else(Failure::projection_behind)
    }

    /// `None`: neither the ring nor the projection can tell yet.
    async fn message_now(&self, chat: ChatId, seq: Seq) -> Result<Option<Option<MessageFact>>, Failure> {
        let (here, floor) = self.hub.message(chat, seq);
        if here.is_some() {
            return Ok(here);
        }
        if seq > floor {
            // Beyond the tail: certain only as of a barrier, which the caller takes.
            return Ok(Some(None));
        }
        let (checkpoint, fact) = Box::pin(self.db.message_fact(chat, seq)).await?;
        let fact = fact.map(|fact| MessageFact { author: fact.author, deleted: fact.deleted });
        Ok((fact.is_some() || checkpoint.position.seq >= seq).then_some(fact))
    }
}
