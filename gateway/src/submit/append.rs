//! The append: at most one valid event per (user, chat, uuid), however often, when and at which gateway it is
//! retried.
//!
//! An event can turn out to be stale (`shared::fold::STALE`): void, and no copy of its command. Then its client is told to
//! try again with the same uuid, and the command is appended anew, under an id that names the stale event.
//!
//! Retries within the log's dedupe window are recognised by the log. For a uuid that may be older than the window, an
//! earlier copy is looked up before the append: in the ring, then in the projection. Invariant: "there is no earlier
//! copy" is only said if everything up to now has been looked through.

use shared::{
    code::Code,
    event::Event,
    id::{ChatId, Seq, UserId},
};
use streams::append::{AppendError, Appended, Request};
use tokio::time::Instant;
use uuid::Uuid;

use super::Commands;
use crate::{
    command::{Actor, Command, Failure, Stored},
    hub::{look::EarlierCopy, ring::Verdict},
};

/// The outcome of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// The log has stored the event at this sequence. The verdict comes when the tail has passed it.
    Stored(Seq),
    /// The log had the event already, and it was valid.
    Judged(Stored),
}

/// The outcome of a look for an earlier copy.
pub struct Look {
    /// `None`: there certainly is none.
    pub found: Option<EarlierCopy>,
    /// There is no other one up to here.
    pub upto: Seq,
}

impl Commands {
    /// Appends the event of a command, unless the log has it.
    pub(super) async fn append(
        &self,
        mut event: Event,
        command: &Command,
        deadline: Instant,
    ) -> Result<Placed, Failure> {
        let chat = command.chat;
        let mut anew_after = None;
        // The event says how far the look went, so that readers need not look.
        if !self.freshness.is_fresh(event.actor, event.uuid) {
            let look = Box::pin(self.look(chat, event.actor, event.uuid)).await?;
            match look.found {
                Some(copy) if !copy.is_stale() => return repeat(command, &copy).map(Placed::Judged),
                stale => anew_after = stale.map(|copy| copy.seq),
            }
            event.unique_as_of = Some(look.upto);
        }
        let begun_at = self.hub.position();
        let traceparent = otel::traceparent();
        loop {
            let traceparent = traceparent.as_deref();
            let request = Request { chat, event: &event, traceparent, first: false, anew_after };
            let appended = self.appender.send(request, deadline).await?;
            self.hub.expect(appended.seq);
            if !appended.duplicate {
                self.hub.metrics.sent_total.inc();
                return Ok(Placed::Stored(appended.seq));
            }
            let copy = Box::pin(self.copy_at(chat, &event, appended.seq)).await?;
            if !copy.is_stale() {
                let stored = repeat(command, &copy)?;
                return Ok(Placed::Judged(Stored { dup: !is_own(appended, begun_at), ..stored }));
            }
            if anew_after.is_some_and(|after| after >= copy.seq) {
                return Err(Failure::log_unavailable());
            }
            anew_after = Some(copy.seq);
        }
    }

    /// The outcome of a command that the checks refuse. If an earlier copy of it is in the log, its outcome counts: a
    /// message that was valid stays valid although its author has left the chat since.
    pub(super) async fn refuse(
        &self,
        actor: &Actor,
        command: &Command,
        refusal: Failure,
    ) -> Result<Placed, Failure> {
        if refusal.temporary || refusal.code == Code::CommandInvalid {
            return Err(refusal);
        }
        match self.look(command.chat, actor.user, command.uuid).await?.found {
            Some(copy) if !copy.is_stale() => repeat(command, &copy).map(Placed::Judged),
            Some(_) | None => Err(refusal),
        }
    }

    /// Looks for an earlier copy of the command, or for the last stale event of it.
    pub(super) async fn look(&self, chat: ChatId, actor: UserId, uuid: Uuid) -> Result<Look, Failure> {
        self.catch_barrier().await?;
        let (here, floor, upto) = self.hub.copy_of(chat, actor, uuid);
        if here.is_some() {
            return Ok(Look { found: here, upto });
        }
        let (checkpoint, found) = self.db.command(actor, chat, uuid).await?;
        match found {
            Some(found) => Ok(Look { found: Some(found.into()), upto }),
            None if checkpoint.position.seq >= floor => Ok(Look { found: None, upto }),
            None => Err(Failure::projection_behind()),
        }
    }

    /// The copy that the log has at `seq`: it answered with that instead of storing another one.
    async fn copy_at(&self, chat: ChatId, event: &Event, seq: Seq) -> Result<EarlierCopy, Failure> {
        self.hub.passed(seq).await;
        if let (Some(copy), ..) = self.hub.copy_of(chat, event.actor, event.uuid) {
            return Ok(copy);
        }
        let (_, found) = self.db.command(event.actor, chat, event.uuid).await?;
        found.map(EarlierCopy::from).ok_or_else(Failure::projection_behind)
    }
}

/// Whether the copy that the log answered with is the work of this call, which began when the tail was at `begun_at`: an
/// attempt of it went unanswered, and the copy came after the beginning.
pub(super) fn is_own(appended: Appended, begun_at: Seq) -> bool {
    appended.maybe_own && appended.seq > begun_at
}

/// The outcome of the earlier copy. Another command under the same uuid is refused.
fn repeat(command: &Command, copy: &EarlierCopy) -> Result<Stored, Failure> {
    let same = Event::decode(&copy.payload).is_ok_and(|stored| command.change.made(&stored.fact));
    match copy.verdict {
        _ if !same => Err(Failure::refused(Code::CommandUuidReused, Code::CommandUuidReused.title())),
        Verdict::Valid => Ok(Stored { chat: command.chat, seq: copy.seq, ts: copy.ts, dup: true }),
        Verdict::Void(code) => Err(Failure::void(code)),
        Verdict::Unknown | Verdict::Repeat(_) => Err(Failure::log_unavailable()),
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full => Self::temporary(Code::LogFull, 30_000, "the log is full"),
            AppendError::TooLarge => {
                Self::refused(Code::RequestTooLarge, "the event is too large for the log")
            }
            AppendError::Exists | AppendError::Unavailable { .. } => Self::log_unavailable(),
        }
    }
}

impl From<sql::commands::StoredCommand> for EarlierCopy {
    fn from(stored: sql::commands::StoredCommand) -> Self {
        Self {
            seq: stored.seq,
            ts: stored.ts_ms,
            verdict: stored.refused.map_or(Verdict::Valid, Verdict::Void),
            payload: stored.payload.into(),
        }
    }
}
