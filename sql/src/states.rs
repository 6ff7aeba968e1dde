//! Memberships and chat states: a gateway loads them, many at once, before it serves users and chats.

use shared::{
    code::Code,
    event::{History, MemberRole},
    fold::{ChatState, Deletion, KEPT},
    id::{ChatId, Seq, UserId},
    permission::{ChatType, Role},
};
use tokio_postgres::Row;

use crate::{
    Checkpoint, Db, Error, accounts::user_id, chats::chat_id, checkpoint::from_checkpoint, kind::deletions,
};

/// One stay of a user in a chat, whatever roles they had in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    pub user: UserId,
    pub chat: ChatId,
    /// The event by which the user became a member.
    pub from: Seq,
    /// The event by which they left; `None`: a member as of the checkpoint.
    pub to: Option<Seq>,
    /// The last role.
    pub role: Role,
}

/// A chat as of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatSnapshot {
    pub chat: ChatId,
    /// `None`: it has no valid event.
    pub state: Option<ChatState>,
    /// The last valid event; 0: none.
    pub head: Seq,
    /// The last valid event at or below the floor that was asked for.
    pub floor_head: Seq,
    /// The void events above the floor, ascending.
    pub void: Vec<(Seq, Code)>,
}

const MEMBERSHIPS: &str = concat!(
    "SELECT c.*, m.user_id, m.chat_id, m.joined_seq, m.to_seq, m.role",
    from_checkpoint!(),
    "LEFT JOIN LATERAL (
        SELECT m.user_id, m.chat_id, m.joined_seq, m.to_seq, m.role
        FROM unnest($1::bigint[]) AS u (id) JOIN memberships m ON m.user_id = u.id
        WHERE m.to_seq IS NULL OR (m.gone AND m.to_seq > $2)
        UNION ALL
        SELECT m.user_id, m.chat_id, m.joined_seq, m.to_seq, m.role
        FROM unnest($1::bigint[]) AS u (id) CROSS JOIN LATERAL (
            SELECT * FROM memberships WHERE user_id = u.id AND gone AND to_seq <= $2
            ORDER BY to_seq DESC LIMIT $3
        ) m
    ) m ON true"
);
/// The columns by which [`state_of`] knows a chat `ch`.
macro_rules! state_columns {
    () => {
        "ch.type, ch.history, m.users, m.roles, d.targets, d.deletions"
    };
}
/// What [`state_columns`] takes from the chats `q (chat_id)`: the chat, its members, and its last deletions, one more
/// than the fold remembers.
macro_rules! join_state {
    () => {
        concat!(
            " LEFT JOIN chats ch ON ch.id = q.chat_id
            LEFT JOIN LATERAL (
                SELECT array_agg(user_id) AS users, array_agg(role) AS roles
                FROM memberships WHERE chat_id = q.chat_id AND to_seq IS NULL
            ) m ON ch.id IS NOT NULL
            LEFT JOIN LATERAL (
                SELECT array_agg(target ORDER BY seq) AS targets, array_agg(seq ORDER BY seq) AS deletions
                FROM (
                    SELECT seq, target FROM events WHERE chat_id = q.chat_id AND kind IN (",
            deletions!(),
            ") ORDER BY seq DESC LIMIT 33
                ) e
            ) d ON ch.id IS NOT NULL "
        )
    };
}
const _: () = assert!(KEPT + 1 == 33, "the statement's limit");
pub(crate) use {join_state, state_columns};

const STATES: &str = concat!(
    "SELECT c.*, q.chat_id, ",
    state_columns!(),
    ", h.seq AS head, f.seq AS floor_head, v.seqs, v.codes",
    from_checkpoint!(),
    "LEFT JOIN unnest($1::bigint[]) AS q (chat_id) ON true",
    join_state!(),
    "LEFT JOIN LATERAL (
        SELECT seq FROM events WHERE chat_id = q.chat_id ORDER BY seq DESC LIMIT 1
    ) h ON ch.id IS NOT NULL
    LEFT JOIN LATERAL (
        SELECT seq FROM events WHERE chat_id = q.chat_id AND seq <= $2 ORDER BY seq DESC LIMIT 1
    ) f ON ch.id IS NOT NULL
    LEFT JOIN LATERAL (
        SELECT array_agg(seq ORDER BY seq) AS seqs, array_agg(code ORDER BY seq) AS codes
        FROM refused WHERE chat_id = q.chat_id AND seq > $2
    ) v ON true"
);

pub(crate) fn role_of(number: i16) -> Result<Role, Error> {
    match number {
        0 => Ok(Role::Member),
        1 => Ok(Role::Admin),
        2 => Ok(Role::Owner),
        _ => Err(Error::Corrupt("a member's role is unknown")),
    }
}

pub(crate) const fn role_number(role: Role) -> i16 {
    match role {
        Role::Member => 0,
        Role::Admin => 1,
        Role::Owner => 2,
    }
}

