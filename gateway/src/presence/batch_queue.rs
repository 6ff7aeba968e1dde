//! A queue of sessions that wait for an answer, taken from it in batches.

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The queue. It has no bound of its own: an entry is a session that became live or sent a request, and the rate limits
/// bound both.
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

    /// Waits for entries and takes them: at least one, at most `most`, those that came first.
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
