//! Folding the log once more, beside the live projection: to verify it, or to replace it while it is in use.
//!
//! The log is read up to the live projection's position and no further, so that both hold the same rows if both are
//! right. Clients see no change before the exchange, and reads and writes wait no longer than the exchange takes.

use shared::id::Position;
use sql::{Checkpoint, Db, shadow::Fingerprint};
use streams::{Nats, Partition, Scan, Unavailable};

use crate::{
    config::ProjectorSettings,
    folder::{FoldError, Folder},
    projection::{TooNew, slices},
};

/// When so few events are left, they are folded while the live projection stands still: some 50 ms.
const NEAR: u64 = 2_000;
/// How often the folding says how far it has come.
const REPORT_EVENTS: u64 = 100_000;

/// Why a projection was not folded again. The live one is untouched.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error(transparent)]
    Sql(#[from] sql::Error),
    #[error(transparent)]
    Log(#[from] Unavailable),
    #[error(transparent)]
    Fold(#[from] FoldError),
    #[error(transparent)]
    TooNew(#[from] TooNew),
    #[error("the log lost its tail in between, or events of it are gone: try again")]
    OtherLog,
}

/// What is needed to fold the log again.
pub struct Rebuild {
    pub nats: Nats,
    pub db: Db,
    pub settings: ProjectorSettings,
}

impl Rebuild {
    /// Folds the log beside the live projection and compares. Returns what differs: live and folded anew.
    ///
    /// # Errors
    /// [`RebuildError`]
    pub async fn verify(
        &self,
        partition: Partition,
    ) -> Result<Vec<(Fingerprint, Fingerprint)>, RebuildError> {
        let mut shadow = self.shadow(partition).await?;
        let number = partition.as_i16();
        let differences = self
            .db
            .compare_with_shadow(number, async |live| {
                self.fold_to(&mut shadow, partition, live.position).await
            })
            .await?;
        drop(shadow);
        self.db.drop_shadow().await?;
        Ok(differences)
    }

    /// Folds the log beside the live projection and puts the result in its place.
    ///
    /// # Errors
    /// [`RebuildError`]
    pub async fn replace(&self, partition: Partition) -> Result<(), RebuildError> {
        let mut shadow = self.shadow(partition).await?;
        let number = partition.as_i16();
        loop {
            let Checkpoint { position, .. } = self.db.checkpoint(number).await?;
            let ahead = position.seq.get().saturating_sub(shadow.checkpoint().position.seq.get());
            if ahead < NEAR {
                break;
            }
            self.fold_to(&mut shadow, partition, position).await?;
        }
        let exchanged = self
            .db
            .exchange_with_shadow(number, async |live| {
                self.fold_to(&mut shadow, partition, live.position).await
            })
            .await?;
        drop(shadow);
        self.db.drop_shadow().await?;
        if exchanged { Ok(()) } else { Err(RebuildError::OtherLog) }
    }

    async fn shadow(&self, partition: Partition) -> Result<Folder, RebuildError> {
        let writer = self.db.create_shadow(partition.as_i16()).await?;
        Ok(Folder::new(writer, self.settings.cache_members).await?)
    }

    /// Folds up to the event at `to`.
    async fn fold_to(
        &self,
        shadow: &mut Folder,
        partition: Partition,
        to: Position,
    ) -> Result<(), RebuildError> {
        let mut scan = Scan::new(&self.nats, partition, shadow.checkpoint().position.seq, to.seq);
        let mut entries = Vec::new();
        let mut more = true;
        while more {
            match scan.next().await? {
                Some(batch) => entries.extend(batch),
                None => more = false,
            }
            if entries.len() < self.settings.batch as usize && more {
                continue;
            }
            let before = shadow.checkpoint().position.seq.get();
            for slice in slices(&entries) {
                shadow.apply(&slice).await?;
                if let Some(stop) = slice.too_new {
                    return Err(stop.into());
                }
            }
            entries.clear();
            let after = shadow.checkpoint().position.seq.get();
            if before / REPORT_EVENTS != after / REPORT_EVENTS {
                tracing::info!(seq = after, of = to.seq.get(), "folding");
            }
        }
        if shadow.checkpoint().position == to { Ok(()) } else { Err(RebuildError::OtherLog) }
    }
}
