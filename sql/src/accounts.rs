//! Accounts: who may log in, and what others see of them.

use shared::id::UserId;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{Db, Error};

/// An account as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    pub email: String,
    pub display_name: String,
    pub group_invites: GroupInvites,
}

/// Who may add a user to groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupInvites {
    #[default]
    Everyone,
    /// People with whom the user shares a direct chat that the user began or wrote in. One that somebody else began, and
    /// that was never answered, is not the user's doing.
    Contacts,
    Nobody,
}

impl GroupInvites {
    /// The text on the wire and in Postgres.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Everyone => "everyone",
            Self::Contacts => "contacts",
            Self::Nobody => "nobody",
        }
    }

    /// The inverse of [`GroupInvites::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Everyone, Self::Contacts, Self::Nobody].into_iter().find(|invites| invites.as_str() == text)
    }
}

/// An account and the hash of its password.
#[derive(Debug, Clone)]
pub struct Account {
    pub user: User,
    /// `None`: nobody can log in to it with a password.
    pub password_hash: Option<String>,
}

/// An account as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub id: UserId,
    pub display_name: String,
}

const CREATE: &str = "
    INSERT INTO users (email, display_name, password_hash, created_ts) VALUES ($1, $2, $3, $4)
    ON CONFLICT (email) DO NOTHING RETURNING id";
const BY_EMAIL: &str =
    "SELECT id, email, display_name, group_invites, password_hash FROM users WHERE email = $1";
const BY_ID: &str = "SELECT id, email, display_name, group_invites FROM users WHERE id = $1";
const PROFILES: &str = "SELECT id, display_name FROM users WHERE id = ANY($1) ORDER BY id";
const RENEW_HASH: &str = "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2";
// A sample of pages, some 100,000 accounts: the shares are wanted, not the numbers. `reltuples` is -1 before the first
// analysis. The cost stands in a hash's third field: `$2b$12$…`.
const COSTS: &str = "
    SELECT split_part(password_hash, '$', 3) AS cost, count(*) AS accounts
    FROM users TABLESAMPLE SYSTEM (least(100, 1e7 / greatest(1, (
        SELECT reltuples FROM pg_class WHERE oid = 'users'::regclass
    ))))
    WHERE password_hash IS NOT NULL GROUP BY 1";
const UPDATE: &str = "
    UPDATE users SET display_name = coalesce($2, display_name), group_invites = coalesce($3, group_invites)
    WHERE id = $1";
const PROVISION: &str = "
    WITH fresh AS MATERIALIZED (SELECT new_user_id() AS id, gen_random_uuid() AS did FROM generate_series(1, $2)),
    accounts AS (
        INSERT INTO users (id, email, display_name, created_ts)
        SELECT id, $1 || '-' || id || '@provisioned.invalid', $1 || '-' || id, $3 FROM fresh
    ),
    families AS (
        INSERT INTO token_families (did, user_id, device, created_ts, last_seen_ts, expires_ts, access_until_ts)
        SELECT did, id, $4, $3, $3, $5, $5 FROM fresh
    )
    SELECT id, did FROM fresh ORDER BY id";
/// Ids below this were counted up, one after the other, by earlier builds: who has one can guess others. Ids of accounts
/// that are made now are random, and one in two million is below this.
pub const GUESSABLE_BELOW: u64 = 1 << 32;

// A few thousand look-ups by index for each of `others` at most: as many as `user` has chats.
const ACQUAINTED: &str = "
    SELECT q.id FROM unnest($2::bigint[]) AS q (id) WHERE EXISTS (
        SELECT 1 FROM memberships mine JOIN memberships other ON other.chat_id = mine.chat_id
        WHERE mine.user_id = $1 AND mine.to_seq IS NULL AND other.user_id = q.id AND other.to_seq IS NULL
    )";
/// Accounts made by one statement: a second of work at most.
const PROVISION_CHUNK: usize = 5_000;

pub(crate) fn user_id(id: i64) -> Result<UserId, Error> {
    UserId::try_from(id).map_err(|_| Error::Corrupt("a user id is out of range"))
}

