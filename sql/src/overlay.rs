//! What edits, deletions and reactions do to messages: a pure fold of a batch into the rows to write.
//!
//! Invariant: folding a log in batches of any size and writing each gives the same rows.

use std::collections::BTreeMap;

use shared::{
    event::{Event, Fact},
    id::{ChatId, Seq, UserId},
};

/// A message.
type Target = (ChatId, Seq);

/// The changes of a batch. Ordered, so that rows are always written in one order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Overlay<'a> {
    revisions: BTreeMap<Target, Revision<'a>>,
    reactions: BTreeMap<(ChatId, Seq, String, UserId), Toggled>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Revision<'a> {
    edited_ts: Option<i64>,
    deleted_ts: Option<i64>,
    payload: Option<&'a [u8]>,
}

/// One user's emoji on one message, over the batch.
#[derive(Debug, Default, PartialEq, Eq)]
struct Toggled {
    /// It was taken off: what was there before the batch is gone.
    off: bool,
    /// It is on after the batch, since this event.
    on: Option<Seq>,
}

impl<'a> Overlay<'a> {
    /// Takes in a valid event; those that concern no message change nothing.
    pub fn apply(&mut self, chat: ChatId, seq: Seq, ts_ms: u64, event: &Event, payload: &'a [u8]) {
        let ts = ts_ms as i64;
        match &event.fact {
            Fact::MessageEdited(edited) => {
                let revision = self.revisions.entry((chat, edited.seq)).or_default();
                if revision.deleted_ts.is_none() {
                    (revision.edited_ts, revision.payload) = (Some(ts), Some(payload));
                }
            }
            Fact::MessageDeleted(deleted) => {
                let revision = self.revisions.entry((chat, deleted.seq)).or_default();
                revision.deleted_ts.get_or_insert(ts);
                revision.payload = None;
            }
            Fact::Reacted(reacted) => {
                let key = (chat, reacted.seq, reacted.emoji.clone(), event.actor);
                let toggled = self.reactions.entry(key).or_default();
                if reacted.on {
                    toggled.on.get_or_insert(seq);
                } else {
                    *toggled = Toggled { off: true, on: None };
                }
            }
            _ => {}
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.revisions.is_empty() && self.reactions.is_empty()
    }

    /// The rows for [`WRITE_REVISIONS`].
    pub(crate) fn revisions(&self) -> RevisionColumns<'a> {
        let mut columns = RevisionColumns::default();
        for ((chat, seq), revision) in &self.revisions {
            columns.chats.push(chat.as_i64());
            columns.seqs.push(seq.as_i64());
            columns.edited.push(revision.edited_ts);
            columns.deleted.push(revision.deleted_ts);
            columns.payloads.push(revision.payload);
        }
        columns
    }

    /// The rows for [`DELETE_REACTIONS`].
    pub(crate) fn taken_off(&self) -> ReactionColumns<'_> {
        self.columns(|toggled| toggled.off.then_some(Seq::ZERO))
    }

    /// The rows for [`WRITE_REACTIONS`].
    pub(crate) fn put_on(&self) -> ReactionColumns<'_> {
        self.columns(|toggled| toggled.on)
    }

    fn columns(&self, at: impl Fn(&Toggled) -> Option<Seq>) -> ReactionColumns<'_> {
        let mut columns = ReactionColumns::default();
        for ((chat, seq, emoji, user), toggled) in &self.reactions {
            let Some(at) = at(toggled) else { continue };
            columns.chats.push(chat.as_i64());
            columns.seqs.push(seq.as_i64());
            columns.emoji.push(emoji);
            columns.users.push(user.as_i64());
            columns.at.push(at.as_i64());
        }
        columns
    }
}

#[derive(Default)]
pub(crate) struct RevisionColumns<'a> {
    pub(crate) chats: Vec<i64>,
    pub(crate) seqs: Vec<i64>,
    pub(crate) edited: Vec<Option<i64>>,
    pub(crate) deleted: Vec<Option<i64>>,
    pub(crate) payloads: Vec<Option<&'a [u8]>>,
}

#[derive(Default)]
pub(crate) struct ReactionColumns<'a> {
    pub(crate) chats: Vec<i64>,
    pub(crate) seqs: Vec<i64>,
    pub(crate) emoji: Vec<&'a str>,
    pub(crate) users: Vec<i64>,
    pub(crate) at: Vec<i64>,
}

/// A deleted message stays as it is; anything else becomes what the batch left.
pub(crate) const WRITE_REVISIONS: &str = "
    INSERT INTO revisions AS r (chat_id, seq, edited_ts, deleted_ts, payload)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[])
    ON CONFLICT (chat_id, seq) DO UPDATE SET
        edited_ts = coalesce(excluded.edited_ts, r.edited_ts),
        deleted_ts = excluded.deleted_ts,
        payload = excluded.payload
    WHERE r.deleted_ts IS NULL";
pub(crate) const DELETE_REACTIONS: &str = "
    DELETE FROM reactions r
    USING unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[]) AS q (chat_id, seq, emoji, user_id)
    WHERE r.chat_id = q.chat_id AND r.seq = q.seq AND r.emoji = q.emoji AND r.user_id = q.user_id";
pub(crate) const WRITE_REACTIONS: &str = "
    INSERT INTO reactions (chat_id, seq, emoji, user_id, at_seq)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[])
    ON CONFLICT DO NOTHING";
