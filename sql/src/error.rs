//! What can go wrong with a query, and whether a retry may help.

use tokio_postgres::error::SqlState;

/// A query failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database could not be reached or did not answer in time; the outcome of a write is unknown.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] Cause),
    /// The server refused the statement; it would again.
    #[error("the statement failed: {0}")]
    Statement(#[source] tokio_postgres::Error),
    /// A row holds what no version of this program writes.
    #[error("a row cannot be read: {0}")]
    Corrupt(&'static str),
    /// A value holds bytes that no version of this program writes.
    #[error("a row cannot be read: {what}: {source}")]
    Undecodable { what: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
}

/// Why the database is unavailable.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error("no answer in time")]
    Timeout,
    #[error("no connection: {0}")]
    Pool(#[source] deadpool_postgres::PoolError),
    #[error(transparent)]
    Postgres(tokio_postgres::Error),
}

impl Error {
    /// Whether the same call may succeed later.
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    pub(crate) fn undecodable(
        what: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Undecodable { what, source: Box::new(source) }
    }

    pub(crate) const fn timeout() -> Self {
        Self::Unavailable(Cause::Timeout)
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(code) if !passes(code) => Self::Statement(error),
            // Errors without a code are of the connection, or of our own reading of a row.
            None if is_ours(&error) => Self::Statement(error),
            _ => Self::Unavailable(Cause::Postgres(error)),
        }
    }
}

impl From<deadpool_postgres::PoolError> for Error {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(error) => Self::Unavailable(Cause::Postgres(error)),
            other => Self::Unavailable(Cause::Pool(other)),
        }
    }
}

/// Whether the condition passes by itself: shutdowns, lost connections, full disks, deadlocks, cancelled statements.
fn passes(code: &SqlState) -> bool {
    let class = code.code().get(..2).unwrap_or_default();
    matches!(class, "08" | "40" | "53" | "55" | "57" | "58" | "25")
}

/// A value that does not fit its column or type is a mistake of ours, not of the connection.
fn is_ours(error: &tokio_postgres::Error) -> bool {
    use std::error::Error as _;
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.is::<std::io::Error>() {
            return false;
        }
        source = cause.source();
    }
    !error.is_closed() && error.source().is_some()
}

/// Whether the failure is that of the unique key of commands.
pub(crate) fn is_command_key(error: &tokio_postgres::Error) -> bool {
    let key = |error: &tokio_postgres::error::DbError| {
        error.code() == &SqlState::UNIQUE_VIOLATION && error.constraint() == Some("events_command")
    };
    error.as_db_error().is_some_and(key)
}
