//! Marks: collected for a window, stored in bulk, announced once.
//!
//! Invariants: a mark is acknowledged only after it is stored and announced, so none is lost with an instance; a mark
//! that did not move is not announced, unless an instance may have died between storing and announcing it.

use std::{collections::HashMap, time::Duration};

use shared::id::{ChatId, Seq, UserId};
use sql::marks::Mark as Row;
use streams::{
    Nats,
    marks::{Mark, MarkBatch, MarkReader},
    signal::{Receipt, Receipts, Signal},
};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Marks stored in one statement.
const MAX_BATCH: usize = 5_000;
/// Receipts in one signal: some 100 KB.
const PER_SIGNAL: usize = 2_000;
/// Before a batch that Postgres did not take is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// The task that keeps marks.
pub struct ReceiptKeeper {
    pub nats: Nats,
    pub db: sql::Db,
    pub window: Duration,
    pub metrics: Metrics,
}

impl ReceiptKeeper {
    /// Takes marks until cancelled; the marks read by then are still stored.
    pub async fn run(&self, cancel: &CancellationToken) {
        let mut reader = MarkReader::new(&self.nats);
        loop {
            let batch = tokio::select! {
                () = cancel.cancelled() => break,
                batch = reader.batch(MAX_BATCH, self.window) => batch,
            };
            self.keep(batch, cancel).await;
        }
        self.keep(reader.rest(), cancel).await;
    }

    async fn keep(&self, batch: MarkBatch, cancel: &CancellationToken) {
        let rows = coalesce(&batch.marks);
        self.metrics.marks_total.inc_by(batch.marks.len() as u64);
        let moved = loop {
            match self.store(&rows, batch.redelivered).await {
                Ok(moved) => break moved,
                Err(error) if error.is_temporary() => tracing::warn!(%error, "marks wait for postgres"),
                // Tried again, they would fail for ever and hold up all marks behind them.
                Err(error) => {
                    tracing::error!(%error, count = rows.len(), "marks can't be stored and are dropped");
                    break Vec::new();
                }
            }
            tokio::select! {
                // The marks are not acknowledged, so another instance gets them.
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        };
        self.announce(&moved);
        batch.ack().await;
    }

    /// The marks to announce.
    async fn store(&self, rows: &[Row], redelivered: bool) -> Result<Vec<Row>, sql::Error> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let moved = self.db.raise_marks(rows).await?;
        if !redelivered {
            return Ok(moved);
        }
        let members: Vec<_> = rows.iter().map(|row| (row.chat, row.user)).collect();
        self.db.marks_of(&members).await
    }

    fn announce(&self, moved: &[Row]) {
        for receipts in by_chat(moved) {
            let count: usize = receipts.iter().map(|of_chat| of_chat.receipts.len()).sum();
            if let Err(error) = self.nats.signal(&Signal::Receipts(receipts)) {
                tracing::debug!(%error, "receipts were dropped");
            } else {
                self.metrics.receipts_total.inc_by(count as u64);
            }
        }
    }
}

/// The highest marks of each member.
fn coalesce(marks: &[Mark]) -> Vec<Row> {
    let mut highest: HashMap<(ChatId, UserId), (Seq, Seq)> = HashMap::new();
    for mark in marks {
        let (read, delivered) = highest.entry((mark.chat, mark.user)).or_default();
        *read = mark.read.unwrap_or_default().max(*read);
        *delivered = mark.delivered.unwrap_or_default().max(*delivered);
    }
    highest.into_iter().map(|((chat, user), (read, delivered))| Row { chat, user, read, delivered }).collect()
}

/// Signals of at most [`PER_SIGNAL`] receipts, those of a chat together where they fit.
fn by_chat(rows: &[Row]) -> Vec<Vec<Receipts>> {
    let mut rows: Vec<&Row> = rows.iter().collect();
    rows.sort_unstable_by_key(|row| (row.chat, row.user));
    let signals = rows.chunks(PER_SIGNAL).map(|rows| {
        let chats = rows.chunk_by(|a, b| a.chat == b.chat);
        chats
            .map(|rows| Receipts { chat: rows[0].chat, receipts: rows.iter().map(receipt).collect() })
            .collect()
    });
    signals.collect()
}

fn receipt(row: &&Row) -> Receipt {
    Receipt { user: row.user, read: row.read, delivered: row.delivered }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(chat: u64, user: u64, read: Option<u64>, delivered: Option<u64>) -> Mark {
        let (chat, user) = (ChatId::new(chat).unwrap(), UserId::new(user).unwrap());
        Mark { chat, user, read: read.map(Seq), delivered: delivered.map(Seq) }
    }

    #[test]
    fn the_highest_of_each_member_stays_in_any_order() {
        let mut marks = vec![
            mark(1, 1, Some(5), None),
            mark(1, 1, Some(9), None),
            mark(1, 1, None, Some(7)),
            mark(1, 2, Some(3), None),
            mark(2, 1, None, Some(4)),
        ];
        for _ in 0..2 {
            let mut rows = coalesce(&marks);
            rows.sort_by_key(|row| (row.chat, row.user));
            let numbers: Vec<_> = rows
                .iter()
                .map(|row| (row.chat.get(), row.user.get(), row.read.get(), row.delivered.get()))
                .collect();
            assert_eq!(numbers, [(1, 1, 9, 7), (1, 2, 3, 0), (2, 1, 0, 4)]);
            marks.reverse();
        }
    }

    #[test]
    fn receipts_of_a_chat_are_together_and_signals_are_bounded() {
        let many: Vec<Mark> = (1..=4_500).map(|user| mark(1 + user % 2, user, Some(1), None)).collect();
        let signals = by_chat(&coalesce(&many));
        assert_eq!(signals.len(), 3);
        let count = |signal: &Vec<Receipts>| signal.iter().map(|of| of.receipts.len()).sum::<usize>();
        assert!(signals.iter().all(|signal| count(signal) <= PER_SIGNAL));
        assert_eq!(signals.iter().map(count).sum::<usize>(), 4_500);
        assert_eq!(by_chat(&coalesce(&many[..10])).len(), 1);
        assert_eq!(by_chat(&coalesce(&many[..10]))[0].len(), 2, "one entry a chat");
        assert!(by_chat(&[]).is_empty());
    }
}
