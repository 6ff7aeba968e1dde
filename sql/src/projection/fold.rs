//! The statement that nearly every batch consists of: the checkpoint's compare-and-set, and nothing if it fails; the
//! events; how far their authors have everything. Most transactions are this and no more: one round trip.

use shared::id::Position;
use tokio_postgres::{Client, Statement, types::ToSql};

use super::{
    events::{self, NewEvent},
    groups::Rows,
    memberships::{self, OwnMark},
    row::{Row, params},
};
use crate::Checkpoint;

/// The parameters before the columns: those of [`Step`].
const STEP_PARAMS: usize = 7;

fn text() -> String {
    let events_from = STEP_PARAMS + 1;
    let marks_from = events_from + NewEvent::COLUMNS.len();
    format!(
        "WITH moved AS (
            UPDATE checkpoints SET seq = $5, id = $6, updated_ts = $7
            WHERE partition = $1 AND epoch = $2 AND seq = $3 AND id = $4
            RETURNING partition
        ), written AS ({}), marked AS ({})
        SELECT count(*) FROM moved",
        events::insert(events_from),
        memberships::raise_own_marks(marks_from)
    )
}

/// The step of the checkpoint over a batch.
pub(super) struct Step {
    pub(super) partition: i16,
    pub(super) from: Checkpoint,
    pub(super) to: Position,
    pub(super) now_ms: u64,
}

/// The prepared statement.
pub(super) struct Fold(Statement);

impl Fold {
    pub(super) async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        Ok(Self(client.prepare(&text()).await?))
    }

    /// How many checkpoints moved: one, or none if it was not where the step begins. Sent at the first poll.
    pub(super) async fn run(
        &self,
        client: &Client,
        step: &Step,
        rows: &Rows<'_>,
    ) -> Result<i64, tokio_postgres::Error> {
        let (epoch, now) = (step.from.epoch as i32, step.now_ms as i64);
        let (at_seq, at_id) = (step.from.position.seq.as_i64(), step.from.position.id.as_i64());
        let (to_seq, to_id) = (step.to.seq.as_i64(), step.to.id.as_i64());
        let before: [&(dyn ToSql + Sync); STEP_PARAMS] =
            [&step.partition, &epoch, &at_seq, &at_id, &to_seq, &to_id, &now];
        let (events, marks) = (NewEvent::columns(&rows.events), OwnMark::columns(&rows.own_marks));
        let all: Vec<_> = before.into_iter().chain(params(&events)).chain(params(&marks)).collect();
        client.query_one(&self.0, &all).await?.try_get(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_names_each_parameter_and_no_other() {
        let count = STEP_PARAMS + NewEvent::COLUMNS.len() + OwnMark::COLUMNS.len();
        let text = text();
        let named = |number: usize| {
            let name = format!("${number}");
            text.match_indices(&name)
                .any(|(at, _)| !text[at + name.len()..].starts_with(|next: char| next.is_ascii_digit()))
        };
        assert!((1..=count).all(named), "{text}");
        assert!(!named(count + 1), "{text}");
    }
}
