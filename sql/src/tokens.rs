//! Token families (one per logged-in device) and their refresh tokens.
//!
//! Invariants: of two rotations of one token exactly one wins, and the other revokes the family; a revoked family
//! never comes back. Times are the caller's, in Unix milliseconds.

use shared::id::UserId;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{Db, Error, accounts::user_id};

/// A device that is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    pub did: Uuid,
    pub user: UserId,
    pub device: String,
    pub created_ms: u64,
    pub last_seen_ms: u64,
}

/// When a pair of tokens is made, and when each of them ends. Unix ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lives {
    pub now_ms: u64,
    pub access_until_ms: u64,
    pub refresh_until_ms: u64,
}

/// A family that was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokedFamily {
    pub did: Uuid,
    pub user: UserId,
    /// When its last access token ends; `None` if that was not recorded.
    pub access_until_ms: Option<u64>,
}

/// What became of a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    Rotated {
        user: UserId,
        did: Uuid,
        device: String,
    },
    /// The token was used before: its family is revoked now.
    Reused(RevokedFamily),
    /// The family was revoked before.
    Revoked,
    Expired,
    Unknown,
}

const CREATE: &str = "
    WITH family AS (
        INSERT INTO token_families (did, user_id, device, created_ts, last_seen_ts, expires_ts, access_until_ts)
        VALUES ($1, $2, $3, $5, $5, $6, $7)
    )
    INSERT INTO refresh_tokens (hash, did, issued_ts, expires_ts) VALUES ($4, $1, $5, $6)";
// The token's row is locked by the update: a second rotation waits for the first and then finds it used. The foreign
// key of the fresh token is checked at the end of the statement, by when the family is there.
const ROTATE: &str = "
    WITH spent AS (
        UPDATE refresh_tokens t SET used_ts = $3 FROM token_families f
        WHERE t.hash = $1 AND t.used_ts IS NULL AND t.expires_ts > $3 AND f.did = t.did AND f.revoked_ts IS NULL
        RETURNING t.did, f.user_id, f.device
    ),
    fresh AS (
        INSERT INTO refresh_tokens (hash, did, issued_ts, expires_ts) SELECT $2, did, $3, $4 FROM spent
    ),
    seen AS (
        UPDATE token_families f
        SET last_seen_ts = $3, expires_ts = $4, access_until_ts = greatest(f.access_until_ts, $5)
        FROM spent WHERE f.did = spent.did
    ),
    old AS (
        DELETE FROM refresh_tokens t USING spent WHERE t.did = spent.did AND t.expires_ts <= $3
    )
    SELECT did, user_id, device FROM spent";
const WHY: &str = "
    SELECT f.did, f.user_id, t.used_ts IS NOT NULL AS used, f.revoked_ts IS NOT NULL AS revoked
    FROM refresh_tokens t JOIN token_families f USING (did) WHERE t.hash = $1";
const REVOKE: &str = "
    UPDATE token_families SET revoked_ts = $3 WHERE did = $2 AND user_id = $1 AND revoked_ts IS NULL
    RETURNING did, user_id, access_until_ts";
const FAMILY_OF: &str = "
    SELECT f.did, f.user_id, f.device, f.created_ts, f.last_seen_ts
    FROM refresh_tokens t JOIN token_families f USING (did) WHERE t.hash = $1 AND f.revoked_ts IS NULL";
const FAMILIES: &str = "
    SELECT did, user_id, device, created_ts, last_seen_ts FROM token_families
    WHERE user_id = $1 AND revoked_ts IS NULL AND expires_ts > $2 ORDER BY last_seen_ts DESC, did";
// The foreign key is checked at the end of the statement, by when both are gone. A scan, as it is rare: an index would
// cost each rotation.
const FORGET: &str = "
    WITH gone AS (
        SELECT did FROM token_families WHERE expires_ts < $1 LIMIT $2 FOR UPDATE SKIP LOCKED
    ),
    tokens AS (
        DELETE FROM refresh_tokens t USING gone WHERE t.did = gone.did
    )
    DELETE FROM token_families f USING gone WHERE f.did = gone.did";
const REVOKED_SINCE: &str = "
    SELECT did, user_id, access_until_ts FROM token_families
    WHERE revoked_ts >= $1 AND (access_until_ts IS NULL OR access_until_ts > $2)";

