//! Folding rows again that an earlier build folded by another rule. Once, by the projector that has the lock, before it
//! goes on.

use shared::{event::Kind, id::Seq};
use tokio_postgres::Row;

use super::{messages::Overlay, session::Writer};
use crate::{Error, chats::chat_id, message::decode};

const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = 0";
const CLAIM: &str =
    "UPDATE checkpoints SET emoji_canonical = true WHERE partition = $1 AND NOT emoji_canonical";
const FORGET: &str = "
    DELETE FROM reactions r USING chats c WHERE c.id = r.chat_id AND c.partition = $1";
/// A page is 100 KB in memory.
const FETCH: &str = "FETCH 1000 FROM old";

impl Writer {
    /// Folds the reactions again if an earlier build folded them, from the events. They were told apart by the way in
    /// which an emoji was typed; events are read with canonical emoji now. Returns how many events that were.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn refold_reactions(&self) -> Result<u64, Error> {
        self.client.batch_execute(BEGIN).await?;
        let outcome = self.refold().await;
        let end = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
        self.client.batch_execute(end).await?;
        outcome
    }

    async fn refold(&self) -> Result<u64, Error> {
        if self.client.execute(CLAIM, &[&self.partition]).await? == 0 {
            return Ok(0);
        }
        self.client.execute(FORGET, &[&self.partition]).await?;
        self.client.batch_execute(&read(self.partition)).await?;
        let mut count = 0;
        loop {
            let rows = self.client.query(FETCH, &[]).await?;
            if rows.is_empty() {
                return Ok(count);
            }
            count += rows.len() as u64;
            self.fold_page(&rows).await?;
        }
    }

    async fn fold_page(&self, rows: &[Row]) -> Result<(), Error> {
        let mut overlay = Overlay::default();
        for row in rows {
            let (seq, ts): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
            let payload: &[u8] = row.try_get(3)?;
            overlay.apply(chat_id(row.try_get(0)?)?, Seq::from(seq), ts as u64, &decode(payload)?, payload);
        }
        overlay.write_reactions(&self.client).await
    }
}

/// The reactions of a partition, oldest first. A cursor takes no parameters.
fn read(partition: i16) -> String {
    let kind = Kind::Reacted.number();
    format!(
        "DECLARE old NO SCROLL CURSOR FOR
        SELECT chat_id, seq, ts, payload FROM events WHERE kind = {kind} AND partition = {partition} ORDER BY seq"
    )
}
