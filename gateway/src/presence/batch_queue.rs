//! Sessions that wait to be told something, served in batches.

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Holds an entry per session that just became live or asked: bounded by the sessions and their rate limits.
pub(super) struct BatchQueue<T> {
    waiting: Mutex<Vec<T>>,
    woken: Notify,
}

impl<T> Default for BatchQueue<T> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), woken: Notify::default() }
    }
}

impl<T> BatchQueue<T> {
    pub(super) fn push(&self, entry: T) {
        self.waiting.lock().push(entry);
        self.woken.notify_one();
    }

    /// The next entries, at least one and at most `most`.
    pub(super) async fn next(&self, most: usize) -> Vec<T> {
        loop {
            let batch = self.take(most);
            if !batch.is_empty() {
                return batch;
            }
            self.woken.notified().await;
        }
    }

    fn take(&self, most: usize) -> Vec<T> {
        let mut waiting = self.waiting.lock();
        if waiting.len() <= most {
            return std::mem::take(&mut waiting);
        }
        waiting.drain(..most).collect()
    }
}
