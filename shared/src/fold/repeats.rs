//! Repeats: of several events with one actor, chat and uuid the first counts, and the others are void.
//!
//! The projection remembers every command. Every other reader knows the copies in a part of the log alone, from some
//! entry on, and has to know whether an earlier one counts. Two things tell it: the time in the uuid
//! (`crate::window`), and the look that the gateway took before the append ([`Event::unique_as_of`]). Where neither does,
//! the event is *doubtful*: the reader asks the projection, and judges nothing of the chat beyond that event before it has
//! the answer. So all readers come to the same verdicts, wherever they begin and however much they remember.
//!
//! A copy is an earlier event of the same actor, chat and uuid, whether it is valid or refused. Bytes that are no event
//! are no copy, and nor is a stale event ([`STALE`]).
//!
//! A `ChatCreated` needs no look for copies: the fold alone judges it. Its append demands that the log has nothing of the
//! chat, and of two the fold refuses the second.

use super::{ChatState, STALE, apply};
use crate::{
    code::Code,
    event::{Event, Kind},
    id::Seq,
};

/// The verdict on a chat's next event, and its effect; `repeats`: an earlier copy of it is in the log.
///
/// # Errors
/// The code with which the event is void; the state is then unchanged.
pub fn judge(chat: &mut Option<ChatState>, seq: Seq, event: &Event, repeats: bool) -> Result<(), Code> {
    let is_void = repeats && event.fact.kind() != Kind::ChatCreated;
    if is_void { Err(Code::CommandUuidReused) } else { apply(chat, seq, event) }
}

/// Whether an event with this verdict is a copy of its command, so that a later one repeats it.
pub fn is_copy(verdict: Result<(), Code>) -> bool {
    verdict != Err(STALE)
}

/// Whether a reader that knows all entries after `known_after` can't tell if the log holds an earlier copy of a command:
/// it knows of none. `kind` and `unique_as_of` are the event's, and `is_new` says that the time in the uuid excludes a copy.
pub fn is_doubtful(
    kind: Kind,
    unique_as_of: Option<Seq>,
    known_after: Seq,
    is_new: impl FnOnce() -> bool,
) -> bool {
    kind != Kind::ChatCreated && unique_as_of.unwrap_or_default() < known_after && !is_new()
}
