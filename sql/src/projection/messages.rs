//! Tables `revisions` and `reactions`: what edits, deletions and reactions do to messages. A pure fold of a batch into
//! the rows to write, and the statements that write them.
//!
//! Invariant: folding a log in batches of any size and writing each gives the same rows.

use std::collections::BTreeMap;

use shared::{
    event::{Event, Fact},
    id::{ChatId, Seq, UserId},
};
use tokio_postgres::{Client, GenericClient};

use super::{
    events::Lost,
    row::{Row, Write, columns, names, params, rows_as_q},
    table::{Table, Transaction},
};
use crate::{Error, chats::chat_id, message::decode};

pub(super) const TABLES: &[Table] = &[Table::compared("revisions"), Table::compared("reactions")];

/// A message.
type Target = (ChatId, Seq);

/// What a batch changes of messages. Ordered, so that rows are always written in one order.
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
            Fact::ChatCreated(_)
            | Fact::MessageSent(_)
            | Fact::MembersJoined(_)
            | Fact::MemberLeft(_)
            | Fact::RoleChanged(_)
            | Fact::TitleChanged(_)
            | Fact::SettingsChanged(_)
            | Fact::Noop => {}
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.revisions.is_empty() && self.reactions.is_empty()
    }

    /// Writes the reactions alone, outside of a batch.
    pub(super) async fn write_reactions(&self, client: &impl GenericClient) -> Result<(), Error> {
        write_once(client, &take_off(), &self.taken_off()).await?;
        write_once(client, &put_on(), &self.put_on()).await
    }

    fn revised(&self) -> Vec<Revised<'a>> {
        let row = |(&(chat, seq), revision): (&Target, &Revision<'a>)| Revised {
            chat,
            seq,
            edited_ts: revision.edited_ts,
            deleted_ts: revision.deleted_ts,
            payload: revision.payload,
        };
        self.revisions.iter().map(row).collect()
    }

    fn taken_off(&self) -> Vec<TakenOff<'_>> {
        let off = self.reactions.iter().filter(|(_, toggled)| toggled.off);
        off.map(|((chat, seq, emoji, user), _)| TakenOff { chat: *chat, seq: *seq, emoji, user: *user })
            .collect()
    }

    fn put_on(&self) -> Vec<PutOn<'_>> {
        let on = self.reactions.iter().filter_map(|(key, toggled)| Some((key, toggled.on?)));
        on.map(|((chat, seq, emoji, user), at)| PutOn { chat: *chat, seq: *seq, emoji, user: *user, at })
            .collect()
    }
}

struct Revised<'a> {
    chat: ChatId,
    seq: Seq,
    edited_ts: Option<i64>,
    deleted_ts: Option<i64>,
    payload: Option<&'a [u8]>,
}

columns!(Revised<'_> {
    chat_id: "bigint" = |revised| revised.chat.as_i64(),
    seq: "bigint" = |revised| revised.seq.as_i64(),
    edited_ts: "bigint" = |revised| revised.edited_ts,
    deleted_ts: "bigint" = |revised| revised.deleted_ts,
    payload: "bytea" = |revised| revised.payload,
});

struct TakenOff<'a> {
    chat: ChatId,
    seq: Seq,
    emoji: &'a str,
    user: UserId,
}

columns!(TakenOff<'_> {
    chat_id: "bigint" = |off| off.chat.as_i64(),
    seq: "bigint" = |off| off.seq.as_i64(),
    emoji: "text" = |off| off.emoji,
    user_id: "bigint" = |off| off.user.as_i64(),
});

struct PutOn<'a> {
    chat: ChatId,
    seq: Seq,
    emoji: &'a str,
    user: UserId,
    /// The event that put it on.
    at: Seq,
}

columns!(PutOn<'_> {
    chat_id: "bigint" = |on| on.chat.as_i64(),
    seq: "bigint" = |on| on.seq.as_i64(),
    emoji: "text" = |on| on.emoji,
    user_id: "bigint" = |on| on.user.as_i64(),
    at_seq: "bigint" = |on| on.at.as_i64(),
});

