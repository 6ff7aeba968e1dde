//! Ids and claims of chats: which chat belongs to a pair of users, or to an idempotency key.
//!
//! A claim is not yet a chat. The chat exists once its `ChatCreated` is in the log; every caller that finds a claim
//! appends it, and the log keeps one.

use shared::id::{ChatId, UserId};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{Db, Error, pool::Param};

const PAIR: &str = "SELECT chat_id FROM direct_pairs WHERE lo = $1 AND hi = $2";
const CLAIM_PAIR: &str = "
    INSERT INTO direct_pairs (lo, hi, chat_id) VALUES ($1, $2, nextval('chat_ids')) ON CONFLICT DO NOTHING
    RETURNING chat_id";
const GROUP: &str = "SELECT chat_id FROM group_keys WHERE user_id = $1 AND key = $2";
const CLAIM_GROUP: &str = "
    INSERT INTO group_keys (user_id, key, chat_id) VALUES ($1, $2, nextval('chat_ids')) ON CONFLICT DO NOTHING
    RETURNING chat_id";
const RAISE_IDS: &str = "
    SELECT setval('chat_ids', $1) FROM chat_ids WHERE last_value < $1 AND last_value >= $1 - $2";

/// How far ahead of the last id that the database gave an id of the log may be, to be believed. A restored database lacks
/// the chats of some days. One entry with a made-up id must not use up all ids below it: it would take two million of
/// them.
pub const MOST_AHEAD: u64 = 1 << 32;

pub(crate) fn chat_id(id: i64) -> Result<ChatId, Error> {
    ChatId::try_from(id).map_err(|_| Error::Corrupt("a chat id is out of range"))
}

impl Db {
    /// The id of the pair's one direct chat.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn claim_direct_pair(&self, one: UserId, other: UserId) -> Result<ChatId, Error> {
        let (lo, hi) = (one.min(other).as_i64(), one.max(other).as_i64());
        self.claim(PAIR, CLAIM_PAIR, &[&lo, &hi]).await
    }

    /// The id of the group that the user creates under an idempotency key.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn claim_group(&self, user: UserId, key: Uuid) -> Result<ChatId, Error> {
        self.claim(GROUP, CLAIM_GROUP, &[&user.as_i64(), &key]).await
    }

    /// The id of the group that the user asked for under an idempotency key; `None` if there was none.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn group_of(&self, user: UserId, key: Uuid) -> Result<Option<ChatId>, Error> {
        self.query_opt(GROUP, &[&user.as_i64(), &key]).await?.map(|row| first_id(&row)).transpose()
    }

    /// Looks, claims, and looks again if another caller claimed in between. That is enough, as claims are never taken
    /// back.
    async fn claim(
        &self,
        look: &'static str,
        claim: &'static str,
        params: &[Param<'_>],
    ) -> Result<ChatId, Error> {
        for statement in [look, claim] {
            if let Some(row) = self.query_opt(statement, params).await? {
                return first_id(&row);
            }
        }
        first_id(&self.query_one(look, params).await?)
    }

    /// Makes sure that ids of chats up to this one are not given again: the log may hold ids that a restored database has
    /// not given. One that is further ahead than [`MOST_AHEAD`] changes nothing. (Ids of accounts need no such care: they
    /// are random.)
    ///
    /// # Errors
    /// [`Error`]
    pub async fn raise_chat_ids(&self, chats: ChatId) -> Result<(), Error> {
        self.query(RAISE_IDS, &[&chats.as_i64(), &(MOST_AHEAD as i64)]).await.map(drop)
    }
}

fn first_id(row: &Row) -> Result<ChatId, Error> {
    chat_id(row.try_get(0)?)
}
