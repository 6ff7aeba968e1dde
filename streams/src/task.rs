//! A background task and its owner.
//!
//! Invariants: the task ends at the latest when its [`Task`] is dropped; a panic in it is logged as an error when it
//! happens, so that a connection that stopped for good is not a silent one.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::task::JoinSet;

/// The owner of a task. Dropping it ends the task.
pub(crate) struct Task {
    /// A set of one: it aborts what it holds when it is dropped.
    _running: JoinSet<()>,
}

impl Task {
    /// Starts `work`; `name` is what the log calls it. Needs a tokio runtime.
    pub(crate) fn spawn(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Self {
        let mut running = JoinSet::new();
        running.spawn(async move {
            // Nothing of `work` is used after a panic, so no half-changed state can be seen.
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                tracing::error!(
                    task = name,
                    "a task of the log's connections panicked; it is not started again"
                );
            }
        });
        Self { _running: running }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_task_ends_with_its_owner() {
        let (alive, mut ended) = oneshot::channel::<()>();
        let task = Task::spawn("test", async move {
            std::future::pending::<()>().await;
            drop(alive);
        });
        assert!(ended.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        drop(task);
        assert!(ended.await.is_err(), "what the task held is dropped");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_in_the_log() {
        let log = Arc::new(Log::default());
        let _log = tracing::subscriber::set_default(Arc::clone(&log));
        let (alive, ended) = oneshot::channel::<()>();
        let task = Task::spawn("test", async move {
            let _alive = alive;
            panic!("on purpose");
        });
        assert!(ended.await.is_err());
        log.wait().await;
        drop(task);
    }

    /// A subscriber that only tells whether an error was logged.
    #[derive(Default)]
    struct Log {
        error: tokio::sync::Notify,
    }

    impl Log {
        async fn wait(&self) {
            self.error.notified().await;
        }
    }

    impl tracing::Subscriber for Log {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::ERROR
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, _: &tracing::Event<'_>) {
            self.error.notify_one();
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }
}
