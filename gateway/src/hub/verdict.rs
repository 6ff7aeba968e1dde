//! Commands that the log has stored and that wait for their verdict.
//!
//! A command is answered once this gateway's own tail has applied its event and the fold has judged it. Invariant: each
//! waiter is answered exactly once. If the waiter of a live session is here before the tail has passed its entry, the
//! answer is queued directly behind the event. Otherwise answer and event come in either order. A waiter is answered by the
//! entry that holds its command and by no other: a log that loses its tail may give a sequence a second time.

use std::sync::Arc;

use shared::id::{ChatId, Seq, UserId};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    Hub, State,
    ring::{Verdict, command_hash},
};
use crate::{
    command::{Failure, Stored},
    session::{Session, reply},
};

/// The one who waits for the verdict on an entry.
#[derive(Debug)]
pub enum Waiter {
    /// A session's command. The answer is queued to its outbox.
    Session { session: Arc<Session>, uuid: Uuid, deadline_ms: u64 },
    /// An HTTP request, or a task that goes on with the outcome. It keeps time itself.
    Caller { answer: oneshot::Sender<Result<Stored, Failure>> },
}

/// The command that the log has stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub chat: ChatId,
    pub actor: UserId,
    pub uuid: Uuid,
}

/// A waiter, and the hash of the command that its entry must hold.
#[derive(Debug)]
pub(super) struct Waiting {
    command: u64,
    pub(super) waiter: Waiter,
}

impl Hub {
    /// Answers the waiter once the entry at `seq`, which the log has given to this command, has its verdict; at once if
    /// it has it already.
    pub fn await_verdict(&self, seq: Seq, key: Key, waiter: Waiter) {
        let command = command_hash(key.chat, key.actor, key.uuid);
        let mut state = self.lock();
        state.waiters.entry(seq).or_default().push(Waiting { command, waiter });
        self.settle(&mut state, seq);
    }

    /// Answers the waiters for `seq`, if its verdict is known.
    pub(super) fn settle(&self, state: &mut State, seq: Seq) {
        if state.waiters.is_empty() || !state.waiters.contains_key(&seq) {
            return;
        }
        let Some(entry) = state.ring.get(seq) else { return };
        let command = entry.command;
        let strangers = |waiting: &mut Waiting| waiting.command != command;
        let lost: Vec<Waiting> = state
            .waiters
            .get_mut(&seq)
            .map(|all| all.extract_if(.., strangers).collect())
            .unwrap_or_default();
        for Waiting { waiter, .. } in lost {
            // The log has lost the command, and this gateway's tail had not come so far. Its client sends it again.
            tracing::error!(seq = seq.get(), "the log holds something else where it had stored a command");
            self.answer(waiter, Err(Failure::log_unavailable()));
        }
        let Some(entry) = state.ring.get(seq) else { return };
        let Some(chat) = entry.chat else { return };
        // A second copy has the outcome of the first.
        let (seq_of, judged, dup) = match entry.verdict {
            Verdict::Repeat(first) => (first, state.ring.get(first), true),
            Verdict::Unknown | Verdict::Valid | Verdict::Void(_) => (seq, Some(entry), false),
        };
        let outcome = match judged.map(|judged| (judged.verdict, judged.ts)) {
            Some((Verdict::Unknown, _)) => return,
            Some((Verdict::Valid, ts)) => Ok(Stored { chat, seq: seq_of, ts, dup }),
            Some((Verdict::Void(code), _)) => Err(Failure::void(code)),
            // The first copy is older than the ring. The client asks again, and then it is looked up.
            Some((Verdict::Repeat(_), _)) | None => Err(Failure::log_unavailable()),
        };
        for Waiting { waiter, .. } in state.waiters.remove(&seq).unwrap_or_default() {
            self.answer(waiter, outcome.clone());
        }
    }

    /// Answers one waiter.
    pub fn answer(&self, waiter: Waiter, outcome: Result<Stored, Failure>) {
        match waiter {
            Waiter::Session { session, uuid, .. } => {
                reply::outcome(&session, uuid, outcome, self.clock.now_ms());
            }
            // A caller that gave up has been answered already.
            Waiter::Caller { answer } => drop(answer.send(outcome)),
        }
    }

    /// Answers the sessions whose commands waited for too long, and forgets the callers that gave up. The outcome of
    /// their commands stays unknown.
    pub fn expire_waiters(&self, now_ms: u64) {
        let mut late = Vec::new();
        let mut state = self.lock();
        state.waiters.retain(|_, waiters| {
            let overdue = |waiting: &mut Waiting| match &waiting.waiter {
                Waiter::Session { deadline_ms, .. } => *deadline_ms < now_ms,
                Waiter::Caller { answer } => answer.is_closed(),
            };
            late.extend(waiters.extract_if(.., overdue));
            !waiters.is_empty()
        });
        drop(state);
        for Waiting { waiter, .. } in late {
            self.answer(waiter, Err(Failure::log_unavailable()));
        }
    }
}

#[cfg(test)]
mod tests;