fn user(row: &Row) -> Result<User, Error> {
    Ok(User {
        id: user_id(row.try_get("id")?)?,
        email: row.try_get("email")?,
        display_name: row.try_get("display_name")?,
        group_invites: GroupInvites::parse(row.try_get("group_invites")?)
            .ok_or(Error::Corrupt("nobody knows who may add a user"))?,
    })
}

impl Db {
    /// Makes an account; `None` if the e-mail (lower-cased by the caller) has one.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn create_user(
        &self,
        email: &str,
        display_name: &str,
        password_hash: &str,
        now_ms: u64,
    ) -> Result<Option<UserId>, Error> {
        let row = self.query_opt(CREATE, &[&email, &display_name, &password_hash, &(now_ms as i64)]).await?;
        row.map(|row| user_id(row.try_get(0)?)).transpose()
    }

    /// The account with this (lower-cased) e-mail.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn user_by_email(&self, email: &str) -> Result<Option<Account>, Error> {
        let row = self.query_opt(BY_EMAIL, &[&email]).await?;
        row.map(|row| Ok(Account { user: user(&row)?, password_hash: row.try_get("password_hash")? }))
            .transpose()
    }

    /// The account with this id.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn user(&self, id: UserId) -> Result<Option<User>, Error> {
        self.query_opt(BY_ID, &[&id.as_i64()]).await?.map(|row| user(&row)).transpose()
    }

    /// The profiles of the accounts that exist, by ascending id.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn users(&self, ids: &[UserId]) -> Result<Vec<Profile>, Error> {
        let ids: Vec<i64> = ids.iter().map(|id| id.as_i64()).collect();
        let rows = self.query(PROFILES, &[&ids]).await?;
        let profile = |row: &Row| {
            Ok(Profile { id: user_id(row.try_get("id")?)?, display_name: row.try_get("display_name")? })
        };
        rows.iter().map(profile).collect()
    }

    /// Those of the others who are in a chat with the user, as of the projection's checkpoint.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn acquainted(&self, user: UserId, others: &[UserId]) -> Result<Vec<UserId>, Error> {
        let others: Vec<i64> = others.iter().map(|id| id.as_i64()).collect();
        let rows = self.query(ACQUAINTED, &[&user.as_i64(), &others]).await?;
        rows.iter().map(|row| user_id(row.try_get("id")?)).collect()
    }

    /// Changes the given fields; `false` if there is no such account.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn update_user(
        &self,
        id: UserId,
        display_name: Option<&str>,
        group_invites: Option<GroupInvites>,
    ) -> Result<bool, Error> {
        let group_invites = group_invites.map(GroupInvites::as_str);
        Ok(self.execute(UPDATE, &[&id.as_i64(), &display_name, &group_invites]).await? > 0)
    }

    /// Replaces the hash of a password that did not change; `false` if it did meanwhile.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn renew_password_hash(&self, id: UserId, old: &str, new: &str) -> Result<bool, Error> {
        Ok(self.execute(RENEW_HASH, &[&id.as_i64(), &old, &new]).await? > 0)
    }

    /// The costs of the accounts' password hashes, and how many accounts of a sample have each.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn password_costs(&self) -> Result<Vec<(u32, u64)>, Error> {
        let rows = self.query(COSTS, &[]).await?;
        let mut costs = Vec::new();
        for row in rows {
            let (cost, accounts): (&str, i64) = (row.try_get("cost")?, row.try_get("accounts")?);
            if let Ok(cost) = cost.parse() {
                costs.push((cost, accounts as u64));
            }
        }
        Ok(costs)
    }

    /// Makes accounts without a password, each with one device: how an operator makes many test users.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn provision_users(
        &self,
        prefix: &str,
        count: usize,
        device: &str,
        now_ms: u64,
        expires_ms: u64,
    ) -> Result<Vec<(UserId, Uuid)>, Error> {
        let mut made = Vec::with_capacity(count);
        while made.len() < count {
            let chunk = (count - made.len()).min(PROVISION_CHUNK) as i32;
            let (now, expires) = (now_ms as i64, expires_ms as i64);
            let rows = self.query(PROVISION, &[&prefix, &chunk, &now, &device, &expires]).await?;
            for row in rows {
                made.push((user_id(row.try_get(0)?)?, row.try_get(1)?));
            }
        }
        Ok(made)
    }
}
