//! Checks before the append: what the hub knows, and a barrier before every "no".
//!
//! Thousands of commands may be under way, and nearly all of them wait for the log alone. What few of them wait for is
//! boxed, here and in the modules beside this, so that the others' futures have no place for it: 2 KB instead of 9.

use shared::{
    code::Code,
    event::{Event, History},
    fold,
    id::{ChatId, Seq, UserId},
};

use super::{Commands, Failure};
use crate::hub::look::MessageFact;

/// A chat in a member's eyes.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// The chat's last event.
    pub head: Seq,
    /// The member may read what was written before they joined.
    pub reads_everything: bool,
}

impl Commands {
    /// Makes sure that the chat's state is here, and stays while the command runs.
    pub(super) async fn load(&self, chat: ChatId) -> Result<(), Failure> {
        let loaded = {
            let now_ms = self.hub.clock.now_ms();
            let mut state = self.hub.lock();
            state.chats.get_mut(&chat).filter(|chat| chat.loaded).map(|chat| chat.used_ms = now_ms).is_some()
        };
        if loaded { Ok(()) } else { Box::pin(self.loader.chat(chat)).await }
    }

    /// Whether the event would be valid now. A refusal is certain: it is as of a barrier.
    pub(super) async fn permit(&self, chat: ChatId, event: &Event) -> Result<(), Failure> {
        self.load(chat).await?;
        if self.judge(chat, event).is_ok() {
            Ok(())
        } else {
            Box::pin(self.permit_as_of_now(chat, event)).await
        }
    }

    async fn permit_as_of_now(&self, chat: ChatId, event: &Event) -> Result<(), Failure> {
        self.catch_barrier().await?;
        self.load(chat).await?;
        self.judge(chat, event).map_err(|code| Failure::refused(code, code.title()))
    }

    fn judge(&self, chat: ChatId, event: &Event) -> Result<(), Code> {
        let state = self.hub.lock();
        fold::verdict(state.loaded(chat).and_then(|chat| chat.state.as_ref()), event)
    }

    /// What a member may know of the chat for reading it: refused to strangers, as of a barrier.
    ///
    /// # Errors
    /// `chat.not_found`, or a temporary failure.
    pub async fn member(&self, chat: ChatId, user: UserId) -> Result<Member, Failure> {
        self.load(chat).await?;
        if let Some(member) = self.member_now(chat, user) {
            return Ok(member);
        }
        self.catch_barrier().await?;
        self.load(chat).await?;
        self.member_now(chat, user)
            .ok_or_else(|| Failure::refused(Code::ChatNotFound, Code::ChatNotFound.title()))
    }

    fn member_now(&self, chat: ChatId, user: UserId) -> Option<Member> {
        let state = self.hub.lock();
        let (held, head) = state.membership(chat, user)?;
        Some(Member { head, reads_everything: held.history == History::All })
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
        let (here, floor) = {
            let state = self.hub.lock();
            (state.message(chat, seq), state.ring.floor().seq)
        };
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

impl Failure {
    pub(super) fn projection_behind() -> Self {
        Self::temporary(Code::ServerUnavailable, 1_000, "the projection has not come this far yet")
    }
}

impl From<sql::Error> for Failure {
    fn from(error: sql::Error) -> Self {
        tracing::warn!(%error, "a query failed");
        Self::temporary(Code::ServerUnavailable, 1_000, "the database is unavailable")
    }
}
