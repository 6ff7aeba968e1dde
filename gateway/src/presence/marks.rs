//! Marks that could not be published yet. The highest of each user and chat is kept, and published with the next report.

use std::collections::HashMap;

use parking_lot::Mutex;
use shared::id::{ChatId, UserId};
use streams::marks::Mark;

/// Marks that may wait: some MB. Further ones are lost, until the user reads again in that chat.
const MAX_WAITING: usize = 50_000;

/// The marks that wait.
#[derive(Default)]
pub(super) struct UnsentMarks(Mutex<HashMap<(UserId, ChatId), Mark>>);

impl UnsentMarks {
    pub(super) fn keep(&self, mark: Mark) {
        let mut marks = self.0.lock();
        if let Some(kept) = marks.get_mut(&(mark.user, mark.chat)) {
            kept.read = kept.read.max(mark.read);
            kept.delivered = kept.delivered.max(mark.delivered);
        } else if marks.len() < MAX_WAITING {
            marks.insert((mark.user, mark.chat), mark);
        }
    }

    pub(super) fn take(&self) -> Vec<Mark> {
        std::mem::take(&mut *self.0.lock()).into_values().collect()
    }
}