pub(crate) fn chat_type(number: i16) -> Result<ChatType, Error> {
    let chat_type = u8::try_from(number).ok().and_then(ChatType::from_number);
    chat_type.ok_or(Error::Corrupt("a chat's type is unknown"))
}

pub(crate) fn history(text: &str) -> Result<History, Error> {
    History::parse(text).ok_or(Error::Corrupt("a chat's history setting is unknown"))
}

pub(crate) fn code(text: &str) -> Result<Code, Error> {
    Code::ALL.into_iter().find(|code| code.as_str() == text).ok_or(Error::Corrupt("a code is unknown"))
}

fn seq(row: &Row, column: &str) -> Result<Seq, Error> {
    Ok(Seq::from(row.try_get::<_, Option<i64>>(column)?.unwrap_or(0)))
}

/// The state that the [`state_columns`] hold; `None` for a chat that does not exist.
pub(crate) fn state_of(row: &Row) -> Result<Option<ChatState>, Error> {
    let Some(number) = row.try_get::<_, Option<i16>>("type")? else { return Ok(None) };
    let users: Vec<i64> = row.try_get::<_, Option<_>>("users")?.unwrap_or_default();
    let roles: Vec<i16> = row.try_get::<_, Option<_>>("roles")?.unwrap_or_default();
    let member = |(user, role)| Ok(MemberRole { user_id: user_id(user)?, role: role_of(role)? });
    let members = users.into_iter().zip(roles).map(member).collect::<Result<_, Error>>()?;
    let targets: Vec<i64> = row.try_get::<_, Option<_>>("targets")?.unwrap_or_default();
    let deletions: Vec<i64> = row.try_get::<_, Option<_>>("deletions")?.unwrap_or_default();
    let deletion = |(target, at)| Deletion { target: Seq::from(target), at: Seq::from(at) };
    let deletions = targets.into_iter().zip(deletions).map(deletion).collect();
    let (chat_type, history) = (chat_type(number)?, history(row.try_get("history")?)?);
    Ok(Some(ChatState { chat_type, history, members, deletions }))
}

fn snapshot(row: &Row, id: i64) -> Result<ChatSnapshot, Error> {
    let seqs: Vec<i64> = row.try_get::<_, Option<_>>("seqs")?.unwrap_or_default();
    let codes: Vec<&str> = row.try_get::<_, Option<_>>("codes")?.unwrap_or_default();
    let void = seqs.into_iter().zip(codes).map(|(seq, text)| Ok((Seq::from(seq), code(text)?)));
    Ok(ChatSnapshot {
        chat: chat_id(id)?,
        state: state_of(row)?,
        head: seq(row, "head")?,
        floor_head: seq(row, "floor_head")?,
        void: void.collect::<Result<_, Error>>()?,
    })
}

fn membership(row: &Row, user: i64) -> Result<Membership, Error> {
    Ok(Membership {
        user: user_id(user)?,
        chat: chat_id(row.try_get("chat_id")?)?,
        from: seq(row, "joined_seq")?,
        to: row.try_get::<_, Option<i64>>("to_seq")?.map(Seq::from),
        role: role_of(row.try_get("role")?)?,
    })
}

impl Db {
    /// The stays of the users in chats: those that hold, those that ended after `since`, and the newest `former` ones of
    /// each user that ended before.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn memberships_of(
        &self,
        users: &[UserId],
        since: Seq,
        former: usize,
    ) -> Result<(Checkpoint, Vec<Membership>), Error> {
        let users: Vec<i64> = users.iter().map(|user| user.as_i64()).collect();
        let rows = self.query(MEMBERSHIPS, &[&users, &since.as_i64(), &(former as i64)]).await?;
        let mut memberships = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(user) = row.try_get::<_, Option<i64>>("user_id")? {
                memberships.push(membership(row, user)?);
            }
        }
        Ok((checkpoint_of(&rows)?, memberships))
    }

    /// The states of the chats, also of those that do not exist (yet), with what happened to each above `floor`.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn chat_states(
        &self,
        chats: &[ChatId],
        floor: Seq,
    ) -> Result<(Checkpoint, Vec<ChatSnapshot>), Error> {
        let chats: Vec<i64> = chats.iter().map(|chat| chat.as_i64()).collect();
        let rows = self.query(STATES, &[&chats, &floor.as_i64()]).await?;
        let mut states = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(id) = row.try_get::<_, Option<i64>>("chat_id")? {
                states.push(snapshot(row, id)?);
            }
        }
        Ok((checkpoint_of(&rows)?, states))
    }
}

/// The checkpoint that every row of a statement carries.
pub(crate) fn checkpoint_of(rows: &[Row]) -> Result<Checkpoint, Error> {
    rows.first().map_or(Err(Error::Corrupt("there is no checkpoint")), Checkpoint::of)
}
