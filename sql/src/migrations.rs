//! The migrations, compiled in. sqlx's `Migrator` does the bookkeeping: order, checksums, an advisory lock against
//! two that migrate at once. It is used for nothing else.

use std::borrow::Cow;

use sqlx::{
    Connection, PgConnection, SqlSafeStr,
    migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator},
};

/// A schema change and its inverse.
struct Step {
    version: i64,
    name: &'static str,
    up: &'static str,
    down: &'static str,
}

/// The migrations of the projection's tables, which a schema of their own needs too.
pub(crate) const PROJECTION: &[&str] = &[PROJECTION_TABLES, CANONICAL_EMOJI, AHEAD, DELETIONS];
const PROJECTION_TABLES: &str = include_str!("../migrations/0002_projection.up.sql");
const CANONICAL_EMOJI: &str = include_str!("../migrations/0004_emoji.up.sql");
const AHEAD: &str = include_str!("../migrations/0005_ahead.up.sql");
const DELETIONS: &str = include_str!("../migrations/0006_deletions.up.sql");

const STEPS: &[Step] = &[
    Step {
        version: 1,
        name: "accounts",
        up: include_str!("../migrations/0001_accounts.up.sql"),
        down: include_str!("../migrations/0001_accounts.down.sql"),
    },
    Step {
        version: 2,
        name: "projection",
        up: PROJECTION_TABLES,
        down: include_str!("../migrations/0002_projection.down.sql"),
    },
    Step {
        version: 3,
        name: "partners",
        up: include_str!("../migrations/0003_partners.up.sql"),
        down: include_str!("../migrations/0003_partners.down.sql"),
    },
    Step {
        version: 4,
        name: "emoji",
        up: CANONICAL_EMOJI,
        down: include_str!("../migrations/0004_emoji.down.sql"),
    },
    Step { version: 5, name: "ahead", up: AHEAD, down: include_str!("../migrations/0005_ahead.down.sql") },
    Step {
        version: 6,
        name: "deletions",
        up: DELETIONS,
        down: include_str!("../migrations/0006_deletions.down.sql"),
    },
    Step {
        version: 7,
        name: "access_until",
        up: include_str!("../migrations/0007_access_until.up.sql"),
        down: include_str!("../migrations/0007_access_until.down.sql"),
    },
    Step {
        version: 8,
        name: "user_ids",
        up: include_str!("../migrations/0008_user_ids.up.sql"),
        down: include_str!("../migrations/0008_user_ids.down.sql"),
    },
    Step {
        version: 9,
        name: "group_invites",
        up: include_str!("../migrations/0009_group_invites.up.sql"),
        down: include_str!("../migrations/0009_group_invites.down.sql"),
    },
];

/// Migrating failed.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error("the database cannot be reached: {0}")]
    Connect(#[source] sqlx::Error),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
}

/// A migration and whether the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub version: i64,
    pub name: &'static str,
    pub applied: bool,
    /// The database has it in another wording.
    pub altered: bool,
}

/// Brings the database to the newest schema.
///
/// # Errors
/// [`MigrationError`]
pub async fn up(url: &str) -> Result<(), MigrationError> {
    let mut connection = connect(url).await?;
    Ok(migrator().run(&mut connection).await?)
}

/// Takes back every migration above `target`.
///
/// # Errors
/// [`MigrationError`]
pub async fn down(url: &str, target: i64) -> Result<(), MigrationError> {
    let mut connection = connect(url).await?;
    Ok(migrator().undo(&mut connection, target).await?)
}

/// Every known migration, oldest first.
///
/// # Errors
/// [`MigrationError`]
pub async fn status(url: &str) -> Result<Vec<Status>, MigrationError> {
    let mut connection = connect(url).await?;
    let migrator = migrator();
    connection.ensure_migrations_table(&migrator.table_name).await?;
    let applied = connection.list_applied_migrations(&migrator.table_name).await?;
    let status = STEPS.iter().map(|step| {
        let ours = migrator.iter().find(|m| m.version == step.version && m.migration_type.is_up_migration());
        let theirs = applied.iter().find(|applied| applied.version == step.version);
        let altered = ours.zip(theirs).is_some_and(|(ours, theirs)| ours.checksum != theirs.checksum);
        Status { version: step.version, name: step.name, applied: theirs.is_some(), altered }
    });
    Ok(status.collect())
}

async fn connect(url: &str) -> Result<PgConnection, MigrationError> {
    PgConnection::connect(url).await.map_err(MigrationError::Connect)
}

fn migrator() -> Migrator {
    let pair = |step: &Step| {
        let migration = |kind, sql: &'static str| {
            Migration::new(step.version, Cow::Borrowed(step.name), kind, sql.into_sql_str(), false)
        };
        [migration(MigrationType::ReversibleUp, step.up), migration(MigrationType::ReversibleDown, step.down)]
    };
    Migrator::with_migrations(STEPS.iter().flat_map(pair).collect())
}
