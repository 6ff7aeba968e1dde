//! How rows travel to Postgres: one array a column, and a statement that takes the arrays apart.
//!
//! [`columns!`] lists the columns of a row type once: name, type, value. The statement's text and its parameters are
//! both made of that list, so that they can't disagree about an order.

use tokio_postgres::{Client, Statement, types::ToSql};

type PgError = tokio_postgres::Error;

/// The values of one column, as a parameter.
pub(crate) type Column<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// What can be written as arrays. Implemented by [`columns!`].
pub(crate) trait Row: Sized {
    /// Names and types, in the order of [`Row::columns`].
    const COLUMNS: &'static [(&'static str, &'static str)];

    fn columns(rows: &[Self]) -> Vec<Column<'_>>;
}

/// `columns!(Type { name: "sql type" = |row| value, … })`.
macro_rules! columns {
    ($row:ty { $($name:ident: $sql:literal = $value:expr),+ $(,)? }) => {
        impl $crate::projection::row::Row for $row {
            const COLUMNS: &'static [(&'static str, &'static str)] = &[$((stringify!($name), $sql)),+];

            fn columns(rows: &[Self]) -> Vec<$crate::projection::row::Column<'_>> {
                vec![$(Box::new(rows.iter().map($value).collect::<Vec<_>>())),+]
            }
        }
    };
}
pub(crate) use columns;

/// The rows as a table `q`, for a `FROM`; `first` is the number of their first parameter.
pub(crate) fn rows_as_q<R: Row>(first: usize) -> String {
    let arrays: Vec<String> =
        (first..).zip(R::COLUMNS).map(|(number, (_, sql_type))| format!("${number}::{sql_type}[]")).collect();
    format!("unnest({}) AS q ({})", arrays.join(", "), names::<R>(""))
}

/// The names of the columns, each behind `prefix`.
pub(crate) fn names<R: Row>(prefix: &str) -> String {
    let names: Vec<String> = R::COLUMNS.iter().map(|(name, _)| format!("{prefix}{name}")).collect();
    names.join(", ")
}

/// The parameters for [`rows_as_q`].
pub(crate) fn params<'a>(columns: &'a [Column<'_>]) -> Vec<&'a (dyn ToSql + Sync)> {
    columns.iter().map(|column| &**column as &(dyn ToSql + Sync)).collect()
}

/// A prepared statement that writes rows, many at once.
pub(crate) struct Write {
    statement: Statement,
    /// The first parameter of an insert into a table with a column `partition`.
    partition: Option<i16>,
}

impl Write {
    /// A statement whose parameters are the rows' columns from `$1` on.
    pub(crate) async fn prepare(client: &Client, text: &str) -> Result<Self, PgError> {
        Ok(Self { statement: client.prepare(text).await?, partition: None })
    }

    /// An insert into a table that has the columns of `R` and a column `partition`.
    pub(crate) async fn insert<R: Row>(
        client: &Client,
        table: &str,
        partition: i16,
    ) -> Result<Self, PgError> {
        let (names, rows) = (names::<R>(""), rows_as_q::<R>(2));
        let text =
            format!("INSERT INTO {table} (partition, {names}) SELECT $1::smallint, {names} FROM {rows}");
        Ok(Self { partition: Some(partition), ..Self::prepare(client, &text).await? })
    }

    /// Writes the rows, if there are any. Sent at the first poll, so that statements polled one after the other arrive
    /// in that order.
    pub(crate) async fn run<R: Row>(&self, client: &Client, rows: &[R]) -> Result<(), PgError> {
        if rows.is_empty() {
            return Ok(());
        }
        let columns = R::columns(rows);
        let mut all: Vec<&(dyn ToSql + Sync)> = Vec::with_capacity(columns.len() + 1);
        all.extend(self.partition.as_ref().map(|partition| partition as &(dyn ToSql + Sync)));
        all.extend(params(&columns));
        client.execute(&self.statement, &all).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair {
        number: i64,
        text: &'static str,
    }

    columns!(Pair { number: "bigint" = |pair| pair.number, text: "text" = |pair| pair.text });

    #[test]
    fn text_and_parameters_are_of_one_list() {
        assert_eq!(rows_as_q::<Pair>(3), "unnest($3::bigint[], $4::text[]) AS q (number, text)");
        assert_eq!(names::<Pair>("q."), "q.number, q.text");
        let columns = Pair::columns(&[Pair { number: 7, text: "seven" }, Pair { number: 8, text: "eight" }]);
        let shown: Vec<String> = params(&columns).iter().map(|param| format!("{param:?}")).collect();
        assert_eq!(shown, ["[7, 8]", "[\"seven\", \"eight\"]"]);
    }
}
