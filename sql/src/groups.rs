//! Who is kept out of one more group: for the checks before a user is put into one.

use shared::id::UserId;

use crate::{Checkpoint, Db, Error, accounts::user_id, checkpoint::from_checkpoint, states::checkpoint_of};

/// The groups of each user are counted up to the limit. Whether the actor is a contact is looked up only for users to
/// whom it matters. A contact is whom the user has a direct chat with that the user began or wrote in.
const KEPT_OUT: &str = concat!(
    "WITH asked AS MATERIALIZED (
        SELECT q.id, u.group_invites AS invites, (
            SELECT count(*) FROM (
                SELECT 1 FROM memberships m JOIN chats ch ON ch.id = m.chat_id AND ch.type = 2
                WHERE m.user_id = q.id AND m.to_seq IS NULL LIMIT $3
            ) g
        ) AS groups
        FROM unnest($2::bigint[]) AS q (id) LEFT JOIN users u ON u.id = q.id
    ), judged AS MATERIALIZED (
        SELECT a.id, a.groups >= $3 AS is_full, CASE
            WHEN a.id = $1 THEN false
            WHEN a.invites = 'nobody' THEN true
            WHEN a.invites = 'contacts' OR a.groups >= $4 THEN NOT EXISTS (
                SELECT 1 FROM direct_pairs p
                JOIN chats ch ON ch.id = p.chat_id
                JOIN memberships m ON m.chat_id = p.chat_id AND m.user_id = a.id AND m.to_seq IS NULL
                WHERE p.lo = least($1, a.id) AND p.hi = greatest($1, a.id) AND (m.own_seq > 0 OR EXISTS (
                    SELECT 1 FROM events e WHERE e.chat_id = ch.id AND e.seq = ch.created_seq AND e.actor = a.id
                ))
            )
            ELSE false END AS refuses
        FROM asked a
    )
    SELECT c.*, j.id, j.refuses",
    from_checkpoint!(),
    "LEFT JOIN judged j ON j.refuses OR j.is_full ORDER BY j.id"
);

/// How many groups a user can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupLimits {
    pub most: u32,
    /// From this many on, only the user and their contacts add one more.
    pub by_strangers: u32,
}

/// The users whom an actor cannot put into one more group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptOut {
    /// Those who do not let the actor add them, by ascending id.
    pub refusing: Vec<UserId>,
    /// Those who let the actor add them, and are in as many groups as one can be.
    pub full: Vec<UserId>,
}

impl KeptOut {
    pub fn is_empty(&self) -> bool {
        self.refusing.is_empty() && self.full.is_empty()
    }
}

impl Db {
    /// Whom of the users the actor cannot put into one more group, as of the projection's checkpoint.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn kept_out(
        &self,
        actor: UserId,
        users: &[UserId],
        limits: GroupLimits,
    ) -> Result<(Checkpoint, KeptOut), Error> {
        let users: Vec<i64> = users.iter().map(|user| user.as_i64()).collect();
        let (most, by_strangers) = (i64::from(limits.most), i64::from(limits.by_strangers));
        let rows = self.query(KEPT_OUT, &[&actor.as_i64(), &users, &most, &by_strangers]).await?;
        let mut kept_out = KeptOut::default();
        for row in &rows {
            let Some(id) = row.try_get::<_, Option<i64>>("id")? else { continue };
            let list = if row.try_get("refuses")? { &mut kept_out.refusing } else { &mut kept_out.full };
            list.push(user_id(id)?);
        }
        Ok((checkpoint_of(&rows)?, kept_out))
    }
}
