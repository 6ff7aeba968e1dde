//! Whether the log still holds the events that a reader has read, and where the two histories part if it does not.

use futures_util::future::BoxFuture;
use shared::id::{EventId, Position, Seq};

use crate::{
    connect::{Nats, Unavailable},
    read::Bounds,
    subject::Partition,
};

/// The answer of [`Known::at_or_below`].
pub type Recall<'a> = BoxFuture<'a, Result<Option<Position>, Unavailable>>;

/// A reader's memory of the log: a gateway's ring and the projection behind it, or a projector's rows. It need not
/// hold every event, but it holds only events that were read.
pub trait Known: Send + Sync {
    /// The newest remembered event at or below `seq`.
    fn at_or_below(&self, seq: Seq) -> Recall<'_>;
}

/// How a position stands against the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The log holds the event at the position, or the position is before the first event.
    Same,
    /// The log holds another event at the position, or none.
    Lost,
    /// Events after the position are no longer kept.
    Expired { first: Seq },
}

/// A position compared with the log.
pub(crate) struct Check {
    pub standing: Standing,
    /// Where the log ends.
    pub last: Seq,
}

/// Compares the event at `position` with the log.
pub(crate) fn check(
    nats: &Nats,
    partition: Partition,
    position: Position,
) -> BoxFuture<'static, Result<Check, Unavailable>> {
    let nats = nats.clone();
    Box::pin(async move {
        if position.seq > Seq::ZERO && nats.id_in_log(partition, position.seq).await? == Some(position.id) {
            return Ok(Check { standing: Standing::Same, last: nats.bounds(partition).await?.last });
        }
        // A deposed leader may lack events that its successor has, so its answer is not enough to void any.
        let bounds = nats.proven_bounds(partition).await?;
        Ok(Check { standing: without_common_event(position.seq, bounds), last: bounds.last })
    })
}

fn without_common_event(position: Seq, bounds: Bounds) -> Standing {
    match position.next() {
        next if next < bounds.first => Standing::Expired { first: bounds.first },
        // The event at the position was just before the first that is kept: there is nothing to compare.
        next if next == bounds.first && position <= bounds.last => Standing::Same,
        _ if position == Seq::ZERO => Standing::Same,
        _ => Standing::Lost,
    }
}

/// The last event at or below `lost` that both the reader and the log hold; none if there is no such event.
pub(crate) async fn find_cut(
    nats: &Nats,
    partition: Partition,
    lost: Position,
    known: &dyn Known,
) -> Result<Option<Position>, Unavailable> {
    let first = nats.proven_bounds(partition).await?.first;
    let is_common = |position: Position| async move {
        // An event that is no longer kept can't be compared. It is older than the lost ones, so it is common.
        let kept = position.seq >= first;
        Ok(!kept || nats.id_in_log(partition, position.seq).await? == Some(position.id))
    };
    search(lost, known, is_common).await
}

/// Binary search: events are common up to some sequence and different from there on.
async fn search<Q>(
    lost: Position,
    known: &dyn Known,
    is_common: impl Fn(Position) -> Q + Send,
) -> Result<Option<Position>, Unavailable>
where
    // An `AsyncFn` could not say that its futures may cross threads.
    Q: Future<Output = Result<bool, Unavailable>> + Send,
{
    let (mut common, mut low, mut high): (Option<Position>, u64, u64) = (None, 0, lost.seq.get());
    // Everything remembered at or below `low` is common, everything at or above `high` is not.
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match known.at_or_below(Seq(middle)).await? {
            Some(position) if position.seq.get() > low => {
                if is_common(position).await? {
                    (common, low) = (Some(position), middle);
                } else {
                    high = position.seq.get();
                }
            }
            // Nothing is remembered between `low` and `middle`.
            _ => low = middle,
        }
    }
    Ok(common)
}

impl Nats {
    /// The identity of the event at `seq`, by a leader read; none if there is no such event.
    pub(crate) async fn id_in_log(
        &self,
        partition: Partition,
        seq: Seq,
    ) -> Result<Option<EventId>, Unavailable> {
        Ok(self.read_one(partition, seq).await?.map(|entry| entry.id))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Rows(BTreeMap<u64, u64>);

    impl Known for Rows {
        fn at_or_below(&self, seq: Seq) -> Recall<'_> {
            let found = self.0.range(..=seq.get()).next_back();
            let found = found.map(|(seq, id)| Position { seq: Seq(*seq), id: EventId(*id) });
            Box::pin(async move { Ok(found) })
        }
    }

    async fn cut(rows: &[u64], log_ends: u64, lost: u64) -> Option<u64> {
        let rows = Rows(rows.iter().map(|seq| (*seq, *seq)).collect());
        let lost = Position { seq: Seq(lost), id: EventId(lost) };
        let common = |position: Position| std::future::ready(Ok(position.seq.get() <= log_ends));
        search(lost, &rows, common).await.unwrap().map(|position| position.seq.get())
    }

    #[test]
    fn positions_without_a_common_event() {
        let bounds = |first, last| Bounds { first: Seq(first), last: Seq(last), ..Bounds::default() };
        let cases = [
            (0, bounds(1, 0), Standing::Same),
            (0, bounds(1, 9), Standing::Same),
            (0, bounds(5, 9), Standing::Expired { first: Seq(5) }),
            (3, bounds(5, 9), Standing::Expired { first: Seq(5) }),
            (4, bounds(5, 9), Standing::Same),
            (5, bounds(5, 9), Standing::Lost),
            (10, bounds(5, 9), Standing::Lost),
            // Everything has expired, and the position is the end.
            (9, bounds(10, 9), Standing::Same),
            (3, bounds(1, 0), Standing::Lost),
        ];
        for (position, bounds, expected) in cases {
            assert_eq!(without_common_event(Seq(position), bounds), expected, "{position} in {bounds:?}");
        }
    }

    #[tokio::test]
    async fn the_cut_is_the_last_common_event_however_sparse_the_memory() {
        let dense: Vec<u64> = (1..=100).collect();
        for end in 0..100 {
            let expected = if end == 0 { None } else { Some(end) };
            assert_eq!(cut(&dense, end, 100).await, expected, "dense, log ends at {end}");
        }
        let sparse = [3, 17, 18, 40, 77, 100];
        for end in 0..100 {
            let expected = sparse.iter().rev().find(|seq| **seq <= end).copied();
            assert_eq!(cut(&sparse, end, 100).await, expected, "sparse, log ends at {end}");
        }
        assert_eq!(cut(&[], 50, 100).await, None);
        assert_eq!(cut(&[1], 0, 1).await, None);
    }
}
