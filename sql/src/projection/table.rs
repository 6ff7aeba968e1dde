//! What a file of this folder says of its tables, so that the lists of [`crate::shadow`] and [`crate::epoch`] follow
//! from it.

pub(crate) type Transaction<'a> = deadpool_postgres::Transaction<'a>;

/// A table of the projection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) compared: Compared,
}

/// What of a table is the same in two projections of one log.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Compared {
    Rows,
    /// These columns, which are all but for what depends on where batches ended.
    Columns(&'static str),
    /// Nothing: it is no fold of the log.
    Nothing,
}

impl Table {
    pub(crate) const fn compared(name: &'static str) -> Self {
        Self { name, compared: Compared::Rows }
    }
}