/// A deleted message stays as it is; anything else becomes what the batch left.
fn revise() -> String {
    format!(
        "INSERT INTO revisions AS r ({names}) SELECT {names} FROM {}
        ON CONFLICT (chat_id, seq) DO UPDATE SET
            edited_ts = coalesce(excluded.edited_ts, r.edited_ts),
            deleted_ts = excluded.deleted_ts,
            payload = excluded.payload
        WHERE r.deleted_ts IS NULL",
        rows_as_q::<Revised<'_>>(1),
        names = names::<Revised<'_>>("")
    )
}

fn take_off() -> String {
    format!(
        "DELETE FROM reactions r USING {}
        WHERE r.chat_id = q.chat_id AND r.seq = q.seq AND r.emoji = q.emoji AND r.user_id = q.user_id",
        rows_as_q::<TakenOff<'_>>(1)
    )
}

fn put_on() -> String {
    format!(
        "INSERT INTO reactions ({names}) SELECT {names} FROM {} ON CONFLICT DO NOTHING",
        rows_as_q::<PutOn<'_>>(1),
        names = names::<PutOn<'_>>("")
    )
}

const LOSE_REVISIONS: &str = "
    DELETE FROM revisions r USING unnest($1::bigint[], $2::bigint[]) AS q (chat_id, seq)
    WHERE r.chat_id = q.chat_id AND r.seq = q.seq";
const LOSE_REACTIONS: &str = "
    DELETE FROM reactions r USING unnest($1::bigint[], $2::bigint[]) AS q (chat_id, seq)
    WHERE r.chat_id = q.chat_id AND r.seq = q.seq";
const ABOUT: &str = "
    SELECT e.chat_id, e.seq, e.ts, e.payload FROM unnest($1::bigint[], $2::bigint[]) AS q (chat_id, seq)
    JOIN events e ON e.chat_id = q.chat_id AND e.seq > q.seq AND e.target = q.seq ORDER BY e.seq";

pub(super) struct Group {
    revise: Write,
    take_off: Write,
    put_on: Write,
}

impl Group {
    pub(super) async fn prepare(client: &Client, _: i16) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            revise: Write::prepare(client, &revise()).await?,
            take_off: Write::prepare(client, &take_off()).await?,
            put_on: Write::prepare(client, &put_on()).await?,
        })
    }

    pub(super) async fn write(
        &self,
        client: &Client,
        overlay: &Overlay<'_>,
    ) -> Result<(), tokio_postgres::Error> {
        let (revised, off, on) = (overlay.revised(), overlay.taken_off(), overlay.put_on());
        tokio::try_join!(
            biased;
            self.revise.run(client, &revised),
            self.take_off.run(client, &off),
            self.put_on.run(client, &on),
        )
        .map(drop)
    }

    /// Folds edits, deletions and reactions of the touched messages again, from the events that are left.
    pub(super) async fn take_back(transaction: &Transaction<'_>, lost: &Lost) -> Result<(), Error> {
        let (chats, seqs): (Vec<i64>, Vec<i64>) = lost.messages.iter().copied().unzip();
        transaction.execute(LOSE_REVISIONS, &[&chats, &seqs]).await?;
        transaction.execute(LOSE_REACTIONS, &[&chats, &seqs]).await?;
        let rows = transaction.query(ABOUT, &[&chats, &seqs]).await?;
        let mut overlay = Overlay::default();
        for row in &rows {
            let (seq, ts): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
            let payload: &[u8] = row.try_get(3)?;
            overlay.apply(chat_id(row.try_get(0)?)?, seq.into(), ts as u64, &decode(payload)?, payload);
        }
        write_once(&**transaction, &revise(), &overlay.revised()).await?;
        overlay.write_reactions(&**transaction).await
    }
}

async fn write_once<R: Row>(client: &impl GenericClient, statement: &str, rows: &[R]) -> Result<(), Error> {
    let columns = R::columns(rows);
    client.execute(statement, &params(&columns)).await?;
    Ok(())
}
