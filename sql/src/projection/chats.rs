//! Table `chats`: what a chat is, whatever its messages.

use std::collections::BTreeMap;

use shared::{
    event::{Fact, History},
    id::{ChatId, Seq},
    permission::ChatType,
};
use tokio_postgres::Client;

use super::{
    events::Lost,
    row::{Write, columns, rows_as_q},
    table::{Table, Transaction},
};
use crate::{Error, chats::chat_id, kind::settings, message::decode};

pub(super) const TABLES: &[Table] = &[Table::compared("chats")];

/// What a batch changes of chats.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ChatRows {
    pub new: Vec<NewChat>,
    pub changed: Vec<ChatChange>,
}

impl ChatRows {
    pub(super) fn is_empty(&self) -> bool {
        self.new.is_empty() && self.changed.is_empty()
    }
}

/// A chat that begins in this batch, as it is at the batch's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChat {
    pub chat: ChatId,
    pub chat_type: ChatType,
    pub created_seq: Seq,
    pub created_ms: u64,
    pub title: Option<String>,
    pub history: History,
    pub member_count: u32,
}

columns!(NewChat {
    id: "bigint" = |chat| chat.chat.as_i64(),
    created_seq: "bigint" = |chat| chat.created_seq.as_i64(),
    created_ts: "bigint" = |chat| chat.created_ms as i64,
    member_count: "int" = |chat| chat.member_count as i32,
    type: "smallint" = |chat| i16::from(chat.chat_type.number()),
    history: "text" = |chat| chat.history.as_str(),
    title: "text" = |chat| chat.title.as_deref(),
});

/// What a batch changed of a chat that was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatChange {
    pub chat: ChatId,
    /// `None`: unchanged.
    pub title: Option<String>,
    pub history: History,
    pub member_count: u32,
}

columns!(ChatChange {
    id: "bigint" = |chat| chat.chat.as_i64(),
    title: "text" = |chat| chat.title.as_deref(),
    history: "text" = |chat| chat.history.as_str(),
    member_count: "int" = |chat| chat.member_count as i32,
});

fn change() -> String {
    format!(
        "UPDATE chats c SET title = coalesce(q.title, c.title), history = q.history, member_count = q.member_count
        FROM {} WHERE c.id = q.id",
        rows_as_q::<ChatChange>(1)
    )
}

const LOSE: &str = "DELETE FROM chats WHERE id = ANY($1) AND created_seq > $2";
const COUNT_MEMBERS: &str = "
    UPDATE chats c SET member_count = (SELECT count(*) FROM memberships m WHERE m.chat_id = c.id AND m.to_seq IS NULL)
    WHERE c.id = ANY($1)";
const SETTINGS: &str = concat!(
    "SELECT e.chat_id, e.payload FROM events e WHERE e.chat_id = ANY($1) AND e.kind IN (",
    settings!(),
    ") ORDER BY e.seq"
);
const CONFIGURE: &str = "UPDATE chats SET title = $2, history = $3 WHERE id = $1";

pub(super) struct Group {
    insert: Write,
    change: Write,
}

impl Group {
    pub(super) async fn prepare(client: &Client, partition: i16) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            insert: Write::insert::<NewChat>(client, "chats", partition).await?,
            change: Write::prepare(client, &change()).await?,
        })
    }

    pub(super) async fn write(&self, client: &Client, rows: &ChatRows) -> Result<(), tokio_postgres::Error> {
        let (insert, change) = (self.insert.run(client, &rows.new), self.change.run(client, &rows.changed));
        tokio::try_join!(biased; insert, change).map(drop)
    }

    /// After that of the memberships, which it counts.
    pub(super) async fn take_back(transaction: &Transaction<'_>, lost: &Lost) -> Result<(), Error> {
        let chats: Vec<i64> = lost.membership.iter().copied().collect();
        transaction.execute(LOSE, &[&chats, &lost.cut]).await?;
        transaction.execute(COUNT_MEMBERS, &[&chats]).await?;
        refold_settings(transaction, lost).await
    }
}

/// Titles and settings of the touched chats, from the events that are left.
async fn refold_settings(transaction: &Transaction<'_>, lost: &Lost) -> Result<(), Error> {
    let chats: Vec<i64> = lost.settings.iter().copied().collect();
    let rows = transaction.query(SETTINGS, &[&chats]).await?;
    let mut settings: BTreeMap<ChatId, (Option<String>, History)> = BTreeMap::new();
    for row in &rows {
        let chat = settings.entry(chat_id(row.try_get(0)?)?).or_default();
        match decode(row.try_get(1)?)?.fact {
            Fact::ChatCreated(created) => *chat = (created.title, created.history),
            Fact::TitleChanged(changed) => chat.0 = Some(changed.title),
            Fact::SettingsChanged(changed) => chat.1 = changed.history,
            // Not asked for.
            Fact::MessageSent(_)
            | Fact::MessageEdited(_)
            | Fact::MessageDeleted(_)
            | Fact::Reacted(_)
            | Fact::MembersJoined(_)
            | Fact::MemberLeft(_)
            | Fact::RoleChanged(_)
            | Fact::Noop => {}
        }
    }
    for (chat, (title, history)) in settings {
        transaction.execute(CONFIGURE, &[&chat.as_i64(), &title, &history.as_str()]).await?;
    }
    Ok(())
}
