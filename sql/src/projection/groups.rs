//! The tables of the projection: all rows of a batch, and for each group of tables how they are written and taken back.
//!
//! A group is one file: its row types, statements, write, and take-back. A new one is a file, a field of [`Rows`] and a
//! line in `groups!`, from which everything here and the lists of [`crate::shadow`] and [`crate::epoch`] follow.

use tokio_postgres::Client;

use super::{
    ahead::{self, AheadCommand},
    chats::{self, ChatRows},
    dead_letters::{self, DeadLetter},
    events::{self, NewEvent},
    memberships::{self, MembershipRows, OwnMark},
    messages::{self, Overlay},
    refused::{self, Refused},
    table::{Compared, Table, Transaction},
};
use crate::Error;

/// All rows of a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rows<'a> {
    pub events: Vec<NewEvent<'a>>,
    pub own_marks: Vec<OwnMark>,
    pub messages: Overlay<'a>,
    pub refused: Vec<Refused<'a>>,
    pub dead_letters: Vec<DeadLetter<'a>>,
    pub ahead: Vec<AheadCommand>,
    pub memberships: MembershipRows,
    pub chats: ChatRows,
}

/// The checkpoints come first: everything that writes or must be fresh begins with them. How often the log lost its
/// tail is no fold of the log.
const CHECKPOINTS: &[Table] = &[
    Table { name: "checkpoints", compared: Compared::Nothing },
    Table { name: "epochs", compared: Compared::Nothing },
];

/// In the order in which the groups are written and taken back.
macro_rules! groups {
    ($($group:ident),+ $(,)?) => {
        /// Every table of the projection.
        pub(crate) fn tables() -> impl Iterator<Item = Table> {
            [CHECKPOINTS, events::TABLES, $($group::TABLES),+].into_iter().flatten().copied()
        }

        impl Rows<'_> {
            /// Whether there is nothing to write but events and marks, as nearly always.
            pub(super) fn is_only_events(&self) -> bool {
                $(self.$group.is_empty())&&+
            }
        }

        /// The prepared statements of all groups but the events, which [`super::fold`] writes.
        pub(super) struct Groups {
            $($group: $group::Group,)+
        }

        impl Groups {
            pub(super) async fn prepare(
                client: &Client,
                partition: i16,
            ) -> Result<Self, tokio_postgres::Error> {
                Ok(Self { $($group: $group::Group::prepare(client, partition).await?,)+ })
            }

            /// Writes the rows of a batch that are not events. Sent at the first poll.
            pub(super) async fn write(
                &self,
                client: &Client,
                rows: &Rows<'_>,
            ) -> Result<(), tokio_postgres::Error> {
                tokio::try_join!(biased; $(self.$group.write(client, &rows.$group)),+).map(drop)
            }
        }

        /// Deletes the rows above `cut`, and folds again what they had changed below it. Returns the chats that had
        /// events above it.
        pub(crate) async fn take_back(
            transaction: &Transaction<'_>,
            partition: i16,
            cut: i64,
        ) -> Result<Vec<i64>, Error> {
            let lost = events::take_back(transaction, partition, cut).await?;
            $($group::Group::take_back(transaction, &lost).await?;)+
            Ok(lost.chats.into_iter().collect())
        }
    };
}

groups!(messages, refused, dead_letters, ahead, memberships, chats);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::migrations::PROJECTION;

    #[test]
    fn every_table_of_the_schema_is_listed() {
        let created = PROJECTION
            .iter()
            .flat_map(|tables| tables.lines())
            .filter_map(|line| line.strip_prefix("CREATE TABLE "));
        let created: BTreeSet<&str> = created.filter_map(|rest| rest.split(' ').next()).collect();
        let listed: Vec<&str> = tables().map(|table| table.name).collect();
        assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), created);
        assert_eq!(listed.len(), created.len(), "each once");
        assert_eq!(listed[0], "checkpoints", "reads that must be fresh begin with it, and so must the lock");
    }
}