fn family(row: &Row) -> Result<Family, Error> {
    let (created, seen): (i64, i64) = (row.try_get("created_ts")?, row.try_get("last_seen_ts")?);
    Ok(Family {
        did: row.try_get("did")?,
        user: user_id(row.try_get("user_id")?)?,
        device: row.try_get("device")?,
        created_ms: created as u64,
        last_seen_ms: seen as u64,
    })
}

fn revoked(row: &Row) -> Result<RevokedFamily, Error> {
    let until: Option<i64> = row.try_get("access_until_ts")?;
    Ok(RevokedFamily {
        did: row.try_get("did")?,
        user: user_id(row.try_get("user_id")?)?,
        access_until_ms: until.map(|until| until as u64),
    })
}

impl Lives {
    /// As the statements take them: now, the ends of the access token and of the refresh token.
    const fn columns(self) -> (i64, i64, i64) {
        (self.now_ms as i64, self.access_until_ms as i64, self.refresh_until_ms as i64)
    }
}

impl Db {
    /// A device logs in: its family and first refresh token, in one round trip.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn create_family(
        &self,
        did: Uuid,
        user: UserId,
        device: &str,
        hash: &[u8],
        lives: Lives,
    ) -> Result<(), Error> {
        let (now, access, refresh) = lives.columns();
        self.execute(CREATE, &[&did, &user.as_i64(), &device, &hash, &now, &refresh, &access]).await.map(drop)
    }

    /// Exchanges a refresh token for the next one.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn rotate(&self, old: &[u8], new: &[u8], lives: Lives) -> Result<Rotation, Error> {
        let (now, access, refresh) = lives.columns();
        if let Some(row) = self.query_opt(ROTATE, &[&old, &new, &now, &refresh, &access]).await? {
            let user = user_id(row.try_get("user_id")?)?;
            return Ok(Rotation::Rotated { user, did: row.try_get("did")?, device: row.try_get("device")? });
        }
        let Some(row) = self.query_opt(WHY, &[&old]).await? else { return Ok(Rotation::Unknown) };
        let (used, revoked): (bool, bool) = (row.try_get("used")?, row.try_get("revoked")?);
        match (revoked, used) {
            (true, _) => Ok(Rotation::Revoked),
            (false, false) => Ok(Rotation::Expired),
            (false, true) => {
                let (user, did) = (user_id(row.try_get("user_id")?)?, row.try_get("did")?);
                // If another call has revoked it meanwhile, that one tells who has to know.
                let revoked = self.revoke_family(user, did, lives.now_ms).await?;
                Ok(revoked.map_or(Rotation::Revoked, Rotation::Reused))
            }
        }
    }

    /// Ends a device's login; `None` if the user has no such device or it was ended before.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn revoke_family(
        &self,
        user: UserId,
        did: Uuid,
        now_ms: u64,
    ) -> Result<Option<RevokedFamily>, Error> {
        let row = self.query_opt(REVOKE, &[&user.as_i64(), &did, &(now_ms as i64)]).await?;
        row.map(|row| revoked(&row)).transpose()
    }

    /// The living family that a refresh token, used or not, belongs to.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn family_of(&self, hash: &[u8]) -> Result<Option<Family>, Error> {
        self.query_opt(FAMILY_OF, &[&hash]).await?.map(|row| family(&row)).transpose()
    }

    /// The user's devices, the last seen first.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn families(&self, user: UserId, now_ms: u64) -> Result<Vec<Family>, Error> {
        let rows = self.query(FAMILIES, &[&user.as_i64(), &(now_ms as i64)]).await?;
        rows.iter().map(family).collect()
    }

    /// Forgets families whose last refresh token ended before a time, `most` of them at once. How many went.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn forget_families(&self, before_ms: u64, most: u32) -> Result<u64, Error> {
        self.execute(FORGET, &[&(before_ms as i64), &i64::from(most)]).await
    }

    /// The families revoked at or after a time whose access tokens have not all ended. Gateways ask now and then, as
    /// they may have missed the signal.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn revoked_since(&self, since_ms: u64, now_ms: u64) -> Result<Vec<RevokedFamily>, Error> {
        let rows = self.query(REVOKED_SINCE, &[&(since_ms as i64), &(now_ms as i64)]).await?;
        rows.iter().map(revoked).collect()
    }
}
